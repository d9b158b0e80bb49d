"""The marks by which a sender asks for care, and what each does for its feed."""

import pytest
from msgspec import UNSET

from tests.fixtures.adt import (
    EVN,
    MSH,
    PID,
    adt,
    encounter_facts,
    event,
    movement,
    patient_facts,
    pv1,
    resources,
    segment,
)
from tocengine.model.facts import EncounterFacts, Mark, MarkEffect, PatientFacts, overlay, standing
from tocengine.model.profile import PRIVACY_MARKS

HOLD, LEAST = MarkEffect.HOLD, MarkEffect.LEAST


@pytest.mark.parametrize(
    ("line", "mark", "effect"),
    [
        (segment("PD1", {12: "Y"}), Mark.PROTECTION, HOLD),
        (segment("PD1", {12: "N"}), Mark.PROTECTION, None),
        (segment("PD1", {12: '""'}), Mark.PROTECTION, None),
        (segment("PD1", {11: "N^No publicity"}), Mark.PUBLICITY, LEAST),
        (segment("PD1", {11: "U"}), Mark.PUBLICITY, None),
        (segment("PV2", {22: "Y"}), Mark.VISIT_PROTECTION, HOLD),
        (segment("PV2", {21: "F"}), Mark.VISIT_PUBLICITY, LEAST),
        ("ARV|1|A|ALL", Mark.RESTRICTION, HOLD),
        ("ARV|1||", Mark.RESTRICTION, HOLD),
        ("ARV|1|D|ALL", Mark.RESTRICTION, None),
        (segment("PD1", {12: "N~Y"}), Mark.PROTECTION, HOLD),
        (segment("PD1", {12: "YES"}), Mark.PROTECTION, HOLD),
        ("ARV|1|D|LOC\rARV|2|A|DEM", Mark.RESTRICTION, HOLD),
        ("ARV|1|A|NO", Mark.RESTRICTION, None),
        (segment("CON", {1: "1", 11: "R"}), Mark.CONSENT, HOLD),
        (segment("CON", {1: "1", 11: "A"}), Mark.CONSENT, None),
    ],
)
def test_a_mark_stands_or_is_lifted(line: str, mark: Mark, effect: MarkEffect | None) -> None:
    body = movement("A01", None, line)
    said = [each.marks for each in (patient_facts(body), encounter_facts(body)) if each.marks is not UNSET]
    assert said == [{mark: effect}]
    assert (f"privacy:{mark}" in event(body).flags) is (effect is not None or mark is Mark.CONSENT)


@pytest.mark.parametrize(("sent", "effect"), [("VIP", LEAST), ("EMP", LEAST), ("N", None)])
def test_a_vip_is_marked(sent: str, effect: MarkEffect | None) -> None:
    assert encounter_facts(movement("A01", {16: sent})).marks == {Mark.VIP: effect}


@pytest.mark.parametrize(
    ("fields", "marks"),
    [
        ({8: "SECRET"}, {Mark.SECURITY: LEAST}),
        ({26: "R^Restricted"}, {Mark.CLASSIFICATION: HOLD}),
        ({26: "N"}, {Mark.CLASSIFICATION: None}),
    ],
)
def test_the_header_may_mark_the_message(fields: dict[int, str], marks: object) -> None:
    parts = MSH.split("|")
    parts += [""] * 16
    for number, value in fields.items():
        parts[number - 1] = value
    assert encounter_facts(adt("A01", EVN, PID, pv1(), msh="|".join(parts))).marks == marks


def test_one_restriction_that_is_deleted_lifts_no_other() -> None:
    assert encounter_facts(movement("A08", None, "ARV|1|D|LOC")).marks is UNSET


def test_a_consent_that_says_nothing_of_its_status_is_a_flag_alone() -> None:
    body = movement("A01", None, "CON|1")
    assert encounter_facts(body).marks is UNSET
    assert "privacy:CON" in event(body).flags


def test_a_message_about_a_person_marks_the_person() -> None:
    body = adt("A31", EVN, PID, segment("PD1", {12: "Y"}), "ARV|1|A|ALL")
    assert patient_facts(body).marks == {Mark.PROTECTION: HOLD, Mark.RESTRICTION: HOLD}


def test_marks_add_up_until_they_are_lifted() -> None:
    first = PatientFacts(marks={Mark.PROTECTION: HOLD})
    both = overlay(first, PatientFacts(marks={Mark.PUBLICITY: LEAST}))
    assert standing(both) == {Mark.PROTECTION: HOLD, Mark.PUBLICITY: LEAST}
    assert standing(overlay(both, PatientFacts())) == standing(both)
    lifted = overlay(both, PatientFacts(marks={Mark.PROTECTION: None}))
    assert standing(lifted, EncounterFacts()) == {Mark.PUBLICITY: LEAST}


def test_the_strictest_of_a_mark_counts() -> None:
    noted = PatientFacts(marks={Mark.VIP: MarkEffect.NOTE})
    assert standing(EncounterFacts(marks={Mark.VIP: HOLD}), noted) == {Mark.VIP: HOLD}


def test_every_mark_has_a_default() -> None:
    assert set(PRIVACY_MARKS) == set(Mark)


def test_a_protected_visit_has_a_security_label() -> None:
    (protected,) = resources(movement("A01", None, segment("PV2", {22: "Y"})), "Encounter")
    assert protected["meta"]["security"][0]["code"] == "R"
    (lifted,) = resources(movement("A01", None, segment("PV2", {22: "N"})), "Encounter")
    assert "meta" not in lifted
