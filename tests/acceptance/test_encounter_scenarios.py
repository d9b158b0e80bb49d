"""The encounter scenarios of the domain's section 10 through the real program, on both event logs, in one start each.

A scenario is a patient of her own and a list of steps: a message, and what each recipient is told when it has come. All
scenarios go step by step side by side; at the end nothing may have been told beyond what they say.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.load import arrived
from tests.acceptance.scenario import (
    CANCELLED,
    NEW,
    PCP,
    RETRACTED,
    UPDATED,
    Scenario,
    check_shown,
    endings,
    haven,
    meadow,
    write_partners,
)
from tests.acceptance.setting import Setting
from tests.integration.scenarios.hospital import CONVERTED, HOME, PATEL, SNF, STILL, ZONE, Hospital, Said
from tocengine.commands.session import connected
from tocengine.config_file import load_config
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

pytestmark = pytest.mark.timeout(600)
VOSS = "VOSS^PETER^^^^^L"
UNRESOLVED = ("DESTINATION_UNRESOLVED",)  # a nursing home that no message names
PROFILE = """holdback_s = 10
patient_type_map = {OBS = "observation"}
late_after_h = 48"""
"""The stays are yesterday's: with the usual 24 h it would be the hour of the run that decides what is late."""


def ed_to_inpatient_on_the_same_visit(s: Scenario) -> None:  # 1
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"), (PCP, NEW, "ED_REGISTRATION"), pcp=PATEL)
    s.step("A06", "14:00", "I", haven("INPATIENT_ADMIT"), (PCP, NEW, "INPATIENT_ADMIT"), pcp=PATEL)
    s.ends("INPATIENT")


def ed_to_inpatient_on_a_new_visit(s: Scenario) -> None:  # 2
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A03", "12:00", "E", disposition=CONVERTED)
    s.step("A01", "12:01:30", "I", haven("INPATIENT_ADMIT"), suffix="B", pv1={50: s.visit()})
    s.ends("DISCHARGED", untold=("CONVERSION_NOT_DISCHARGE",))
    s.ends("INPATIENT", "B")


def ed_to_inpatient_after_09_on_the_same_visit(s: Scenario) -> None:  # the third shape
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A03", "12:00", "E", disposition=CONVERTED)
    s.step("A01", "12:02", "E", haven("INPATIENT_ADMIT"))
    s.ends("INPATIENT", untold=("CONVERSION_NOT_DISCHARGE",))


def a_bed_move(s: Scenario) -> None:  # 3
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), pv1={3: "ICU^1^A"})
    s.step("A02", "11:00", "I", pv1={3: "3N^12^B"})
    s.ends("INPATIENT", inside=("LOCATION_CHANGE",))


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
    s.shows(("sunnyside", RETRACTED, "INPATIENT_DISCHARGE"), without=("MEADOW", "Meadow"))
    s.ends("DISCHARGED")


def a_destination_two_answer_to(s: Scenario) -> None:  # 5
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), (PCP, NEW, "INPATIENT_ADMIT"), pcp=PATEL)
    told = haven("INPATIENT_DISCHARGE"), (PCP, NEW, "INPATIENT_DISCHARGE")
    s.step("A03", "15:00", "I", *told, disposition=SNF, destination="TWO OAKS", pcp=PATEL)
    s.ends("DISCHARGED", untold=UNRESOLVED, work=("DESTINATION_AMBIGUOUS",))


def a_cancelled_discharge(s: Scenario) -> None:  # 6 and 7
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    told = haven("INPATIENT_DISCHARGE"), ("sunnyside", NEW, "INPATIENT_DISCHARGE")
    s.step("A03", "15:00", "I", *told, disposition=SNF, destination="SUNNYSIDE REHAB")
    back = haven("DISCHARGE_CANCELLED", CANCELLED), ("sunnyside", CANCELLED, "DISCHARGE_CANCELLED")
    s.step("A13", "15:40", "I", *back, pv1={3: "4W^1^A"})
    s.step("A13", "15:50", "I")
    s.step("A13", "16:00", "I", suffix="NEVER")
    s.ends("INPATIENT")


