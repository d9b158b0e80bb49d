"""Merges, new numbers, moves and links through the real stages: who hears of a visit, and who no longer may."""

from datetime import UTC, timedelta

import pytest

from tests.integration.scenarios.hospital import PATEL, SNF, Hospital, Said, moment
from tests.integration.scenarios.setting import HOMES, Setting, directory
from tocengine.encounters.holdback import Window
from tocengine.model.ids import FeedName
from tocengine.model.profile import SourceProfile
from tocengine.routing import worker

ARRIVED = ("haven", "NEW", "ED_REGISTRATION")
ADMITTED = ("haven", "NEW", "INPATIENT_ADMIT")
OTHER = "VOSS^PETER^^^^^L"


def rekeys(
    hospital: Hospital,
    trigger: str,
    clock: str,
    *,
    mrn: str = "11",
    prior: str = "11",
    account: tuple[str, str] = ("", ""),
    visit: tuple[str, str] = ("", ""),
    **more: object,
) -> Said:
    """A message about keys; `account` and `visit` are (prior, surviving)."""
    mrg = {1: hospital.key(prior), 3: account[0], 5: f"{visit[0]}^^^STJ^VN" if visit[0] else ""}
    pid = {18: account[1]} if account[1] else {}
    return hospital.says(trigger, clock, "E", visit[1], mrn=mrn, mrg=mrg, pid=pid, **more)  # type: ignore[arg-type]


async def owner(town: Setting, visit: str) -> str:
    """The surviving number of the patient whose visit it is."""
    query = """select s.value from encounter e join patient p using (patient_id)
               join patient s on s.patient_id = coalesce(p.survivor_id, p.patient_id) where e.visit_number = $1"""
    return str(await town.pool.fetchval(query, visit))


# --- moves


@pytest.mark.parametrize("trigger", ["A43", "A44", "A45"])
@pytest.mark.parametrize("delivered", [True, False])
async def test_13_a_visit_moves_to_the_right_patient(
    panels: Setting, hospital: Hospital, trigger: str, delivered: bool
) -> None:
    arrival = hospital.says("A04", "10:00", "E", "V300", mrn="11", name="BRANDT^MAX", pid={18: "H11"})
    assert await panels.hear(arrival) == [ARRIVED]
    if delivered:
        await panels.deliver()
    move = rekeys(
        hospital, trigger, "10:30", mrn="22", account=("H11", "H22"), visit=("V300", ""), name=OTHER
    )  # fmt: skip
    told = await panels.hear(move)
    if delivered:
        assert sorted(told) == [("haven", "RETRACTED", "ED_REGISTRATION"), ("meadow", "NEW", "ED_REGISTRATION")]
        retraction = (await panels.notices("haven"))[-1][0]
        shown = await panels.rendered(retraction)
        assert str(retraction.supersedes) in shown
        assert "VOSS" not in shown
        assert '"22"' not in shown
    else:
        assert await panels.leaving() == [("meadow", "NEW", "ED_REGISTRATION")]
    shown = await panels.rendered((await panels.notices("meadow"))[-1][0])
    assert "VOSS" in shown
    assert "BRANDT" not in shown
    assert await owner(panels, "V300") == "22"
    assert await panels.hear(hospital.says("A06", "11:00", "I", "V300", mrn="22", name=OTHER)) == [
        ("meadow", "NEW", "INPATIENT_ADMIT")
    ]
    assert await panels.work() == []


@pytest.mark.parametrize("trigger", ["A43", "A44", "A45"])
async def test_the_move_that_comes_before_its_visit(panels: Setting, hospital: Hospital, trigger: str) -> None:
    arrival = hospital.says("A04", "10:00", "E", "V300", mrn="11", name="BRANDT^MAX", pid={18: "H11"})
    move = rekeys(
        hospital, trigger, "10:30", mrn="22", account=("H11", "H22"), visit=("V300", ""), name=OTHER
    )  # fmt: skip
    assert await panels.hear(move) == []
    assert await panels.hear(arrival.arriving("10:40")) == [("meadow", "NEW", "ED_REGISTRATION")]
    shown = await panels.rendered((await panels.notices("meadow"))[-1][0])
    assert "BRANDT" not in shown
    assert await owner(panels, "V300") == "22"


