"""DG1, AL1, IN1, NK1, MRG, several patients: what is exchanged beside patient and visit."""

import orjson
import pytest

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
    segment,
    source,
)
from tocengine.model.event import UnmappedCode
from tocengine.normalize.codes import MAPPABLE, meanings
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


def test_a_payer_has_its_address_and_telephone() -> None:
    body = movement("A01", None, "IN1|1|MCR|0001|EVERGREEN HEALTH|1 MAIN ST^^ALBANY^NY||^^PH^^1^518^5550100")
    (payer,) = [each for each in resources(body, "Organization") if each["name"] == "EVERGREEN HEALTH"]
    assert payer["address"] == [{"line": ["1 MAIN ST"], "city": "ALBANY", "state": "NY"}]
    assert payer["telecom"] == [{"system": "phone", "value": "+1 518 5550100", "use": "work"}]


def test_relatives_and_organizations() -> None:
    body = movement("A01", None, "NK1|1|VOSS^PETER|SPO^Spouse||^PRN^PH^^1^315^5550199", "NK1|2|SUNRISE LLC|EMR")
    (related,) = resources(body, "RelatedPerson")
    assert related["relationship"] == [
        {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "SPS"}]}
    ]
    contacts = resources(body, "Patient")[0]["contact"]
    assert isinstance(contacts, list)
    assert [each["name"]["family"] for each in contacts] == ["VOSS", "SUNRISE LLC"]


def test_the_same_things_have_the_same_ids_in_every_message() -> None:
    first, second = (
        {
            each["resource"]["resourceType"]: each["resource"]["id"]
            for each in orjson.loads(bytes(normalized(body).fhir))["entry"]
            if each["resource"]["resourceType"] != "Provenance"  # of this message alone
        }
        for body in (movement("A01"), movement("A03", {36: "03"}))
    )
    assert first == second


def test_a_swap_gives_an_event_per_patient() -> None:
    body = adt("A17", EVN, PID, pv1(), "PID|2||888^^^STJ^MR", pv1({19: "V901"}))
    records = HL7v2Normalizer(source()).normalize(received(body))
    assert [each.summary.visit and each.summary.visit.value for each in records] == ["V900", "V901"]
    assert all(each.summary.handled for each in records)


def test_a_diagnosis_says_when_it_was_attested_by_whom_and_under_which_number() -> None:
    fields = {1: "1", 3: "I50.9^Heart failure^I10", 5: "20260227", 6: "F", 16: "1999000031^ROE^ANN^^^^^^NPI"}
    fields |= {19: "20260301120000-0500", 20: "D77^STJ"}
    (condition,) = resources(movement("A08", None, segment("DG1", fields)), "Condition")
    assert (condition["onsetDateTime"], condition["recordedDate"]) == ("2026-02-27", "2026-03-01T12:00:00-05:00")
    assert condition["identifier"] == [{"system": "urn:tocengine:feed:stj-adt:DG1-20:STJ", "value": "D77"}]
    assert condition["asserter"]["reference"].startswith("urn:uuid:")


def test_procedures_and_observations_keep_their_own_numbers() -> None:
    procedure = {1: "1", 3: "0SR9019^Hip replacement^I10P", 15: "M16.1^Coxarthrosis^I10", 19: "P1^STJ^2.16.840.1.1^ISO"}
    weight = {1: "1", 2: "NM", 3: "29463-7^Body weight^LN", 5: "70", 6: "kg^^UCUM", 8: "H~QX", 11: "F", 21: "O9"}
    body = movement("A08", None, segment("PR1", procedure), segment("OBX", weight))
    (done,) = resources(body, "Procedure")
    assert done["identifier"] == [{"system": "urn:oid:2.16.840.1.1", "value": "P1"}]
    assert done["reasonCode"][0]["coding"][0]["code"] == "M16.1"
    (seen,) = resources(body, "Observation")
    assert seen["identifier"][0]["value"] == "O9"
    assert [each["coding"][0]["system"].rsplit("/")[-1] for each in seen["interpretation"]] == [
        "v3-ObservationInterpretation",
        "urn:tocengine:feed:stj-adt:OBX-8",
    ]


