"""DG1, AL1, IN1, NK1, MRG, several patients: what is exchanged beside patient and visit."""

import orjson

from tests.fixtures.adt import (
    EVN,
    PID,
    adt,
    encounter_facts,
    event,
    movement,
    normalized,
    pv1,
    received,
    resources,
    source,
)
from tocengine.normalize.normalizer import HL7v2Normalizer


def test_diagnoses_get_role_certainty_and_their_dot() -> None:
    body = movement(
        "A08",
        None,
        "DG1|1||I509^Heart failure^I10|||F|||||||||1",
        "DG1|2||R07.9^Chest pain^I10|||A",
        "DG1|3||^Fall||20260226|W",
        "DG1|4||I509^Heart failure^I10|||F",
    )
    found = encounter_facts(body).diagnoses
    assert found
    assert [(each.code, each.text, each.type) for each in found] == [
        ("I50.9", "Heart failure", "F"),
        ("R07.9", "Chest pain", "A"),
        ("", "Fall", "W"),
    ]
    listed = resources(body, "Encounter")[0]["diagnosis"]
    assert isinstance(listed, list)
    codes = [each.get("use", {}).get("coding", [{}])[0].get("code") for each in listed]
    assert codes == ["DD", "AD", None]
    assert listed[0]["rank"] == 1
    conditions = resources(body, "Condition")
    assert [each["verificationStatus"]["coding"][0]["code"] for each in conditions] == [
        "confirmed",
        "provisional",
        "provisional",
    ]
    assert conditions[2]["onsetDateTime"] == "2026-02-26"


def test_allergies() -> None:
    body = movement("A08", None, "AL1|1|DA|PCN^Penicillin^L|SV|Rash~Hives", "AL1|2||NKA", "AL1|3|FA|^Peanut|MO")
    first, none, third = resources(body, "AllergyIntolerance")
    assert (first["type"], first["category"], first["criticality"]) == ("allergy", ["medication"], "high")
    assert len(first["reaction"]) == 2
    assert none["code"]["coding"][0]["code"] == "716186003"
    assert "type" not in none
    assert "criticality" not in third
    assert third["code"] == {"text": "Peanut"}


def test_coverage_needs_a_payer() -> None:
    body = movement("A01", None, "IN1|1|MCR^Plan A|0001|EVERGREEN HEALTH||||G7||||20250101", "IN1|2|X")
    (coverage,) = resources(body, "Coverage")
    assert coverage["period"] == {"start": "2025-01-01"}
    assert "EVERGREEN HEALTH" in [each["name"] for each in resources(body, "Organization")]
    assert "payer_missing:IN1-4" in event(body).flags


def test_relatives_and_organizations() -> None:
    body = movement("A01", None, "NK1|1|VOSS^PETER|SPO^Spouse||^PRN^PH^^1^315^5550199", "NK1|2|SUNRISE LLC|EMR")
    (related,) = resources(body, "RelatedPerson")
    assert related["relationship"] == [
        {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "SPS"}]}
    ]
    contacts = resources(body, "Patient")[0]["contact"]
    assert isinstance(contacts, list)
    assert len(contacts) == 1


def test_the_same_things_have_the_same_ids_in_every_message() -> None:
    first, second = (
        {
            each["resource"]["resourceType"]: each["resource"]["id"]
            for each in orjson.loads(bytes(normalized(body).fhir))["entry"]
        }
        for body in (movement("A01"), movement("A03", {36: "03"}))
    )
    assert first == second


def test_a_swap_gives_an_event_per_patient() -> None:
    body = adt("A17", EVN, PID, pv1(), "PID|2||888^^^STJ^MR", pv1({19: "V901"}))
    records = HL7v2Normalizer(source()).normalize(received(body))
    assert [each.summary.visit and each.summary.visit.value for each in records] == ["V900", "V901"]
    assert all(each.summary.handled for each in records)
