"""ROL and PRT by their action, their period and what they stand behind: who is told and named depends on it."""

from typing import Any

import pytest
from msgspec import UNSET

from tests.fixtures.adt import EVN, PID, adt, encounter_facts, event, movement, patient_facts, pv1, resources, segment
from tocengine.model.facts import known

GONE = "1999000031^GONE^ANN^^^^^^NPI"
PATEL = "1234567893^PATEL^RAVI^^^^^^NPI"
ROE = "1999000015^ROE^ANN^^^^^^NPI"


def role(kind: str, action: str, code: str, who: str, begin: str = "", end: str = "") -> str:
    fields = (3, 4, 5, 6) if kind == "ROL" else (4, 5, 11, 12)
    return segment(kind, {1: "1", 2: action, **dict(zip(fields, (code, who, begin, end), strict=True))})


def treating(*lines: str, pv1_7: str = ROE) -> tuple[str, object]:
    """Who treats by a message with `lines` behind PV1, and where that was found."""
    facts = encounter_facts(movement("A01", {7: pv1_7}, *lines))
    person = known(facts.treating)
    return person.family if person else "", facts.treating_source


def participants(body: bytes) -> list[tuple[str, str]]:
    """(role, family) of each participant."""
    (visit,) = resources(body, "Encounter")
    people: dict[str, Any] = {f"urn:uuid:{each['id']}": each for each in resources(body, "Practitioner")}
    return [
        (each["type"][0]["coding"][0]["code"], people[each["individual"]["reference"]]["name"][0]["family"])
        for each in visit.get("participant", ())
    ]


@pytest.mark.parametrize("kind", ["ROL", "PRT"])
@pytest.mark.parametrize("action", ["DE", "UN"])
def test_a_deleted_attending_is_not_the_treating_practitioner(kind: str, action: str) -> None:
    line = role(kind, action, "AT", GONE)
    assert treating(line) == ("ROE", "PV1-7")
    assert treating(line, pv1_7="") == ("", UNSET)
    assert treating(line, pv1_7=GONE) == ("", UNSET)
    body = movement("A08", {7: GONE}, line)
    assert encounter_facts(body).treating is None
    assert "Encounter.participant:ATND" in event(body).cleared
    assert participants(body) == []


@pytest.mark.parametrize("action", ["AD", "UP", "UC", "CO", ""])
def test_other_actions_say_who_treats(action: str) -> None:
    assert treating(role("ROL", action, "AT", PATEL)) == ("PATEL", "ROL")


@pytest.mark.parametrize("kind", ["ROL", "PRT"])
@pytest.mark.parametrize(
    ("begin", "end", "who"),
    [
        ("", "20260201", "ROE"),
        ("20260101", "20260301100000-0500", "ROE"),
        ("20260302", "", "ROE"),
        ("20260101", "20260301", "PATEL"),  # of that day: no hour is said
        ("20260301", "20260302", "PATEL"),
        ("2026", "2026", "PATEL"),
        ("soon", "later", "PATEL"),
    ],
)
def test_a_role_counts_while_it_lasts(kind: str, begin: str, end: str, who: str) -> None:
    assert treating(role(kind, "AD", "AT", PATEL, begin, end))[0] == who


@pytest.mark.parametrize(
    ("trigger", "begin", "end", "who"),
    [
        ("A01", "", "20260301120000-0500", "ROE"),  # has left by the time that it is told
        ("A03", "", "20260301120000-0500", "PATEL"),  # left after the patient did
        ("A01", "20260301150000-0500", "", "PATEL"),  # came after the patient did
    ],
)
def test_the_period_is_compared_with_the_record_and_of_a_discharge_with_the_event(
    trigger: str, begin: str, end: str, who: str
) -> None:
    line = role("ROL", "AD", "AT", PATEL, begin, end)
    body = movement(trigger, {7: ROE}, line, evn="EVN||20260301154100-0500||||20260301110000-0500")
    person = known(encounter_facts(body).treating)
    assert person is not None
    assert person.family == who