def a_discharge_that_overtakes_its_admission(s: Scenario) -> None:  # 8, within the window
    discharge = s.hospital.says("A03", "15:02", "I", s.visit(), day=s.day, mrn=s.mrn, disposition=SNF)
    admission = s.hospital.says("A01", "09:00", "I", s.visit(), day=s.day, mrn=s.mrn)
    s.send([discharge, admission], haven("INPATIENT_ADMIT"), haven("INPATIENT_DISCHARGE"))
    s.ends("DISCHARGED", untold=UNRESOLVED)


def a_discharge_whose_admission_comes_too_late(s: Scenario) -> None:  # 8, after the window
    overtaking = s.step("A03", "15:02", "I", disposition=SNF)
    s.send([overtaking], haven("INPATIENT_DISCHARGE"))  # told when the window of the first has ended
    s.step("A01", "09:00", "I")
    s.shows(haven("INPATIENT_DISCHARGE"), flags=["implicit_open"])
    s.ends("DISCHARGED", untold=("COVERED_BY_DISCHARGE", *UNRESOLVED))


def the_same_bytes_again(s: Scenario) -> None:  # 9
    s.send([s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))])


def a_control_id_used_again(s: Scenario) -> None:  # 10
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), control="1")
    s.step("A01", "10:05", "I", haven("INPATIENT_ADMIT"), suffix="B", mrn=f"{s.mrn}B", control="1")
    s.ends("INPATIENT")
    s.ends("INPATIENT", "B", owner=f"{s.mrn}B")


def a_cancelled_admission_restores_the_ed(s: Scenario) -> None:  # 11
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A01", "14:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A11", "14:30", "E", haven("ADMIT_CANCELLED", CANCELLED), happened="14:00")
    s.ends("ED")


def an_interim_bill(s: Scenario) -> None:  # 14
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A03", "15:00", "I", disposition=STILL)
    s.ends("INPATIENT", flags=("still_patient",))


def a_quick_registration(s: Scenario) -> None:  # 24
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A08", "10:10", "E", (PCP, NEW, "ED_REGISTRATION"), pcp=PATEL)
    s.ends("ED")


def an_unknown_patient_who_turns_out_to_be_a_resident(s: Scenario) -> None:  # 25
    s.step("A04", "10:00", "E", mrn=f"T{s.mrn}", name=f"TRAUMA^T{s.mrn}")
    merge = s.hospital.merges("10:30", into=s.mrn, prior=f"T{s.mrn}", day=s.day)
    s.send([merge], haven("ED_REGISTRATION"))
    s.ends("ED", untold=("NO_RECIPIENT",))


def discharged_cancelled_discharged(s: Scenario) -> None:  # 26
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A03", "15:02", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF, happened="15:00")
    s.step("A13", "15:30", "I", haven("DISCHARGE_CANCELLED", CANCELLED))
    s.step("A03", "16:00", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF, happened="15:00")
    s.ends("DISCHARGED", untold=UNRESOLVED)


def an_ed_visit_closed_after_the_admission(s: Scenario) -> None:  # 27
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A01", "14:00", "I", haven("INPATIENT_ADMIT"), suffix="B", pv1={50: s.visit()})
    s.step("A03", "17:30", "E")
    s.ends("DISCHARGED", untold=("CONVERSION_NOT_DISCHARGE",))
    s.ends("INPATIENT", "B")


def an_admission_overtaken_by_an_update(s: Scenario) -> None:  # 28
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A08", "14:03", "E")
    s.step("A06", "14:02:58", "I", haven("INPATIENT_ADMIT"))
    s.ends("INPATIENT")


