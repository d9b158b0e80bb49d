"""What a message does to the movement it names by its sender's id (ZBE): to that one and no other."""

import pytest
from msgspec.structs import replace

from tests.fixtures.visits import ED, HOME, INP, OBS, OUT, SNF, Chronicle, Visit, at, new
from tocengine.encounters.named import MOVES_KEPT
from tocengine.model.encounter import TransitionKind
from tocengine.model.event import Event, MovementAction, NamedMovement
from tocengine.model.facts import Location, PatientClass

K = TransitionKind
ICU, WARD, STEPDOWN = Location("ICU"), Location("3N"), Location("4S")


def inserts(event: Event, *ids: str, historic: bool = False) -> Event:
    return replace(event, movement=NamedMovement(ids=ids, action=MovementAction.INSERT, historic=historic))


def cancels(event: Event, *ids: str, first: str = "") -> Event:
    return replace(event, movement=NamedMovement(ids=ids, action=MovementAction.CANCEL, trigger=first))


def changes(event: Event, *ids: str, first: str = "", starts: str = "", historic: bool = False) -> Event:
    named = NamedMovement(
        ids=ids,
        action=MovementAction.UPDATE,
        trigger=first,
        starts=at(starts) if starts else None,
        historic=historic,
    )
    return replace(event, movement=named)


@pytest.fixture
def v() -> Visit:
    return Visit()


@pytest.fixture
def c(v: Visit) -> Chronicle:
    return Chronicle(v)


@pytest.fixture
def stay(c: Chronicle, v: Visit) -> Chronicle:
    """ED arrival 1, admission 2, moves 3 and 4."""
    c.tell(
        inserts(v.event("A04", "10:00", ED, location=Location("ER")), "1"),
        inserts(v.event("A06", "14:00", INP, location=ICU), "2"),
        inserts(v.event("A02", "16:00", INP, location=WARD), "3"),
        inserts(v.event("A02", "18:00", INP, location=STEPDOWN), "4"),
    )
    return c


def lies(c: Chronicle) -> Location | None:
    return c.body.folded.location


# --- A13


def test_an_a13_that_comes_again_under_its_old_name_leaves_the_next_discharge(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A03", "20:00", INP, disposition=HOME), "5"))
    assert stay.tell(cancels(v.event("A13", "20:10", INP), "5")) == [("CANCELLED", "DISCHARGE_CANCELLED")]
    assert stay.tell(inserts(v.event("A03", "20:20", INP, disposition=HOME), "6")) == new("INPATIENT_DISCHARGE")

    assert stay.tell(cancels(v.event("A13", "20:30", INP), "5")) == []

    assert stay.state == "DISCHARGED"
    assert "names_unknown_movement" not in stay.body.folded.flags


def test_an_a13_that_names_what_nobody_stated_is_flagged_and_does_nothing(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A03", "20:00", INP, disposition=HOME), "5"))
    assert stay.tell(cancels(v.event("A13", "20:10", INP), "77")) == []
    assert "names_unknown_movement" in stay.body.folded.flags


def test_an_a13_that_names_a_discharge_stated_without_a_name_takes_it_back(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "10:00", INP), v.event("A03", "12:00", INP, disposition=HOME))
    assert c.tell(cancels(v.event("A13", "12:10", INP), "5")) == [("CANCELLED", "DISCHARGE_CANCELLED")]


# --- A11


def test_an_a11_takes_back_the_arrival_it_names_with_what_stands_on_it(stay: Chronicle, v: Visit) -> None:
    said = stay.tell(cancels(v.event("A11", "18:10", INP), "2"))
    assert said == [("CANCELLED", "ADMIT_CANCELLED")]
    assert stay.state == "ED"


def test_an_a11_that_comes_again_does_not_take_back_the_one_before(stay: Chronicle, v: Visit) -> None:
    stay.tell(cancels(v.event("A11", "18:10", INP), "2"))
    assert stay.tell(cancels(v.event("A11", "18:20", INP), "2")) == []
    assert stay.state == "ED"


def test_an_a11_that_names_what_nobody_stated_leaves_what_a_named_stay_stands_on(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED), inserts(v.event("A06", "14:00", INP), "2"))
    assert c.tell(cancels(v.event("A11", "15:00", INP), "9")) == []
    assert c.tell(cancels(v.event("A11", "15:10", INP, effective="10:00"), "9")) == []
    assert c.state == "INPATIENT"
    assert "names_unknown_movement" in c.body.folded.flags


