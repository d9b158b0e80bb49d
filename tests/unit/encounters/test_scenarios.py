"""The acceptance scenarios of domain section 10 that concern one encounter, as folds (numbers in the names)."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from tests.fixtures.visits import (
    CONVERTED,
    DAY,
    ED,
    EXPIRED,
    HOME,
    INP,
    OBS,
    OUT,
    SNF,
    STILL,
    UNK,
    Chronicle,
    Visit,
    at,
    new,
)
from tocengine.encounters.rows import Row
from tocengine.model.encounter import Snapshot, TransitionKind
from tocengine.model.event import Event, Processing
from tocengine.model.facts import Destination, EncounterFacts, Location, PatientFacts, PersonName
from tocengine.model.identity import Practitioner

K = TransitionKind
SUNNYSIDE = Destination("SUNNYSIDE REHAB")
ROE = Practitioner("ROE", ("ANN",), npi="1999000031")
MARY = PatientFacts(names=(PersonName("O'NEIL", ("MARY",)),), birth_date="1940-01-02")


@pytest.fixture
def v() -> Visit:
    return Visit()


@pytest.fixture
def c(v: Visit) -> Chronicle:
    return Chronicle(v)


def shown(c: Chronicle) -> Snapshot:
    """What a notice would render now."""
    patient = c.visit.patient
    row = Row(
        encounter_id=c.visit.key.encounter_id,
        visit=c.visit.key,
        owner_id=patient.patient_id,
        patient_id=patient.patient_id,
        body=c.body,
        event=c.events[-1],
    )
    return row.snapshot(patient)


def test_01_ed_to_inpatient_on_the_same_visit(c: Chronicle, v: Visit) -> None:
    told = c.tell(v.event("A04", "10:00", ED), v.event("A06", "14:05", INP, effective="14:00"))
    assert told == new("ED_REGISTRATION", "INPATIENT_ADMIT")
    assert c.facts[K.INPATIENT_ADMIT].effective == at("14:00")
    assert [name for name, _ in shown(c).phases] == ["EMERGENCY", "INPATIENT"]


def test_01_an_a01_on_a_visit_that_has_arrived_does_not_take_effect_at_the_ed_arrival(c: Chronicle, v: Visit) -> None:
    arrived = at("10:00")
    c.tell(v.event("A04", "10:00", ED, effective="10:00", admitted=arrived))
    c.tell(v.event("A01", "14:05", INP, effective="10:00", admitted=arrived))
    assert c.facts[K.INPATIENT_ADMIT].effective == at("14:05")


def test_02_ed_closed_with_09_is_no_discharge(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED))
    assert c.tell(v.event("A03", "13:58", ED, disposition=CONVERTED)) == []
    assert c.facts[K.ED_DISCHARGE].covered_by == "CONVERSION_NOT_DISCHARGE"
    assert c.state == "DISCHARGED"


def test_02_09_that_turns_out_to_be_a_discharge_is_told_then(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED), v.event("A03", "13:58", ED, disposition=CONVERTED))
    assert c.tell(v.event("A08", "15:00", ED, disposition=HOME)) == new("ED_DISCHARGE")


def test_03_a_bed_move_says_nothing(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "10:00", INP, location=Location("ICU", "1", "A")))
    assert c.tell(v.event("A02", "12:00", INP, location=Location("3N", "12", "B"))) == []
    assert c.body.folded.location == Location("3N", "12", "B")
    c.tell(v.event("A12", "12:30", INP))
    assert c.body.folded.location == Location("ICU", "1", "A")


def test_04_discharge_to_a_named_facility(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A03", "15:00", INP, disposition=SNF, destination=SUNNYSIDE)) == new("INPATIENT_DISCHARGE")
    assert shown(c).encounter.destination == SUNNYSIDE


def test_04_a_spelling_of_the_same_destination_is_no_correction(c: Chronicle, v: Visit) -> None:
    c.directory.known["Sunnyside_Rehab_Center"] = "facility:sunnyside"
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP, disposition=SNF, destination=SUNNYSIDE))
    assert c.tell(v.event("A08", "15:10", INP, destination=Destination("Sunnyside Rehab Center"))) == []


def test_05_an_unknown_destination_stays_one_whatever_its_case(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP, destination=Destination("SUNNYSIDE")))
    assert c.tell(v.event("A08", "15:10", INP, destination=Destination("Sunnyside "))) == []


@pytest.mark.parametrize("carried", [{}, {"disposition": SNF, "destination": SUNNYSIDE, "discharged": at("15:00")}])
def test_06_a_cancelled_discharge_leaves_no_trace(c: Chronicle, v: Visit, carried: dict[str, Any]) -> None:
    c.tell(v.event("A01", "09:00", INP))
    c.tell(v.event("A03", "15:00", INP, disposition=SNF, destination=SUNNYSIDE, discharged=at("15:00")))
    bed = Location("3N", "4", "B")
    assert c.tell(v.event("A13", "15:40", INP, location=bed, **carried)) == [("CANCELLED", "DISCHARGE_CANCELLED")]
    assert c.state == "INPATIENT"
    snapshot = shown(c)
    assert snapshot.encounter.location == bed
    assert {snapshot.encounter.disposition, snapshot.encounter.destination, snapshot.encounter.discharged} == {UNSET}
    assert c.told[-1].supersedes == c.told[-2].transition_id


def test_07_a13_twice_or_without_a_discharge(c: Chronicle, v: Visit) -> None:
    assert c.tell(v.event("A13", "08:00", INP)) == []
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP), v.event("A13", "15:40", INP))
    assert c.tell(v.event("A13", "15:41", INP)) == []
    assert c.state == "INPATIENT"


def test_08_an_admission_after_its_discharge_is_covered(c: Chronicle, v: Visit) -> None:
    discharge = v.event("A03", "15:02", INP, effective="15:00", received="15:03")
    assert c.tell(discharge) == new("INPATIENT_DISCHARGE")
    assert "implicit_open" in c.body.folded.flags
    assert c.tell(v.event("A01", "09:00", INP, received="15:10", admitted=at("08:50"))) == []
    assert c.state == "DISCHARGED"
    assert c.facts[K.INPATIENT_ADMIT].covered_by == "COVERED_BY_DISCHARGE"
    assert shown(c).encounter.admitted == at("08:50")


def test_09_a_resend_with_a_new_control_id_changes_nothing(c: Chronicle, v: Visit) -> None:
    once = [
        v.event("A04", "09:00", ED, effective="09:00"),
        v.event("A01", "10:00", INP, effective="10:00"),
        v.event("A11", "11:00", INP, effective="10:00"),
        v.event("A01", "12:00", INP, effective="12:00"),
        v.event("A03", "13:00", INP, effective="13:00"),
        v.event("A13", "14:00", INP),
        v.event("A03", "15:00", INP, effective="15:00"),
    ]
    c.tell(*once)
    for event in once:
        again = v.event("A08", "09:00")
        resent = replace(event, message_id=again.message_id, received_at=event.received_at + timedelta(seconds=12))
        assert c.tell(resent) == [], event.trigger


@pytest.mark.parametrize("named", ["14:00", None])
def test_11_a11_restores_the_state_before(c: Chronicle, v: Visit, named: str | None) -> None:
    c.tell(v.event("A04", "10:00", ED, effective="10:00"), v.event("A01", "14:02", INP, effective="14:00"))
    assert c.tell(v.event("A11", "14:30", INP, effective=named)) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert c.state == "ED"
    assert set(c.facts) == {K.ED_REGISTRATION}


def test_11_a11_may_name_the_whole_visit(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED, effective="10:00"), v.event("A03", "12:00", ED, disposition=HOME))
    assert c.tell(v.event("A11", "12:30", ED, effective="10:00")) == [("CANCELLED", "ED_CANCELLED")]
    assert c.state == "CANCELLED"
    assert not c.facts


def test_11_of_a_discharged_stay_only_the_admission(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED, effective="10:00"), v.event("A01", "14:00", INP, effective="14:00"))
    c.tell(v.event("A03", "18:00", INP, disposition=SNF))
    assert c.tell(v.event("A11", "18:30", INP, effective="14:00")) == [("CANCELLED", "ADMIT_CANCELLED")]
    assert c.state == "ED"
    assert set(c.facts) == {K.ED_REGISTRATION}


def test_11_twice_cancels_once(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED, effective="10:00"), v.event("A01", "14:00", INP, effective="14:00"))
    c.tell(v.event("A11", "14:30", INP, effective="14:00"))
    assert c.tell(v.event("A11", "14:31", INP, effective="14:00")) == []
    assert c.state == "ED"


def test_14_an_interim_bill_is_no_discharge(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A03", "15:00", INP, disposition=STILL)) == []
    assert c.state == "INPATIENT"
    assert "still_patient" in c.body.folded.flags


def test_16_a_date_says_nothing_of_the_hour(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP, discharged=at("15:00")))
    date_only = replace(at("00:00"), text=DAY)
    assert c.tell(v.event("A08", "15:30", INP, discharged=date_only)) == []


def test_24_quick_registration_keeps_the_fact_and_knows_more(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED))
    patel = Practitioner("PATEL", ("RAVI",), npi="1234567893")
    said = PatientFacts(names=MARY.names, birth_date=MARY.birth_date, pcp=(patel,))
    assert c.tell(v.event("A08", "10:10", ED, person=said)) == []
    assert set(c.facts) == {K.ED_REGISTRATION}
    assert shown(c).patient.pcp == (patel,)


def test_26_discharged_cancelled_discharged_with_the_same_fields(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))

    def discharge(recorded: str) -> Event:
        return v.event("A03", recorded, INP, effective="15:00", disposition=SNF, destination=SUNNYSIDE)

    told = c.tell(discharge("15:02"), v.event("A13", "15:40", INP), discharge("16:00"))
    assert told == [
        ("NEW", "INPATIENT_DISCHARGE"),
        ("CANCELLED", "DISCHARGE_CANCELLED"),
        ("NEW", "INPATIENT_DISCHARGE"),
    ]
    first, _, second = c.told[-3:]
    assert first.watched == second.watched
    assert (first.occurrence, second.occurrence) == (1, 2)


def test_27_an_ed_visit_closed_after_the_linked_admission_is_a_conversion(c: Chronicle, v: Visit) -> None:
    stay = Visit("V200")
    c.tell(v.event("A04", "10:00", ED))
    assert c.tell(stay.event("A01", "14:00", INP, alternate_visit=v.key.value)) == []
    assert c.state == "ED"
    assert c.tell(v.event("A03", "17:30", ED)) == []
    assert c.facts[K.ED_DISCHARGE].covered_by == "CONVERSION_NOT_DISCHARGE"


def test_28_an_update_never_makes_an_earlier_admission_stale(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:00", ED), v.event("A08", "14:03:00", ED))
    assert c.tell(v.event("A06", "14:02:58", INP)) == new("INPATIENT_ADMIT")
    assert c.state == "INPATIENT"


def test_29_a_corrected_destination_corrects_the_discharge(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP, disposition=SNF, destination=SUNNYSIDE))
    told = c.tell(v.event("A08", "15:30", INP, destination=Destination("MEADOW")))
    assert told == [("UPDATED", "INPATIENT_DISCHARGE_CORRECTED")]
    assert c.told[-1].supersedes == c.told[-2].transition_id


# --- death


def test_death_is_told_once_and_the_discharge_adds_nothing(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A08", "12:00", INP, person=replace(MARY, deceased=True))) == new("PATIENT_EXPIRED")
    assert c.tell(v.event("A03", "13:00", INP, disposition=EXPIRED)) == []
    assert c.state == "DISCHARGED"
    assert K.INPATIENT_DISCHARGE not in c.facts


def test_a_discharge_with_a_death_code_is_a_death(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A03", "13:00", INP, disposition=EXPIRED)) == new("PATIENT_EXPIRED")
    assert c.tell(v.event("A13", "13:30", INP)) == [("CANCELLED", "DISCHARGE_CANCELLED")]
    assert c.state == "INPATIENT"


def test_a_disposition_corrected_to_a_death_takes_the_discharge_back(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "13:00", INP, disposition=SNF, destination=SUNNYSIDE))
    told = c.tell(v.event("A08", "14:00", INP, disposition=EXPIRED))
    assert sorted(told) == [("CANCELLED", "DISCHARGE_CANCELLED"), ("NEW", "PATIENT_EXPIRED")]


def test_a_donor_is_neither_admitted_nor_told_dead(c: Chronicle, v: Visit) -> None:
    dead = replace(MARY, deceased=True)
    assert c.tell(v.event("A01", "09:00", INP, person=dead), v.event("A03", "20:00", INP, person=dead)) == []


def test_a_bed_that_is_not_acute_is_no_admission(c: Chronicle, v: Visit) -> None:
    assert c.tell(v.event("A01", "09:00", INP, location=Location("SWB", level_of_care="swing-bed"))) == []
    assert c.state == "INPATIENT"


# --- what is watched


@pytest.mark.parametrize(
    ("person", "corrected"),
    [
        (PatientFacts(names=(PersonName("o'neil ", ("Mary",)),)), False),
        (PatientFacts(phones=("+13155550142",)), False),
        (PatientFacts(names=(PersonName("O'NEILL", ("MARY",)),)), True),
        (PatientFacts(birth_date="1941-01-02"), True),
    ],
)
def test_who_the_patient_is_is_watched_and_not_how_it_is_spelled(
    c: Chronicle, v: Visit, person: PatientFacts, corrected: bool
) -> None:
    c.tell(v.event("A01", "09:00", INP))
    told = c.tell(v.event("A08", "10:00", INP, person=person))
    assert told == ([("UPDATED", "INPATIENT_ADMIT_CORRECTED")] if corrected else [])


def test_a_treating_practitioner_counts_from_missing_to_present_only(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A08", "10:00", INP, treating=ROE)) == [("UPDATED", "INPATIENT_ADMIT_CORRECTED")]
    assert c.tell(v.event("A08", "11:00", INP, treating=Practitioner("LIN", ("KAI",)))) == []
    assert c.tell(v.event("A08", "12:00", INP, treating=None)) == []


def test_a_treating_practitioner_known_later_corrects_the_latest_fact_alone(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "09:00", ED))
    assert c.tell(v.event("A06", "10:00", INP, treating=ROE)) == new("INPATIENT_ADMIT")


@pytest.mark.parametrize(("restated", "corrected"), [("15:10", False), ("15:15", False), ("15:16", True)])
def test_times_are_corrected_beyond_fifteen_minutes(c: Chronicle, v: Visit, restated: str, corrected: bool) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:02", INP, discharged=at("15:00"), effective="15:00"))
    told = c.tell(v.event("A08", "15:30", INP, discharged=at(restated)))
    assert told == ([("UPDATED", "INPATIENT_DISCHARGE_CORRECTED")] if corrected else [])


def test_small_changes_do_not_add_up_unnoticed(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:02", INP, discharged=at("15:00")))
    assert c.tell(v.event("A08", "15:30", INP, discharged=at("15:10"))) == []
    assert c.tell(v.event("A08", "15:31", INP, discharged=at("15:20"))) == [
        ("UPDATED", "INPATIENT_DISCHARGE_CORRECTED")
    ]
    assert c.facts[K.INPATIENT_DISCHARGE].effective == at("15:20")


def test_an_admit_time_that_changes_corrects_the_arrival_it_stated(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "10:02", ED, effective="10:00", admitted=at("10:00")), v.event("A06", "14:00", INP))
    assert c.tell(v.event("A08", "14:10", INP, admitted=at("09:30"))) == [("UPDATED", "ED_REGISTRATION_CORRECTED")]
    assert c.tell(v.event("A08", "14:20", INP, admitted=at("14:00"))) == []  # the inpatient time, as some vendors do


def test_only_a13_clears_a_discharge(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP, disposition=SNF, destination=SUNNYSIDE))
    assert c.tell(v.event("A08", "15:30", INP, disposition=None, destination=None)) == []
    assert "discharge_facts_cleared_by_update" in c.body.folded.flags
    assert shown(c).encounter.disposition == SNF


def test_a_visit_closed_for_more_than_a_week_is_no_longer_watched(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP), v.event("A03", "15:00", INP, disposition=SNF))
    assert c.tell(v.event("A08", "15:01", INP, day="2026-03-08", disposition=HOME)) == []
    assert c.tell(v.event("A13", "16:00", INP, day="2026-03-08")) == [("CANCELLED", "DISCHARGE_CANCELLED")]


# --- opening without an arrival


def test_an_update_of_an_unknown_visit_is_news_only_if_it_is_recent(c: Chronicle, v: Visit) -> None:
    assert c.tell(v.event("A08", "09:00", INP, admitted=at("08:00", "2026-02-26"))) == []
    assert c.state == "INPATIENT"
    assert c.tell(v.event("A03", "15:00", INP, disposition=HOME)) == new("INPATIENT_DISCHARGE")


def test_planned_discharge_data_is_not_shown_as_done(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    c.tell(v.event("A08", "10:00", INP, disposition=SNF, destination=SUNNYSIDE, discharged=at("18:00")))
    assert c.state == "INPATIENT"
    assert "discharge_time_without_discharge" in c.body.folded.flags
    assert shown(c).encounter.disposition is UNSET
    c.tell(v.event("A03", "18:05", INP))
    assert shown(c).encounter.disposition == SNF


def test_a_discharge_of_class_inpatient_from_the_ed_implies_the_admission(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "09:00", ED))
    assert c.tell(v.event("A03", "15:00", INP, disposition=SNF)) == new("INPATIENT_DISCHARGE")
    assert c.tell(v.event("A06", "11:00", INP)) == []
    assert c.facts[K.INPATIENT_ADMIT].covered_by == "COVERED_BY_DISCHARGE"


# --- other ways


def test_leave_of_absence_says_nothing(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A21", "10:00", INP), v.event("A22", "18:00", INP)) == []
    assert c.state == "INPATIENT"


def test_reversed_and_admitted_again(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "09:00", ED), v.event("A06", "10:00", INP))
    told = c.tell(v.event("A07", "12:00", OBS), v.event("A06", "14:00", INP))
    assert told == [("CANCELLED", "INPATIENT_REVERSED"), ("NEW", "INPATIENT_ADMIT")]
    assert K.ED_REGISTRATION in c.facts
    assert c.facts[K.INPATIENT_ADMIT].occurrence == 2


def test_an_earlier_discharge_that_comes_late_is_no_cancellation(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "08:00", INP))
    assert c.tell(v.event("A03", "15:02", INP, effective="15:00", disposition=SNF)) == new("INPATIENT_DISCHARGE")
    first = v.event("A03", "10:02", INP, effective="10:00", received="15:10", disposition=SNF)
    cancel = v.event("A13", "12:00", INP, received="15:11")
    assert c.tell(first, cancel) == []
    (standing,) = [fact for fact in c.standing() if fact.kind is K.INPATIENT_DISCHARGE]
    announced = c.facts[K.INPATIENT_DISCHARGE]
    assert (standing.watched, standing.occurrence) == (announced.watched, 2)


def test_pending_discharge_and_its_cancel(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    assert c.tell(v.event("A16", "10:00", INP, expected_discharge=at("18:00"))) == new("DISCHARGE_PENDING")
    assert c.tell(v.event("A25", "11:00", INP)) == [("CANCELLED", "DISCHARGE_CANCELLED")]


def test_an_initial_load_builds_state_and_says_nothing(c: Chronicle, v: Visit) -> None:
    assert c.tell(v.event("A01", "09:00", INP, processing=Processing.INITIAL_LOAD)) == []
    assert c.facts[K.INPATIENT_ADMIT].covered_by == "INITIAL_LOAD"
    assert c.tell(v.event("A08", "10:00", INP, person=PatientFacts(birth_date="1941-01-02"))) == []
    assert c.tell(v.event("A03", "15:00", INP)) == new("INPATIENT_DISCHARGE")


def test_test_messages_count_only_while_a_visit_has_no_others(c: Chronicle, v: Visit) -> None:
    assert c.tell(v.event("A01", "09:00", INP, processing=Processing.TEST)) == []
    assert c.facts[K.INPATIENT_ADMIT].covered_by == "TEST_MESSAGE"
    assert c.tell(v.event("A04", "10:00", ED)) == new("ED_REGISTRATION")
    assert c.state == "ED"
    assert c.tell(v.event("A03", "11:00", ED, processing=Processing.TEST)) == []
    assert c.state == "ED"


def test_what_was_rehearsed_and_then_happens_is_a_fact_of_its_own(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP, processing=Processing.TEST))
    assert c.tell(v.event("A01", "09:00", INP)) == new("INPATIENT_ADMIT")
    assert c.facts[K.INPATIENT_ADMIT].occurrence == 2


def test_sensitivity_is_the_union_over_the_stay(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP, location=Location("DETOX-2", sensitivity=("SUD",), part2=True)))
    c.tell(v.event("A02", "12:00", INP, location=Location("3N", sensitivity=("HIV",))))
    assert c.body.folded.sensitivity == ("HIV", "SUD")
    assert c.body.folded.part2


def test_an_unmapped_class_keeps_the_one_that_is_known(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A04", "09:00", OUT))
    c.tell(v.event("A08", "10:00", UNK))
    assert c.body.folded.encounter.patient_class is OUT


def test_said_nothing_changes_nothing(c: Chronicle, v: Visit) -> None:
    c.tell(v.event("A01", "09:00", INP))
    bare = replace(v.event("A08", "10:00"), patient_facts=UNSET, encounter_facts=EncounterFacts())
    assert c.tell(bare) == []