async def test_an_account_moves_with_all_its_visits_and_no_other(panels: Setting, hospital: Hospital) -> None:
    for visit, account in (("V1", "H11"), ("V2", "H11"), ("V3", "H12")):
        await panels.hear(hospital.says("A04", "10:00", "E", visit, mrn="11", pid={18: account}))
    await panels.hear(rekeys(hospital, "A49", "10:10", account=("H11", "H13")))
    assert len(await panels.hear(rekeys(hospital, "A44", "10:30", mrn="22", account=("H13", "H13")))) == 2
    assert [await owner(panels, visit) for visit in ("V1", "V2", "V3")] == ["22", "22", "11"]


async def test_a_number_that_changed_hands_means_its_new_owner(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(rekeys(hospital, "A43", "10:00", mrn="22", name=OTHER))
    assert await panels.hear(hospital.says("A04", "11:00", "E", "V9", mrn="11", name=OTHER)) == [
        ("meadow", "NEW", "ED_REGISTRATION")
    ]


async def test_a_merge_makes_the_retraction_of_a_move_superfluous(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="11"))
    await panels.deliver()
    await panels.receive(
        rekeys(hospital, "A45", "10:30", mrn="22", visit=("V300", "")),
        hospital.merges("10:30:05", into="22", prior="11"),
    )
    assert await panels.route() == [("meadow", "NEW", "ED_REGISTRATION")]
    assert await owner(panels, "V300") == "22"


@pytest.mark.parametrize("merged", [True, False])
async def test_13_nothing_is_retracted_before_the_window_ends(
    panels: Setting, hospital: Hospital, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    monkeypatch.setattr(worker, "RELEASE_S", 0.0)
    panels.window = Window(by_feed={FeedName("stj-adt"): timedelta(seconds=30)})
    panels.now = moment("10:00").astimezone(UTC)
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="11"))
    await panels.deliver()
    panels.now = moment("10:30:02").astimezone(UTC)
    assert await panels.hear(rekeys(hospital, "A45", "10:30", mrn="22", visit=("V300", ""))) == []
    assert await owner(panels, "V300") == "11"
    if merged:
        told = await panels.hear(hospital.merges("10:30:05", into="22", prior="11"))
        assert told == [("meadow", "NEW", "ED_REGISTRATION")]
    panels.now = moment("10:31").astimezone(UTC)
    told = await panels.route()
    assert await owner(panels, "V300") == "22"
    moved = [("haven", "RETRACTED", "ED_REGISTRATION"), ("meadow", "NEW", "ED_REGISTRATION")]
    assert sorted(told) == ([] if merged else moved)


async def test_a_move_from_somebody_whose_it_is_not(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="33"))
    assert await panels.hear(rekeys(hospital, "A45", "10:30", mrn="22", visit=("V300", ""))) == []
    assert await panels.work() == ["MERGE_REFUSED"]
    assert await owner(panels, "V300") == "33"


async def test_an_account_of_somebody_else_is_not_moved_and_a_person_is_asked(
    panels: Setting, hospital: Hospital
) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="33", pid={18: "H11"}))
    assert await panels.hear(rekeys(hospital, "A44", "10:30", mrn="22", account=("H11", "H22"))) == []
    assert await panels.work() == ["MERGE_REFUSED"]
    assert await owner(panels, "V300") == "33"