@pytest.mark.parametrize(
    ("address", "county", "districts"),
    [
        ("4 PINE ST^^UTICA^NY", "ONEIDA", ["ONEIDA"]),
        ("4 PINE ST^^UTICA^NY^^^^^ONEIDA", "ONEIDA", ["ONEIDA"]),
        ("4 PINE ST^^UTICA^NY^^^^^ERIE", "ONEIDA", ["ERIE", "ONEIDA"]),
        ("4 PINE ST^^UTICA~9 OAK RD^^ROME", "ONEIDA", [None, None, "ONEIDA"]),
        ("", "ONEIDA", ["ONEIDA"]),
        ("4 PINE ST^^UTICA", "", [None]),
    ],
)
def test_a_county_belongs_to_the_one_address_or_stands_alone(
    address: str, county: str, districts: list[str | None]
) -> None:
    (patient,) = resources(
        movement("A08", None, pid=segment("PID", {3: "1^^^STJ", 11: address, 12: county})), "Patient"
    )
    assert [each.get("district") for each in patient["address"]] == districts


def test_where_the_patient_was_to_go_is_a_planned_place() -> None:
    (visit,) = resources(movement("A01", None, "PV2|5N^501^A^STJ"), "Encounter")
    assert [each["status"] for each in visit["location"]] == ["active", "planned"]


def test_an_alias_of_an_old_feed_is_one_more_name() -> None:
    pid = segment("PID", {3: "1^^^STJ", 5: "VOSS^HELENA^^^^^L", 9: "VOSS^LENA^^^^^A"})
    (patient,) = resources(movement("A08", None, pid=pid), "Patient")
    assert [each.get("use") for each in patient["name"]] == ["official", None]


@pytest.mark.parametrize(
    ("table", "code", "path", "sent"),
    [
        ("relationship.subscriber", "QQ", "IN1-17", segment("IN1", {2: "M", 4: "EVERGREEN", 16: "VOSS^JO", 17: "QQ"})),
        ("relationship", "QQ", "NK1-3", "NK1|1|VOSS^JO|QQ"),
        ("observation.status", "Q", "OBX-11", "OBX|1|NM|29463-7^^LN||70||||||Q"),
        ("observation.interpretation", "QX", "OBX-8", "OBX|1|NM|29463-7^^LN||70|||QX"),
        ("name_use", "QQ", "XPN-7", "NK1|1|VOSS^JO^^^^^QQ|SPO"),
        ("telecom.use", "QQ", "XTN-2", "NK1|1|VOSS^JO|SPO||5550199^QQ"),
        ("telecom.system", "QQ", "XTN-3", "NK1|1|VOSS^JO|SPO||5550199^PRN^QQ"),
        ("address.use", "QQ", "XAD-7", "NK1|1|VOSS^JO|SPO|9 OAK RD^^UTICA^^^^QQ"),
        ("language", "QQ", "PID-15", ""),
        ("service", "QQ", "PV1-10", ""),
        ("visit.admission_type", "QQ", "PV1-4", ""),
    ],
)
def test_an_unmapped_code_is_kept_flagged_and_open_for_mapping(table: str, code: str, path: str, sent: str) -> None:
    pid = segment("PID", {3: "1^^^STJ", 15: code if path == "PID-15" else ""})
    visit = {4: code if path == "PV1-4" else "", 10: code if path == "PV1-10" else ""}
    found = event(movement("A08", visit, sent, pid=pid))
    assert UnmappedCode(table, code) in found.unmapped
    assert f"unmapped:{path}" in found.flags
    assert table in MAPPABLE
    assert meanings(table)


def test_namesakes_are_two_related_people() -> None:
    lines = ("NK1|1|DOE^JOHN|FTH", "NK1|2|DOE^JOHN|CHD", "NK1|3|DOE^JOHN|FTH")
    found = resources(movement("A01", None, *lines), "RelatedPerson")
    assert [each["relationship"][0]["coding"][0]["code"] for each in found] == ["FTH", "CHILD"]
    (alone,) = resources(movement("A01", None, lines[0]), "RelatedPerson")
    assert found[0] == alone


@pytest.mark.parametrize("kind", ["NH", "SNF"])
def test_a_nursing_home_is_where_somebody_lives_and_no_relative(kind: str) -> None:
    body = movement("A01", None, f"NK1|1|SUNNYSIDE^REHAB|{kind}|1 MILL LN^^UTICA")
    assert resources(body, "RelatedPerson") == []
    (contact,) = resources(body, "Patient")[0]["contact"]
    assert "name" not in contact
    homes = {f"urn:uuid:{each['id']}": each["name"] for each in resources(body, "Organization")}
    assert homes[contact["organization"]["reference"]] == "SUNNYSIDE REHAB"
    assert event(body).unmapped == ()
