"""What an operator does while the real program runs: says what a code means, takes that back, and reads again what was
set aside once its cause is mended. Each message's notice arrives then, and once."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.load import arrived
from tests.acceptance.setting import Setting
from tests.integration.scenarios.hospital import ZONE, Hospital, Said
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

pytestmark = pytest.mark.timeout(600)
FEED, SNF = "stj-adt", "sunnyside"
ADMITTED, DISCHARGED = "INPATIENT_ADMIT", "INPATIENT_DISCHARGE"
CORRECTED = DISCHARGED + "_CORRECTED"


@dataclass
class Operator:
    """Sends, and asks the commands what they show."""

    setting: Setting
    receivers: Receivers

    async def send(self, *said: Said) -> list[str]:
        async with MllpSender("127.0.0.1", self.setting.ports.mllp) as sender:
            return [await sender.send(each.body) for each in said]

    async def ask(self, *arguments: str) -> list[Any]:
        """What a command prints, an object a line."""
        return await self.setting.engine.ask(*arguments)

    async def status(self, *arguments: str) -> int:
        """The exit status of a command."""
        return (await self.setting.engine.call(*arguments))[0]

    async def told(self, *notices: Expected) -> None:
        """These were told since the beginning, each once, and nothing else."""
        tally = await arrived(list(notices), self.receivers, 30)
        assert self.receivers.accepted == Counter(notices)
        assert (tally.lost, tally.duplicated, tally.repeated) == (0, 0, 0)

    async def open_items(self, kind: str) -> list[str]:
        """The subjects of the open work items of a kind."""
        return sorted(item["subject"] for item in await self.ask("work-items", "list") if item["kind"] == kind)

    async def until_asked(self, kind: str, *subjects: str) -> None:
        """Routing comes to a message a moment after its answer; each look is a process and takes its time."""
        while await self.open_items(kind) != sorted(subjects):
            pass

    async def waiting(self) -> dict[str, int]:
        """How many messages wait for a code, by code."""
        return {row["code"]: row["waiting"] for row in await self.ask("codes", "list", "--unmapped")}

    async def restart_with(self, before: str, after: str) -> None:
        """Mends the configuration; the engine reads it at its start."""
        path = self.setting.folder / "tocengine.toml"
        text = path.read_text()
        assert text.count(before) == 1
        path.write_text(text.replace(before, after))
        await self.setting.stop()
        await self.setting.start(deadline_s=120)


@pytest.fixture
async def operator(setting: Setting, receivers: Receivers) -> Operator:
    """With an engine that runs, and three residents of Sunnyside."""
    await setting.apply({SNF: ["901", "902", "903"]})
    await setting.start(deadline_s=120)
    return Operator(setting, receivers)


def _yesterday() -> str:
    return (datetime.now(ZONE) - timedelta(days=1)).date().isoformat()


async def test_an_unknown_code_is_asked_about_once_and_its_mapping_brings_the_notices(operator: Operator) -> None:
    hospital, day = Hospital(system="ADTOUT"), _yesterday()
    admissions = [hospital.says("A01", "09:00", "QQ", f"C{n}", mrn=f"90{n}", day=day) for n in (1, 2, 3)]
    assert await operator.send(*admissions[:2]) == ["AA", "AA"]
    await operator.until_asked("CODE_UNMAPPED", f"{FEED}|class|QQ")
    while await operator.waiting() != {"QQ": 2}:
        pass
    assert not operator.receivers.accepted

    assert await operator.status("codes", "map", FEED, "class", "QQ", "inpatient") == 0  # the engine may be quicker
    told = [Expected(SNF, "C1", ADMITTED), Expected(SNF, "C2", ADMITTED)]
    await operator.told(*told)
    assert (await operator.open_items("CODE_UNMAPPED"), await operator.waiting()) == ([], {})
    assert await operator.send(admissions[2]) == ["AA"]
    told += [Expected(SNF, "C3", ADMITTED)]
    await operator.told(*told)  # it counts for what comes now

    discharge = hospital.says("A03", "10:00", "I", "C1", mrn="901", disposition="HHS", day=day)
    assert await operator.send(discharge) == ["AA"]
    told += [Expected(SNF, "C1", DISCHARGED)]
    await operator.told(*told)  # a discharge is told at once, whatever its disposition means
    await operator.until_asked("CODE_UNMAPPED", f"{FEED}|disposition|HHS")
    await operator.ask("codes", "map", FEED, "disposition", "HHS", "06")
    told += [Expected(SNF, "C1", CORRECTED, "UPDATED")]
    await operator.told(*told)
    assert await operator.open_items("CODE_UNMAPPED") == []

    (unmapped,) = await operator.ask("codes", "unmap", FEED, "class", "QQ")  # it was no class of inpatients after all
    assert unmapped["messages"]["changed"] == 3  # those that had waited for it too
    told += [Expected(SNF, f"C{n}", "ADMIT_CANCELLED", "CANCELLED") for n in (1, 2, 3)]
    await operator.told(*told)
    assert await operator.waiting() == {"QQ": 3}
    assert await operator.status("codes", "unmap", FEED, "class", "QQ") == 1  # nothing is mapped any more


async def test_what_was_set_aside_arrives_once_when_its_cause_is_mended_and_it_is_read_again(
    operator: Operator,
) -> None:
    hospital, day = Hospital(system="ADTOUT"), _yesterday()
    unnumbered = hospital.says("A01", "09:00", visit="Q1", mrn="901", pv1={19: "", 50: "Q1"}, day=day)
    stranger = Hospital(system="NEWSYS").says("A01", "09:10", visit="Q2", mrn="902", pv1={50: "Q2"}, day=day)
    hopeless = hospital.says("A01", "09:20", visit="Q3", mrn="903", pv1={19: ""}, day=day)
    assert await operator.send(unnumbered, stranger, hopeless) == ["AA", "AR", "AA"]
    reasons = {"visit_key_missing": "PV1^1^19", "unknown_sender": "MSH^1^3"}
    await operator.until_asked("MESSAGE_QUARANTINED", *(f"{FEED}|{reason}|{at}" for reason, at in reasons.items()))
    rows = {row["reason"]: row for row in await operator.ask("quarantine", "list")}
    assert await operator.status("quarantine", "retry", "--all") == 1  # nothing has changed
    assert not operator.receivers.accepted

    profile = 'match = {msh3 = "ADTOUT", msh4 = "STJ"}'
    await operator.restart_with(profile, 'match = {msh4 = "STJ"}\nvisit_key = "PV1-50"')
    (done,) = await operator.ask("quarantine", "retry", "--all")
    left = [each["message_id"] for each in done["retried"] if each["problem"]]
    assert (len(done["retried"]), len(left)) == (3, 1)
    told = [Expected(SNF, "Q1", ADMITTED), Expected(SNF, "Q2", ADMITTED)]
    await operator.told(*told)

    (found,) = await operator.ask("quarantine", "show", rows["unknown_sender"]["message_id"])
    assert [row["cause"] for row in found["lineage"]] == ["QUARANTINE"]
    assert await operator.send(unnumbered) == ["AA"]  # its sender sends it again
    assert await operator.status("quarantine", "retry", "--all") == 1  # the hopeless one alone is left
    assert await operator.status("quarantine", "discard", *left, "--reason", "it names no visit") == 0
    assert await operator.open_items("MESSAGE_QUARANTINED") == []
    await operator.told(*told)
