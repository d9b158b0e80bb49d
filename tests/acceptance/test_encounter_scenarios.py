"""The encounter scenarios of the domain's section 10 through the real program, on both event logs, in one start each.

A scenario is a patient of her own and a list of steps: a message, and what each recipient is told when it has come. All
scenarios go step by step side by side; at the end nothing may have been told beyond what they say.
"""

import base64
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.load import arrived
from tests.acceptance.setting import Setting
from tests.integration.scenarios.hospital import CONVERTED, HOME, PATEL, SNF, STILL, ZONE, Hospital, Said
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

pytestmark = pytest.mark.timeout(300)
NEW, UPDATED, CANCELLED, RETRACTED = "NEW", "UPDATED", "CANCELLED", "RETRACTED"
HAVEN, PCP = "haven", "patel"
Told = tuple[str, str, str]


@dataclass
class Scenario:
    """A patient on Haven's panel, with one more whose number ends in B. `step` adds a message and what is told of it:
    (recipient, status, kind)."""

    number: int
    day: str
    hospital: Hospital
    states: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[list[Said], list[Expected]]] = field(default_factory=list)

    @property
    def mrn(self) -> str:
        return f"S{self.number}"

    def visit(self, suffix: str = "") -> str:
        return f"V{self.number}{suffix}"

    def step(self, trigger: str, clock: str, cls: str = "I", *told: Told, suffix: str = "", **more: Any) -> Said:
        visit = self.visit(suffix)
        said = self.hospital.says(trigger, clock, cls, visit, day=self.day, **{"mrn": self.mrn, **more})
        self.send([said], *told, suffix=suffix)
        return said

    def send(self, said: list[Said], *told: Told, suffix: str = "") -> None:
        """Messages that go out one right after the other, whatever the other scenarios send."""
        self.steps.append((said, [Expected(who, self.visit(suffix), kind, status) for who, status, kind in told]))


def haven(kind: str, status: str = NEW) -> Told:
    return HAVEN, status, kind


def ed_to_inpatient_on_the_same_visit(s: Scenario) -> None:  # 1
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"), (PCP, NEW, "ED_REGISTRATION"), pcp=PATEL)
    s.step("A06", "14:00", "I", haven("INPATIENT_ADMIT"), (PCP, NEW, "INPATIENT_ADMIT"), pcp=PATEL)
    s.states = {"": "INPATIENT"}


def ed_to_inpatient_on_a_new_visit(s: Scenario) -> None:  # 2
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A03", "12:00", "E", disposition=CONVERTED)
    s.step("A01", "12:01:30", "I", haven("INPATIENT_ADMIT"), suffix="B", pv1={50: s.visit()})
    s.states = {"": "DISCHARGED", "B": "INPATIENT"}


def ed_to_inpatient_after_09_on_the_same_visit(s: Scenario) -> None:  # the third shape
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A03", "12:00", "E", disposition=CONVERTED)
    s.step("A01", "12:02", "E", haven("INPATIENT_ADMIT"))
    s.states = {"": "INPATIENT"}


def a_bed_move(s: Scenario) -> None:  # 3
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), pv1={3: "ICU^1^A"})
    s.step("A02", "11:00", "I", pv1={3: "3N^12^B"})
    s.states = {"": "INPATIENT"}


def a_discharge_to_a_named_facility_then_corrected(s: Scenario) -> None:  # 4 and 29
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    told = haven("INPATIENT_DISCHARGE"), ("sunnyside", NEW, "INPATIENT_DISCHARGE")
    s.step("A03", "15:00", "I", *told, disposition="3", destination="SUNNYSIDE REHAB^20260301")
    corrected = (
        haven("INPATIENT_DISCHARGE_CORRECTED", UPDATED),
        ("meadow", NEW, "INPATIENT_DISCHARGE"),
        ("sunnyside", RETRACTED, "INPATIENT_DISCHARGE"),
    )
    s.step("A08", "15:20", "I", *corrected, disposition=SNF, destination="MEADOW")


def a_destination_two_answer_to(s: Scenario) -> None:  # 5
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), (PCP, NEW, "INPATIENT_ADMIT"), pcp=PATEL)
    told = haven("INPATIENT_DISCHARGE"), (PCP, NEW, "INPATIENT_DISCHARGE")
    s.step("A03", "15:00", "I", *told, disposition=SNF, destination="TWO OAKS", pcp=PATEL)