def a_leave_of_absence(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A21", "12:00", "I")
    s.step("A22", "18:00", "I")
    s.ends("INPATIENT", inside=("LEAVE_START", "LEAVE_END"))


def a_death(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A08", "12:00", "I", haven("PATIENT_EXPIRED"), pid={30: "Y"})
    s.step("A03", "13:00", "I", disposition="20", pid={30: "Y"})
    s.ends("DISCHARGED")


def a_parallel_outpatient_visit(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A04", "11:00", "O", suffix="B")
    s.step("A03", "12:00", "O", suffix="B", disposition=HOME)
    s.ends("INPATIENT")
    s.ends("DISCHARGED", "B")


def a_recurring_visit(s: Scenario) -> None:
    s.step("A04", "10:00", "R")
    s.step("A03", "12:00", "R", disposition=HOME)
    s.ends("DISCHARGED")


def an_admission_reversed_to_outpatient(s: Scenario) -> None:
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A06", "12:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A07", "15:00", "O", haven("INPATIENT_REVERSED", CANCELLED))
    s.ends("REGISTERED")


def a_merge_with_a_patient_who_opted_out(s: Scenario) -> None:  # 12
    silent = f"{s.mrn}B"
    s.opted_out = [silent]
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A04", "10:05", "E", suffix="B", mrn=silent)
    s.send([s.hospital.merges("10:30", into=s.mrn, prior=silent, day=s.day)])
    s.step("A03", "15:00", "I", mrn=silent, disposition=HOME)
    s.ends("DISCHARGED", untold=("OPTED_OUT",))
    s.ends("ED", "B", untold=("OPTED_OUT",))


def _moved(s: Scenario, trigger: str, **more: Any) -> None:
    """An ED arrival of Haven's patient turns out to be of Meadow's, who is somebody else."""
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"), name="BRANDT^MAX", pid={18: f"H{s.number}"})
    move = s.rekeys(trigger, "10:30", s.other, name=VOSS, **more)
    s.send([move], haven("ED_REGISTRATION", RETRACTED), meadow("ED_REGISTRATION"))
    s.step("A06", "11:00", "I", meadow("INPATIENT_ADMIT"), mrn=s.other, name=VOSS)
    s.shows(haven("ED_REGISTRATION", RETRACTED), without=("VOSS", f'"{s.other}"'))
    s.shows(meadow("ED_REGISTRATION"), without=("BRANDT", "MAX"))
    s.ends("INPATIENT", owner=s.other)


def a_visit_moved_to_the_right_patient(s: Scenario) -> None:  # 13, A45
    _moved(s, "A45", mrg={3: f"H{s.number}", 5: f"{s.visit()}^^^STJ^VN"}, pid={18: f"K{s.number}"})


def an_account_moved_to_the_right_patient(s: Scenario) -> None:  # 13, A44
    _moved(s, "A44", mrg={3: f"H{s.number}"}, pid={18: f"K{s.number}"})


def a_number_that_changed_hands(s: Scenario) -> None:  # 13, A43
    _moved(s, "A43")


def a_move_inside_a_merge(s: Scenario) -> None:  # 2.1: nothing is retracted where the two turn out to be one
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    move = s.rekeys("A45", "10:30", s.other, mrg={5: f"{s.visit()}^^^STJ^VN"})
    s.send([move, s.hospital.merges("10:30:05", into=s.other, prior=s.mrn, day=s.day)], meadow("ED_REGISTRATION"))
    s.ends("ED", owner=s.other)


def a_visit_under_another_number(s: Scenario) -> None:  # A42
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.send([s.rekeys("A42", "10:30", s.mrn, mrg={5: f"{s.visit()}^^^STJ^VN"}, suffix="B")])
    s.step("A06", "11:00", "I", haven("INPATIENT_ADMIT"), suffix="B")
    s.ends("INPATIENT", "B")


def merges_that_contradict_each_other(s: Scenario) -> None:
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.send([s.hospital.merges("10:10", into=s.other, prior=s.mrn, day=s.day)], meadow("ED_REGISTRATION"))
    s.send([s.hospital.merges("10:20", into=s.mrn, prior=s.other, day=s.day)])
    s.ends("ED", owner=s.other, work=("MERGE_REFUSED",))


def a_message_of_another_patient(s: Scenario) -> None:
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A08", "10:10", "E", mrn=s.other, name=VOSS, pcp=PATEL)
    s.ends("ED", flags=("patient_contradicts_visit",), work=("ENCOUNTER_FLAGGED",))


def two_patients_swap_beds(s: Scenario) -> None:  # A17
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), pv1={3: "3N^1^A"})
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), suffix="B", mrn=f"{s.mrn}B", pv1={3: "3N^2^A"})
    first = s.says("A17", "11:00", pv1={3: "3N^2^A"})
    second = s.says("A17", "11:00", suffix="B", mrn=f"{s.mrn}B", pv1={3: "3N^1^A"})
    s.send([Said(first.body + second.body[second.body.index(b"PID|") :], first.received)])
    s.ends("INPATIENT", inside=("LOCATION_CHANGE",))
    s.ends("INPATIENT", "B", owner=f"{s.mrn}B", inside=("LOCATION_CHANGE",))