async def test_an_account_that_was_moved_before_its_visit_came_needs_no_asking_then(
    panels: Setting, hospital: Hospital
) -> None:
    moves = rekeys(hospital, "A44", "10:30", mrn="22", account=("H11", "H22"))
    await panels.hear(moves)
    assert await panels.work() == ["MERGE_REFUSED"]
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="11", pid={18: "H11"}))
    assert await owner(panels, "V300") == "22"
    assert await panels.work() == []
    await panels.hear(hospital.says("A08", "10:40", "E", "V300", mrn="22", pid={18: "H22"}))
    await panels.hear(rekeys(hospital, "A44", "10:50", mrn="22", account=("H11", "H22")))
    assert await panels.work() == []


# --- visits


@pytest.mark.parametrize("trigger", ["A42", "A50"])
async def test_a_visit_goes_on_under_another_number(panels: Setting, hospital: Hospital, trigger: str) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="11"))
    await panels.deliver()
    assert await panels.hear(rekeys(hospital, trigger, "10:30", visit=("V1", "V2"))) == []
    assert (await panels.state("V1"), await panels.state("V2")) == ("MERGED", "ED")
    assert await panels.hear(hospital.says("A06", "11:00", "I", "V1", mrn="11")) == [ADMITTED]
    assert await panels.state("V2") == "INPATIENT"
    await panels.deliver()
    assert await panels.hear(hospital.says("A11", "12:00", "E", "V2", mrn="11")) == [
        ("haven", "CANCELLED", "ADMIT_CANCELLED")
    ]
    assert await panels.hear(hospital.says("A11", "12:10", "E", "V2", mrn="11")) == [
        ("haven", "CANCELLED", "ED_CANCELLED")
    ]


async def test_two_registrations_of_one_stay_are_one(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(
        hospital.says("A01", "10:00", "I", "V1", mrn="11"), hospital.says("A01", "10:05", "I", "V2", mrn="11")
    )
    await panels.deliver()
    assert await panels.hear(rekeys(hospital, "A42", "10:30", visit=("V1", "V2"))) == []
    told = await panels.hear(hospital.says("A03", "15:00", "I", "V2", mrn="11", disposition=SNF))
    assert told == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    await panels.deliver()
    assert await panels.hear(hospital.says("A11", "16:00", "I", "V1", mrn="11")) == [
        ("haven", "CANCELLED", "ADMIT_CANCELLED")
    ]


async def test_a_visit_merged_into_another_patients_overlaps_no_longer(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A01", "08:00", "I", "V3", mrn="22"))
    await panels.hear(hospital.says("A01", "09:00", "I", "V1", mrn="11"))
    await panels.hear(hospital.says("A01", "11:00", "I", "V2", mrn="11"))
    assert "overlapping_encounter" in await panels.flags("V2")
    await panels.hear(rekeys(hospital, "A42", "12:00", mrn="22", prior="22", visit=("V1", "V3")))
    assert await panels.state("V1") == "MERGED"
    assert "overlapping_encounter" not in await panels.flags("V2")


async def test_a_late_message_under_the_old_number(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A01", "10:00", "I", "V2", mrn="11"))
    await panels.hear(rekeys(hospital, "A42", "10:30", visit=("V1", "V2")))
    late = hospital.says("A04", "08:00", "E", "V1", mrn="11").arriving("10:40")
    assert await panels.hear(late) == [ARRIVED]
    assert (await panels.state("V1"), await panels.state("V2")) == ("MERGED", "INPATIENT")


async def test_an_admission_under_a_new_visit_number_is_the_same_visit(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="11"))
    admission = hospital.says("A06", "14:00", "I", "V2", mrn="11", mrg={1: "11^^^STJ^MR", 5: "V1^^^STJ^VN"})
    assert await panels.hear(admission) == [ADMITTED]
    assert (await panels.state("V1"), await panels.state("V2")) == ("MERGED", "INPATIENT")


async def test_a_circle_of_visits_is_refused(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(rekeys(hospital, "A42", "10:00", visit=("V1", "V2")))
    await panels.hear(rekeys(hospital, "A42", "10:10", visit=("V2", "V3")))
    await panels.hear(rekeys(hospital, "A42", "10:20", visit=("V3", "V1")))
    assert await panels.work() == ["MERGE_REFUSED"]
    await panels.hear(hospital.says("A04", "11:00", "E", "V1", mrn="11"))
    assert await panels.state("V3") == "ED"


async def test_where_the_account_is_the_visit(panels: Setting, hospital: Hospital) -> None:
    panels.feed(SourceProfile(visit_key="PID-18"))
    await panels.hear(hospital.says("A04", "10:00", "E", "X", mrn="11", pid={18: "H1"}))
    assert await panels.hear(rekeys(hospital, "A41", "10:30", account=("H1", "H2"))) == []
    assert (await panels.state("H1"), await panels.state("H2")) == ("MERGED", "ED")


# --- patients


@pytest.mark.parametrize("trigger", ["A46", "A47"])
async def test_a_new_patient_number_tells_nobody(panels: Setting, hospital: Hospital, trigger: str) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="11"))
    assert await panels.hear(rekeys(hospital, trigger, "10:30", mrn="12")) == []
    assert await panels.hear(hospital.says("A06", "11:00", "I", "V1", mrn="12")) == [ADMITTED]
    assert await panels.hear(hospital.says("A03", "12:00", "I", "V1", mrn="11", disposition=SNF)) == [
        ("haven", "NEW", "INPATIENT_DISCHARGE")
    ]


async def test_a_link_makes_two_records_known_to_be_one_person_and_no_more(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="22"))
    second = f"PID|2||{hospital.key('11')}"
    for trigger, clock in (("A24", "10:10"), ("A37", "10:20")):
        assert await panels.hear(hospital.says(trigger, clock, visit="", mrn="22", more=(second,))) == []
    kinds = await panels.pool.fetch("select kind from identity_edge order by recorded_at")
    assert [row["kind"] for row in kinds] == ["LINK", "UNLINK"]
    assert await owner(panels, "V1") == "22"