def a_cancelled_discharge(s: Scenario) -> None:  # 6 and 7
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    told = haven("INPATIENT_DISCHARGE"), ("sunnyside", NEW, "INPATIENT_DISCHARGE")
    s.step("A03", "15:00", "I", *told, disposition=SNF, destination="SUNNYSIDE REHAB")
    back = haven("DISCHARGE_CANCELLED", CANCELLED), ("sunnyside", CANCELLED, "DISCHARGE_CANCELLED")
    s.step("A13", "15:40", "I", *back, pv1={3: "4W^1^A"})
    s.step("A13", "15:50", "I")
    s.step("A13", "16:00", "I", suffix="NEVER")
    s.states = {"": "INPATIENT"}


def a_discharge_that_overtakes_its_admission(s: Scenario) -> None:  # 8, within the window
    discharge = s.hospital.says("A03", "15:02", "I", s.visit(), day=s.day, mrn=s.mrn, disposition=SNF)
    admission = s.hospital.says("A01", "09:00", "I", s.visit(), day=s.day, mrn=s.mrn)
    s.send([discharge, admission], haven("INPATIENT_ADMIT"), haven("INPATIENT_DISCHARGE"))
    s.states = {"": "DISCHARGED"}


def a_discharge_whose_admission_comes_too_late(s: Scenario) -> None:  # 8, after the window
    overtaking = s.step("A03", "15:02", "I", disposition=SNF)
    s.send([overtaking], haven("INPATIENT_DISCHARGE"))  # told when the window of the first has ended
    s.step("A01", "09:00", "I")
    s.states = {"": "DISCHARGED"}


def the_same_bytes_again(s: Scenario) -> None:  # 9
    s.send([s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))])


def a_control_id_used_again(s: Scenario) -> None:  # 10
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), control="1")
    s.step("A01", "10:05", "I", haven("INPATIENT_ADMIT"), suffix="B", mrn=f"{s.mrn}B", control="1")


def a_cancelled_admission_restores_the_ed(s: Scenario) -> None:  # 11
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A01", "14:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A11", "14:30", "E", haven("ADMIT_CANCELLED", CANCELLED), happened="14:00")
    s.states = {"": "ED"}


def an_interim_bill(s: Scenario) -> None:  # 14
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A03", "15:00", "I", disposition=STILL)
    s.states = {"": "INPATIENT"}


def a_quick_registration(s: Scenario) -> None:  # 24
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A08", "10:10", "E", (PCP, NEW, "ED_REGISTRATION"), pcp=PATEL)


def an_unknown_patient_who_turns_out_to_be_a_resident(s: Scenario) -> None:  # 25
    s.step("A04", "10:00", "E", mrn=f"T{s.mrn}", name=f"TRAUMA^T{s.mrn}")
    merge = s.hospital.merges("10:30", into=s.mrn, prior=f"T{s.mrn}", day=s.day)
    s.send([merge], haven("ED_REGISTRATION"))
    s.states = {"": "ED"}


def discharged_cancelled_discharged(s: Scenario) -> None:  # 26
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A03", "15:02", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF, happened="15:00")
    s.step("A13", "15:30", "I", haven("DISCHARGE_CANCELLED", CANCELLED))
    s.step("A03", "16:00", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF, happened="15:00")


def an_ed_visit_closed_after_the_admission(s: Scenario) -> None:  # 27
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A01", "14:00", "I", haven("INPATIENT_ADMIT"), suffix="B", pv1={50: s.visit()})
    s.step("A03", "17:30", "E")


def an_admission_overtaken_by_an_update(s: Scenario) -> None:  # 28
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A08", "14:03", "E")
    s.step("A06", "14:02:58", "I", haven("INPATIENT_ADMIT"))