def a_bed_move_cancelled(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), pv1={3: "ICU^1^A"})
    s.step("A02", "11:00", "I", pv1={3: "3N^12^B"})
    s.step("A12", "11:30", "I", pv1={3: "ICU^1^A"})
    s.ends("INPATIENT", inside=("LOCATION_CHANGE", "LOCATION_CHANGE"))


def an_ed_visit_put_under_observation(s: Scenario) -> None:
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"))
    s.step("A06", "12:00", "OBS", pv1={2: "O", 18: "OBS"})
    s.step("A03", "18:00", "OBS", haven("ED_DISCHARGE"), pv1={2: "O", 18: "OBS"}, disposition=HOME)
    s.ends("DISCHARGED", untold=("EVENT_NOT_SUBSCRIBED",))


def a_discharge_expected_and_not(s: Scenario) -> None:  # A16, A25
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A16", "11:00", "I", happened="18:00")
    s.step("A25", "12:00", "I")
    s.ends("INPATIENT", inside=("DISCHARGE_PENDING",))


def a_pre_admission_cancelled(s: Scenario) -> None:  # A05, A38
    s.step("A05", "10:00", "I")
    s.step("A38", "11:00", "I")
    s.ends("CANCELLED")


def a_leave_cancelled(s: Scenario) -> None:  # A21, A52, A21, A22, A53
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A21", "12:00", "I")
    s.step("A52", "12:30", "I")
    s.step("A21", "13:00", "I")
    s.step("A22", "18:00", "I")
    s.step("A53", "18:30", "I")
    s.ends("ON_LEAVE", inside=("LEAVE_START", "LEAVE_END", "LEAVE_START", "LEAVE_END", "LEAVE_START"))


def an_initial_load(s: Scenario) -> None:  # 22: state is built, and nothing told of it
    s.step("A01", "10:00", "I", processing="P^I")
    s.step("A03", "15:00", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF)
    s.ends("DISCHARGED", untold=(*UNRESOLVED, "INITIAL_LOAD"))


def a_test_on_a_production_feed(s: Scenario) -> None:  # 22
    s.step("A01", "10:00", "I", processing="T")
    s.ends("INPATIENT", untold=("TEST_MESSAGE",))


def a_discharge_without_a_practitioner(s: Scenario) -> None:  # 21
    nobody = {7: "9999999999^UNKNOWN^PROVIDER"}
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), pv1=nobody)
    s.step("A03", "15:00", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF, pv1=nobody)
    s.ends("DISCHARGED", flags=("placeholder:PV1-7",), untold=UNRESOLVED, work=("TREATING_NOT_SUPPLIED",))


