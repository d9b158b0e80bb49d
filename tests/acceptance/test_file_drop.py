"""Files through the running engine: kill -9 in the middle of a directory, and every message is told exactly once."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.load import arrived
from tests.acceptance.setting import Embedded, embedded
from tocengine.simulation.adt import AdtWriter, Visit
from tocengine.simulation.day import ATTENDING, PATEL, Expected
from tocengine.simulation.people import Population
from tocengine.simulation.receivers import Receivers

FILES, EACH = 30, 4


@pytest.mark.crash
@pytest.mark.timeout(120)
async def test_a_kill_in_mid_directory_loses_nothing_and_tells_nothing_twice(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    feed = '[[feeds]]\nname = "stj-files"\nfacility = "stj"\nprotocol = "files"\nprofile = "stj"\ndirectory = "inbox"\n'
    setting: Embedded = embedded(folder, receivers, secret, feed + "files = {poll_s = 0.05, settle_s = 0.0}\n")
    inbox = folder / "inbox"
    inbox.mkdir()
    expected = _write(inbox)
    await setting.apply()
    try:
        await setting.start()
        await _until_processed(inbox, 3)
        setting.kill("ingest")
        await _until_processed(inbox, FILES)
        tally = await arrived(expected, receivers, 30)
    finally:
        await setting.stop()
    assert (tally.lost, tally.duplicated) == (0, 0)
    assert not list((inbox / "failed").iterdir())


def _write(inbox: Path) -> list[Expected]:
    """`FILES` files of `EACH` admissions; who must be told of them."""
    population, writer = Population(7), AdtWriter("ADTOUT", "STJ", "STJ", prefix="F")
    now = datetime.now(UTC).replace(microsecond=0)
    expected = []
    for number in range(FILES):
        bodies = []
        for part in range(EACH):
            visit = Visit(
                number=f"F{number:03}{part}",
                person=population.person(PATEL),
                patient_class="I",
                unit="3N:4",
                attending=ATTENDING[0],
                admitted_at=now - timedelta(minutes=1),
            )
            bodies.append(writer.message("A01", visit, now, now))
            expected.append(Expected("patel", visit.number, "INPATIENT_ADMIT"))
        (inbox / f"{number:03}.hl7").write_bytes(b"".join(bodies))
    return expected


async def _until_processed(inbox: Path, count: int) -> None:
    async with asyncio.timeout(40):
        while not (done := inbox / "processed").is_dir() or len(list(done.iterdir())) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