def test_a_movement_may_go_by_several_ids(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"), inserts(v.event("A06", "14:00", INP), "PAM:2", "77"))
    assert c.tell(cancels(v.event("A11", "15:00", INP), "77")) == [("CANCELLED", "ADMIT_CANCELLED")]


def test_an_admission_stated_again_under_another_name_goes_by_both(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A01", "08:00", INP), "1"), inserts(v.event("A01", "08:05", INP), "2"))
    assert c.tell(cancels(v.event("A11", "09:00", INP), "2")) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert c.tell(cancels(v.event("A11", "09:10", INP), "1")) == []
    assert "names_unknown_movement" not in c.body.folded.flags


def test_a_discharge_stated_again_under_another_name_goes_by_both(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A01", "08:00", INP), "1"), inserts(v.event("A03", "10:00", INP, disposition=HOME), "2"))
    c.tell(inserts(v.event("A03", "10:05", INP, disposition=HOME), "3"))
    assert c.tell(cancels(v.event("A13", "10:30", INP), "3")) == [("CANCELLED", "DISCHARGE_CANCELLED")]


def test_a_name_that_is_another_movements_is_not_given_to_a_second(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A01", "19:00", INP), "1"), inserts(v.event("A01", "19:10", INP), "8", historic=True))
    stay.tell(cancels(v.event("A11", "19:20", INP), "8"))
    assert stay.state == "INPATIENT"
    stay.tell(cancels(v.event("Z99", "19:30", INP), "1", first="A04"))
    assert stay.state == "INPATIENT"


# --- A12


def test_an_a12_that_names_the_last_move_returns_to_where_it_began(stay: Chronicle, v: Visit) -> None:
    stay.tell(cancels(v.event("A12", "18:10", INP), "4"))
    assert lies(stay) == WARD
    stay.tell(cancels(v.event("A12", "18:20", INP), "3"))
    assert lies(stay) == ICU


def test_an_a12_that_names_an_earlier_move_leaves_the_patient_where_he_is(stay: Chronicle, v: Visit) -> None:
    stay.tell(cancels(v.event("A12", "18:10", INP, location=ICU), "3"))
    assert lies(stay) == STEPDOWN
    stay.tell(cancels(v.event("A12", "18:20", INP), "4"))
    assert lies(stay) == ICU


def test_an_a12_that_comes_again_moves_nobody(stay: Chronicle, v: Visit) -> None:
    stay.tell(cancels(v.event("A12", "18:10", INP), "4"))
    stay.tell(inserts(v.event("A02", "19:00", INP, location=STEPDOWN), "5"))
    stay.tell(cancels(v.event("A12", "19:10", INP, location=WARD), "4"))
    assert lies(stay) == STEPDOWN


def test_a_move_for_the_record_moves_nobody(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A02", "19:00", INP, location=Location("XRAY")), "5", historic=True))
    assert lies(stay) == STEPDOWN


def test_the_last_moves_are_known_by_name_and_no_more(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "08:00", INP, location=ICU))
    for number in range(MOVES_KEPT + 2):
        c.tell(inserts(v.event("A02", f"09:{number:02}", INP, location=Location(f"U{number}")), str(number)))
    assert len(c.body.folded.moves) == MOVES_KEPT
    c.tell(cancels(v.event("A12", "10:00", INP), "0"))
    assert lies(c) == Location(f"U{MOVES_KEPT + 1}")


# --- A52, A25


def test_an_a52_that_names_another_leave_ends_none(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "08:00", INP), inserts(v.event("A21", "10:00", INP), "7"))
    c.tell(cancels(v.event("A52", "10:05", INP), "7"))
    c.tell(inserts(v.event("A21", "11:00", INP), "8"), cancels(v.event("A52", "11:05", INP), "7"))
    assert c.state == "ON_LEAVE"
    c.tell(cancels(v.event("A52", "11:10", INP), "8"))
    assert c.state == "INPATIENT"


def test_an_a25_that_names_another_plan_leaves_this_one(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "08:00", INP), inserts(v.event("A16", "10:00", INP), "7"))
    assert c.tell(cancels(v.event("A25", "10:05", INP), "6")) == []
    assert c.tell(cancels(v.event("A25", "10:10", INP), "7")) == [("CANCELLED", "DISCHARGE_CANCELLED")]


# --- Z99, cancel


def test_a_z99_takes_out_the_movement_it_names_and_no_other(stay: Chronicle, v: Visit) -> None:
    said = stay.tell(cancels(v.event("Z99", "19:00", ED, location=Location("ER")), "1", first="A04"))
    assert said == [("CANCELLED", "ED_CANCELLED")]
    assert (stay.state, lies(stay)) == ("INPATIENT", STEPDOWN)


def test_a_z99_of_the_only_arrival_cancels_the_visit_with_its_discharge(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A01", "08:00", INP), "1"), inserts(v.event("A03", "10:00", INP, disposition=SNF), "2"))
    assert ("CANCELLED", "ADMIT_CANCELLED") in c.tell(cancels(v.event("Z99", "11:00", INP), "1", first="A01"))
    assert c.state == "CANCELLED"
    assert not c.standing()


def test_a_z99_of_a_discharge_is_its_a13(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A03", "20:00", INP, disposition=SNF), "5"))
    said = stay.tell(cancels(v.event("Z99", "20:10", INP), "5", first="A03"))
    assert said == [("CANCELLED", "DISCHARGE_CANCELLED")]
    assert stay.state == "INPATIENT"
    assert not stay.body.folded.encounter.disposition


def test_an_a11_recorded_with_the_z99_of_a_discharge_is_no_repeat_of_it(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "08:00", INP), inserts(v.event("A03", "10:00", INP, disposition=HOME), "2"))
    c.tell(cancels(v.event("Z99", "10:10", INP, received="10:11"), "2", first="A03"))
    assert c.tell(v.event("A11", "10:10", INP, received="10:12")) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert c.state == "CANCELLED"


def test_a_z99_of_a_discharge_leaves_the_arrival_that_was_implied_for_it(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A03", "20:00", INP, disposition=HOME), "9"))
    said = c.tell(cancels(v.event("Z99", "22:00", INP), "9", first="A03"))
    assert said == [("CANCELLED", "DISCHARGE_CANCELLED")]
    assert c.state == "INPATIENT"


@pytest.mark.parametrize("trigger", ["A21", "A16"])
def test_a_z99_of_a_leave_or_a_plan_leaves_the_arrival_that_was_implied_for_it(
    c: Chronicle, v: Visit, trigger: str
) -> None:
    c.tell(inserts(v.event(trigger, "20:00", INP), "9"))
    c.tell(cancels(v.event("Z99", "22:00", INP), "9", first=trigger))
    assert c.state == "INPATIENT"
    assert c.body.folded.expected is None


def test_a_z99_of_a_move_is_its_a12(stay: Chronicle, v: Visit) -> None:
    stay.tell(cancels(v.event("Z99", "20:10", INP), "4", first="A02"))
    assert lies(stay) == WARD


def test_a_z99_of_an_a07_restores_the_admission(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A07", "19:00", OBS), "5"))
    assert stay.state == "OBSERVATION"
    assert stay.tell(cancels(v.event("Z99", "19:10", INP), "5", first="A07")) == new("INPATIENT_ADMIT")
    assert stay.state == "INPATIENT"


def test_a_z99_of_a_pending_discharge_takes_it_back(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A16", "19:00", INP), "5"))
    said = stay.tell(cancels(v.event("Z99", "19:10", INP), "5", first="A16"))
    assert said == [("CANCELLED", "DISCHARGE_CANCELLED")]


# --- Z99, update


def test_a_z99_corrects_the_time_of_the_movement_it_names(stay: Chronicle, v: Visit) -> None:
    said = stay.tell(changes(v.event("Z99", "19:00", ED), "1", first="A04", starts="09:15", historic=True))
    assert said == [("UPDATED", "ED_REGISTRATION_CORRECTED")]
    assert stay.facts[K.ED_REGISTRATION].effective == at("09:15")
    assert stay.facts[K.INPATIENT_ADMIT].effective == at("14:00")
    assert (stay.state, lies(stay)) == ("INPATIENT", STEPDOWN)


def test_a_z99_within_the_tolerance_corrects_nothing(stay: Chronicle, v: Visit) -> None:
    assert stay.tell(changes(v.event("Z99", "19:00", ED), "1", first="A04", starts="10:14")) == []


def test_a_z99_that_gives_an_arrival_another_class_makes_it_another_fact(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"), inserts(v.event("A01", "12:00", INP), "2"))
    said = c.tell(changes(v.event("Z99", "13:00", OUT), "1", first="A04"))
    assert said == [("CANCELLED", "ED_CANCELLED")]
    assert c.state == "INPATIENT"
    said = c.tell(changes(v.event("Z99", "13:10", OBS), "2", first="A01"))
    assert said == [("CANCELLED", "ADMIT_CANCELLED"), ("NEW", "OBSERVATION_START")]
    assert c.facts[K.OBSERVATION_START].effective == at("12:00")


def test_a_z99_of_the_discharge_in_force_corrects_its_disposition(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A03", "20:00", INP, disposition=HOME), "5"))
    said = stay.tell(changes(v.event("Z99", "21:00", INP, disposition=SNF), "5", first="A03"))
    assert said == [("UPDATED", "INPATIENT_DISCHARGE_CORRECTED")]


def test_a_z99_of_an_earlier_move_says_where_the_next_one_began(stay: Chronicle, v: Visit) -> None:
    other = Location("3W")
    stay.tell(changes(v.event("Z99", "19:00", INP, location=other), "3", first="A02", historic=True))
    assert lies(stay) == STEPDOWN
    stay.tell(cancels(v.event("A12", "19:10", INP), "4"))
    assert lies(stay) == other


def test_a_z99_of_the_last_move_moves_the_patient(stay: Chronicle, v: Visit) -> None:
    stay.tell(changes(v.event("Z99", "19:00", INP, location=Location("4W")), "4", first="A02"))
    assert lies(stay) == Location("4W")


def test_a_z99_of_the_admission_says_where_the_first_move_began(stay: Chronicle, v: Visit) -> None:
    stay.tell(changes(v.event("Z99", "19:00", INP, location=Location("CCU")), "2", first="A06"))
    assert lies(stay) == STEPDOWN
    stay.tell(cancels(v.event("A12", "19:10", INP), "4"), cancels(v.event("A12", "19:20", INP), "3"))
    assert lies(stay) == Location("CCU")


def test_a_z99_that_names_nothing_known_is_flagged(stay: Chronicle, v: Visit) -> None:
    assert stay.tell(changes(v.event("Z99", "19:00", OUT, location=WARD), "77", first="A02", historic=True)) == []
    assert lies(stay) == STEPDOWN
    assert "names_unknown_movement" in stay.body.folded.flags


def test_a_late_original_settles_what_named_it_before(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"))
    c.tell(cancels(v.event("Z99", "12:00", INP), "2", first="A01"))
    assert "names_unknown_movement" in c.body.folded.flags
    assert c.tell(inserts(v.event("A01", "11:00", INP), "2")) == []
    assert c.state == "ED"
    assert "names_unknown_movement" not in c.body.folded.flags


# --- Z99 of a movement beneath others: those count as if it had never been stated, or had been stated so


@pytest.mark.parametrize(
    ("stated", "told"), [(ED, "ED_DISCHARGE"), (OUT, "ED_DISCHARGE"), (INP, "INPATIENT_DISCHARGE")]
)
def test_a_discharge_whose_admission_is_struck_is_what_it_is_without_it(
    c: Chronicle, v: Visit, stated: PatientClass, told: str
) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"), inserts(v.event("A06", "14:00", INP), "2"))
    assert c.tell(inserts(v.event("A03", "18:00", stated, disposition=HOME), "3")) == new("INPATIENT_DISCHARGE")

    said = c.tell(cancels(v.event("Z99", "19:00", ED), "2", first="A06"))

    assert said == [("CANCELLED", "ADMIT_CANCELLED"), *(new(told) if told == "ED_DISCHARGE" else [])]
    assert {fact.kind.value for fact in c.standing()} == {"ED_REGISTRATION", told}
    assert c.state == "DISCHARGED"
    c.tell(cancels(v.event("A13", "20:00", ED), "3"))
    assert c.state == ("ED" if told == "ED_DISCHARGE" else "INPATIENT")


def test_a_discharge_whose_arrival_becomes_an_admission_ends_a_stay(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"), inserts(v.event("A03", "12:00", ED, disposition=HOME), "2"))
    said = c.tell(changes(v.event("Z99", "13:00", INP), "1", first="A04"))
    assert said == [
        ("CANCELLED", "ED_CANCELLED"),
        ("CANCELLED", "DISCHARGE_CANCELLED"),
        ("NEW", "INPATIENT_ADMIT"),
        ("NEW", "INPATIENT_DISCHARGE"),
    ]
    assert c.facts[K.INPATIENT_DISCHARGE].effective == at("12:00")


def test_an_arrival_that_becomes_an_admission_beneath_one_is_that_one_earlier(stay: Chronicle, v: Visit) -> None:
    said = stay.tell(changes(v.event("Z99", "19:00", INP), "1", first="A04"))
    assert said == [("CANCELLED", "ED_CANCELLED"), ("UPDATED", "INPATIENT_ADMIT_CORRECTED")]
    assert {fact.kind: fact.effective for fact in stay.standing()} == {K.INPATIENT_ADMIT: at("10:00")}
    assert stay.tell(cancels(v.event("A11", "20:00", INP), "2")) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert stay.state == "CANCELLED"


def test_an_admission_that_becomes_an_ed_arrival_on_one_says_nothing_of_its_own(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"), inserts(v.event("A01", "12:00", INP), "2"))
    assert c.tell(changes(v.event("Z99", "13:00", ED), "2", first="A01")) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert (c.state, [fact.kind for fact in c.standing()]) == ("ED", [K.ED_REGISTRATION])


def test_a_leave_from_a_stay_that_is_struck_is_none(stay: Chronicle, v: Visit) -> None:
    stay.tell(inserts(v.event("A21", "19:00", INP), "5"))
    assert stay.tell(cancels(v.event("Z99", "20:00", INP), "2", first="A06")) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert stay.state == "ED"
    assert "unexpected_leave" in stay.body.folded.flags


def test_a_placement_in_observation_counts_where_the_admission_before_it_is_struck(stay: Chronicle, v: Visit) -> None:
    assert stay.tell(inserts(v.event("A01", "19:00", OBS), "5")) == [("CANCELLED", "INPATIENT_REVERSED")]
    assert stay.tell(cancels(v.event("Z99", "20:00", INP), "2", first="A06")) == new("OBSERVATION_START")
    assert stay.state == "OBSERVATION"


def test_a_pre_admission_that_is_stated_anew_admits_nobody(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A05", "10:00", INP), "1"))
    for first in ("A05", ""):
        assert c.tell(changes(v.event("Z99", f"1{len(first)}:30", INP), "1", first=first, starts="09:00")) == []
    assert c.state == "PREADMIT"


def test_what_a_z99_makes_of_an_old_discharge_is_late(c: Chronicle, v: Visit) -> None:
    c.tell(inserts(v.event("A04", "10:00", ED), "1"), inserts(v.event("A06", "14:00", INP), "2"))
    c.tell(inserts(v.event("A03", "18:00", ED, disposition=HOME), "3"))
    c.tell(cancels(v.event("Z99", "19:00", ED, day="2026-03-03"), "2", first="A06"))
    discharge = c.facts[K.ED_DISCHARGE]
    assert discharge.effective == at("18:00")
    assert discharge.received_at > at("19:00", "2026-03-03").at
