"""Early messages through the real program: held back, a kill -9 survived, and told in order or when the window ends."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.load import arrived
from tests.acceptance.setting import Embedded, ScaledOut, Setting
from tests.integration.scenarios.hospital import SNF, ZONE, Hospital
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

pytestmark = [pytest.mark.crash, pytest.mark.alone, pytest.mark.timeout(180)]
WINDOW_S = 12


def _hospital() -> tuple[Hospital, dict[str, str]]:
    """A hospital that speaks on the simulated feed, and the day its patients' stays happen on."""
    yesterday = datetime.now(ZONE) - timedelta(days=1)
    return Hospital(system="ADTOUT"), {"day": yesterday.date().isoformat()}


async def _kill_router(setting: Setting) -> None:
    if isinstance(setting, Embedded):
        setting.kill("route")
    else:
        assert isinstance(setting, ScaledOut)
        await setting.kill_and_restart("route")


async def _held(setting: Setting, visit: str) -> list[object]:
    """What waits for `visit`, as the command shows it."""
    shown = await setting.engine.ask("encounter", "show", visit)
    return [line for line in (shown[0]["timeline"] if shown else []) if line["what"] == "held back"]  # type: ignore[attr-defined]


async def test_what_is_held_back_survives_a_kill_of_the_router(setting: Setting, receivers: Receivers) -> None:
    path = setting.folder / "tocengine.toml"
    path.write_text(path.read_text().replace("holdback_s = 2", f"holdback_s = {WINDOW_S}"))
    hospital, day = _hospital()
    alone = hospital.says("A03", "15:00", visit="H1", mrn="901", disposition=SNF, **day)  # type: ignore[arg-type]
    overtaking = hospital.says("A03", "15:00", visit="H2", mrn="902", disposition=SNF, **day)  # type: ignore[arg-type]
    admission = hospital.says("A01", "09:00", visit="H2", mrn="902", **day)  # type: ignore[arg-type]
    await setting.apply({"sunnyside": ["901", "902"]})
    await setting.start()
    async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
        began = datetime.now(UTC)
        assert await sender.send(alone.body) == "AA"
        assert await sender.send(overtaking.body) == "AA"
        async with asyncio.timeout(10):
            while not (await _held(setting, "H1") and await _held(setting, "H2")):
                pass
        await _kill_router(setting)
        assert await sender.send(admission.body) == "AA"
    in_order = [Expected("sunnyside", "H2", "INPATIENT_ADMIT"), Expected("sunnyside", "H2", "INPATIENT_DISCHARGE")]
    tally = await arrived(in_order, receivers, WINDOW_S)
    assert (tally.lost, tally.disordered) == (0, 0)
    assert Expected("sunnyside", "H1", "INPATIENT_DISCHARGE") not in receivers.accepted
    tally = await arrived([*in_order, Expected("sunnyside", "H1", "INPATIENT_DISCHARGE")], receivers, 2 * WINDOW_S)
    assert (datetime.now(UTC) - began).total_seconds() >= WINDOW_S
    assert (tally.lost, tally.duplicated, tally.repeated, tally.disordered) == (0, 0, 0, 0)
    assert set(Counter(receivers.accepted).values()) == {1}