def a_leave_of_absence(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A21", "12:00", "I")
    s.step("A22", "18:00", "I")
    s.states = {"": "INPATIENT"}


def a_death(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A08", "12:00", "I", haven("PATIENT_EXPIRED"), pid={30: "Y"})
    s.step("A03", "13:00", "I", disposition="20", pid={30: "Y"})
    s.states = {"": "DISCHARGED"}


def a_parallel_outpatient_visit(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A04", "11:00", "O", suffix="B")
    s.step("A03", "12:00", "O", suffix="B", disposition=HOME)
    s.states = {"": "INPATIENT", "B": "DISCHARGED"}


def a_recurring_visit(s: Scenario) -> None:
    s.step("A04", "10:00", "R")
    s.step("A03", "12:00", "R", disposition=HOME)
    s.states = {"": "DISCHARGED"}


def an_admission_reversed_to_outpatient(s: Scenario) -> None:
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A06", "12:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A07", "15:00", "O", haven("INPATIENT_REVERSED", CANCELLED))
    s.states = {"": "REGISTERED"}


SCENARIOS: list[Callable[[Scenario], None]] = [
    made for made in list(globals().values()) if getattr(made, "__annotations__", {}).get("s") is Scenario
]


def _write_directory(folder: Path, port: int, secret: bytes, panel: list[str]) -> Path:
    signing = "whsec_" + base64.b64encode(secret).decode()

    def entry(name: str, **more: object) -> dict[str, object]:
        url = f"http://127.0.0.1:{port}/webhook/{name}"
        endpoints = [{"id": f"{name}-hook", "channel": "webhook", "url": url, "secret": signing}]
        return {"id": name, "name": name.title(), "endpoints": endpoints, "subscription": {"level": "FULL"}, **more}

    directory = {
        "version": 1,
        "facilities": [
            entry("haven", type="SNF"),
            entry("sunnyside", type="SNF", aliases=["SUNNYSIDE REHAB"]),
            entry("meadow", type="SNF", aliases=["MEADOW"]),
            entry("east", type="SNF", aliases=["TWO OAKS"]),
            entry("west", type="SNF", aliases=["TWO OAKS"]),
        ],
        "practitioners": [entry("patel", npi="1234567893")],
        "panels": [{"facility": "haven", "members": [{"domain": "STJ", "value": mrn} for mrn in panel]}],
    }
    path = folder / "scenarios.yaml"
    path.write_text(yaml.safe_dump(directory, sort_keys=False), encoding="utf-8")
    return path


async def test_every_scenario_tells_what_it_says_and_nothing_else(setting: Setting, receivers: Receivers) -> None:
    day = (datetime.now(ZONE) - timedelta(days=1)).date().isoformat()
    scenarios = {}
    hospital = Hospital(system="ADTOUT")
    for number, write in enumerate(SCENARIOS, 1):
        scenarios[write.__name__] = scenario = Scenario(number, day, hospital)
        write(scenario)
    config = setting.folder / "tocengine.toml"
    config.write_text(config.read_text().replace("holdback_s = 2", "holdback_s = 10"))
    path = _write_directory(
        setting.folder, receivers.port, setting.secret, [m for s in scenarios.values() for m in (s.mrn, f"{s.mrn}B")]
    )
    status, out, error = await setting.engine.call("apply", "-f", str(path))
    assert status == 0, out + error
    await setting.start()
    expected: list[Expected] = []
    async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
        for turn in range(max(len(s.steps) for s in scenarios.values())):
            for name, scenario in scenarios.items():
                for messages, told in scenario.steps[turn : turn + 1]:
                    assert [await sender.send(said.body) for said in messages] == ["AA"] * len(messages), name
                    expected += told
            await _wait(expected, receivers)
    await _settled(setting, scenarios)
    assert not receivers.accepted - Counter(expected), receivers.accepted - Counter(expected)
    (verified,) = await setting.engine.ask("audit", "verify")
    assert verified["intact"] is True


async def _wait(expected: list[Expected], receivers: Receivers) -> None:
    tally = await arrived(expected, receivers, 25)
    missing = Counter(expected) - receivers.accepted
    assert not missing, missing
    assert tally.lost == 0


async def _settled(setting: Setting, scenarios: dict[str, Scenario]) -> None:
    """Each visit ends in its state; asking takes long enough for anything still under way to arrive."""
    for name, scenario in scenarios.items():
        for suffix, state in scenario.states.items():
            (story,) = await setting.engine.ask("encounter", "show", scenario.visit(suffix), "--domain", "STJ")
            assert story["state"] == state, name
            assert str(story["patient"]).rpartition("|")[2] == scenario.mrn, name  # of a merge the one that survives
            assert story["timeline"], name