def a_discharge_with_half_a_birth_date(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"), pid={7: "1940"})
    s.step("A03", "15:00", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF, pid={7: "1940"})
    s.ends("DISCHARGED", untold=UNRESOLVED)


def an_update_that_empties_the_destination(s: Scenario) -> None:  # 2.4: only A13 clears discharge facts
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A03", "15:00", "I", haven("INPATIENT_DISCHARGE"), disposition=SNF)
    s.step("A08", "15:30", "I", disposition='""')
    s.ends(
        "DISCHARGED",
        flags=("discharge_facts_cleared_by_update",),
        untold=UNRESOLVED,
        work=("ENCOUNTER_FLAGGED",),
    )


def an_arrival_that_becomes_known_days_later(s: Scenario) -> None:
    s.step("A04", "10:00", "E", haven("ED_REGISTRATION"), day=_earlier(s.day, 3))
    s.shows(haven("ED_REGISTRATION"), late=True)
    s.ends("ED")


def a_stay_that_becomes_known_when_it_is_history(s: Scenario) -> None:
    day = _earlier(s.day, 9)
    admission, discharge = s.says("A01", "10:00", day=day), s.says("A03", "15:00", day=day, disposition=SNF)
    s.send([admission], haven("INPATIENT_ADMIT"))  # an open stay is always told
    s.send([discharge])
    s.ends("DISCHARGED", untold=(*UNRESOLVED, "LATE_HISTORIC"))


def stays_that_overlap(s: Scenario) -> None:
    s.step("A01", "10:00", "I", haven("INPATIENT_ADMIT"))
    s.step("A01", "12:00", "I", haven("INPATIENT_ADMIT"), suffix="B")
    s.ends("INPATIENT")
    s.ends("INPATIENT", "B", flags=("overlapping_encounter",))


def _earlier(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


SCENARIOS: list[Callable[[Scenario], None]] = [
    made
    for name, made in list(globals().items())
    if getattr(made, "__annotations__", {}).get("s") is Scenario and not name.startswith("_")
]


async def test_every_scenario_tells_what_it_says_and_nothing_else(setting: Setting, receivers: Receivers) -> None:
    day = (datetime.now(ZONE) - timedelta(days=1)).date().isoformat()
    scenarios = {}
    hospital = Hospital(system="ADTOUT")
    for number, write in enumerate(SCENARIOS, 1):
        scenarios[write.__name__] = scenario = Scenario(number, day, hospital)
        write(scenario)
    config = setting.folder / "tocengine.toml"
    config.write_text(config.read_text().replace("holdback_s = 2", PROFILE))
    path = write_partners(setting.folder, receivers.port, setting.secret, list(scenarios.values()))
    status, out, error = await setting.engine.call("apply", "-f", str(path))
    assert status == 0, out + error
    await setting.start(90)
    expected: list[Expected] = []
    async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
        for turn in range(max(len(s.steps) for s in scenarios.values())):
            for name, scenario in scenarios.items():
                for messages, told in scenario.steps[turn : turn + 1]:
                    assert [await sender.send(said.body) for said in messages] == ["AA"] * len(messages), name
                    expected += told
            await _wait(expected, receivers)
    await _end(config, list(scenarios.values()))
    (story,) = await setting.engine.ask("encounter", "show", scenarios["a_bed_move"].visit(), "--domain", "STJ")
    assert story["state"] == "INPATIENT"
    assert not receivers.accepted - Counter(expected), receivers.accepted - Counter(expected)
    for scenario in scenarios.values():
        for shown in scenario.shown:
            check_shown(shown, receivers)
    (verified,) = await setting.engine.ask("audit", "verify")
    assert verified["intact"] is True


async def _wait(expected: list[Expected], receivers: Receivers) -> None:
    tally = await arrived(expected, receivers, 45)
    missing = Counter(expected) - receivers.accepted
    assert not missing, missing
    assert tally.lost == 0


async def _end(config: Path, scenarios: list[Scenario]) -> None:
    """Waits until every visit has ended as its scenario says."""
    wrong: list[object] = []
    async with connected(load_config(config)) as pool, pool.acquire() as connection:
        for _ in range(30):
            found = [(scenario, await endings(connection, scenario)) for scenario in scenarios]
            wrong = [(s.visit(), ended, s.endings) for s, ended in found if ended != s.endings]
            if not wrong:
                return
            await asyncio.sleep(1)
    raise AssertionError(wrong)