def test_who_is_deleted_and_put_there_again_has_the_role() -> None:
    again = (role("ROL", "DE", "AT", ROE), role("ROL", "AD", "AT", ROE))
    assert treating(*again) == ("ROE", "ROL")
    assert participants(movement("A08", {7: ROE}, *again)) == [("ATND", "ROE")]
    assert treating(*reversed(again)) == ("", UNSET)


def test_a_placeholder_makes_no_organization_of_two() -> None:
    body = movement("A01", None, segment("PD1", {3: "CLINIC A^L^99999~CLINIC B^L^99999"}))
    names = {each["name"] for each in resources(body, "Organization")}
    assert {"CLINIC A", "CLINIC B"} <= names
    assert "placeholder:PD1-3" in event(body).flags


def test_an_attending_behind_pid_or_pr1_does_not_treat_in_this_visit() -> None:
    behind_pid = adt("A01", EVN, PID, role("ROL", "AD", "AT", PATEL), pv1({7: ROE}))
    behind_pr1 = movement("A01", {7: ROE}, "PR1|1||0SR9^Hip^L", role("ROL", "AD", "AT", PATEL))
    for body in (behind_pid, behind_pr1):
        person = known(encounter_facts(body).treating)
        assert person is not None
        assert person.family == "ROE"
        assert participants(body) == [("ATND", "ROE")]


def test_who_stands_behind_a_procedure_performed_it() -> None:
    lines = ("PR1|1||A1^Hip^L", role("ROL", "AD", "AT", PATEL), role("PRT", "DE", "AT", GONE), "PR1|2||A2^Knee^L")
    first, second = resources(movement("A01", {7: ROE}, *lines), "Procedure")
    assert [each["actor"]["reference"] for each in first["performer"]] == [
        f"urn:uuid:{each['id']}"
        for each in resources(movement("A01", {7: ROE}, *lines), "Practitioner")
        if each["name"][0]["family"] == "PATEL"
    ]
    assert "performer" not in second


def test_a_deleted_consultant_is_no_participant() -> None:
    body = movement("A01", {7: ROE, 9: PATEL}, role("ROL", "DE", "CP", PATEL), role("ROL", "AD", "CP", GONE))
    assert participants(body) == [("ATND", "ROE"), ("CON", "GONE")]


@pytest.mark.parametrize("kind", ["ROL", "PRT"])
def test_a_deleted_primary_care_provider_is_taken_away(kind: str) -> None:
    line = role(kind, "DE", "PP", PATEL)
    alone = adt("A31", EVN, PID, line)
    assert patient_facts(alone).pcp is None
    assert "Patient.generalPractitioner" in event(alone).cleared
    assert patient_facts(adt("A31", EVN, PID, f"PD1||||{PATEL}", line)).pcp is None
    others = known(patient_facts(adt("A31", EVN, PID, f"PD1||||{ROE}", line)).pcp)
    assert others is not None
    assert [person.family for person in others] == ["ROE"]


def test_a_primary_care_provider_of_the_past_is_not_one_and_takes_nobody_away() -> None:
    body = adt("A31", EVN, PID, role("ROL", "AD", "PP", PATEL, "2019", "20260201"))
    assert patient_facts(body).pcp is UNSET


def test_each_patient_of_a_message_has_its_own_roles() -> None:
    from tests.fixtures.adt import received, source
    from tocengine.normalize.normalizer import HL7v2Normalizer

    body = adt(
        "A17",
        EVN,
        PID,
        pv1({7: ROE}),
        role("ROL", "AD", "AT", PATEL),
        PID.replace("00777", "00778"),
        pv1({7: ROE, 19: "V901"}),
    )
    first, second = (each.summary for each in HL7v2Normalizer(source()).normalize(received(body)))
    assert first.encounter_facts is not UNSET
    assert second.encounter_facts is not UNSET
    assert (first.encounter_facts.treating_source, second.encounter_facts.treating_source) == ("ROL", "PV1-7")