async def test_unlinking_what_was_merged_is_for_a_person(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.merges("10:00", into="22", prior="11"))
    second = f"PID|2||{hospital.key('11')}"
    await panels.hear(hospital.says("A37", "10:20", visit="", mrn="22", more=(second,)))
    assert await panels.work() == ["MERGE_REFUSED"]


@pytest.mark.parametrize("late", ["first", "second"])
async def test_which_of_two_merges_is_refused_does_not_depend_on_which_comes_first(
    panels: Setting, hospital: Hospital, late: str
) -> None:
    await panels.hear(hospital.says("A04", "09:00", "E", "V1", mrn="A"))
    messages = [
        hospital.merges("10:00", into="22", prior="A").arriving("11:00"),
        hospital.merges("10:10", into="11", prior="A").arriving("11:00"),
    ]
    await panels.hear(*(messages if late == "second" else reversed(messages)))
    assert await owner(panels, "V1") == "22"
    assert await panels.work() == ["MERGE_REFUSED"]


async def test_a_wrong_patients_message_counts_once_they_are_one(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="33"))
    assert await panels.hear(hospital.says("A08", "10:10", "E", "V1", mrn="34", pcp=PATEL)) == []
    assert await panels.work() == ["ENCOUNTER_FLAGGED"]
    assert await panels.hear(hospital.merges("10:20", into="33", prior="34")) == [("patel", "NEW", "ED_REGISTRATION")]


async def test_the_panel_follows_the_person_and_later_changes_of_it_retract_nothing(
    panels: Setting, hospital: Hospital
) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="11"))
    await panels.deliver()
    assert await panels.hear(hospital.merges("10:30", into="77", prior="11")) == []
    assert await panels.hear(hospital.says("A06", "11:00", "I", "V1", mrn="77")) == [ADMITTED]
    await panels.deliver()
    await panels.apply(directory(HOMES))
    assert await panels.hear(hospital.says("A08", "12:00", "I", "V1", mrn="77")) == []
