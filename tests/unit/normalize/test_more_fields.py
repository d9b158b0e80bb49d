"""The fields that few senders value and the published map has a target for."""

from typing import Any

import pytest

from tests.fixtures.adt import PID, RECEIVED, event, movement, normalized, resources, segment, source
from tocengine.formats.fhir.chart import overlay, resources_of
from tocengine.normalize.explain import explain

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
STRUCTURE = "http://hl7.org/fhir/StructureDefinition/"
CPT = "http://www.ama-assn.org/go/cpt"


def _pid(fields: dict[int, str]) -> str:
    kept = {number: value for number, value in enumerate(PID.split("|")) if number}
    return segment("PID", {**kept, **fields})


def _one(body: bytes, kind: str) -> dict[str, Any]:
    (found,) = resources(body, kind)
    return found


def test_the_mothers_maiden_name_and_the_religion_are_extensions_of_the_patient() -> None:
    body = movement("A01", pid=_pid({6: "ALDER^RUTH", 17: "JWN"}))
    assert _one(body, "Patient")["extension"] == [
        {"url": STRUCTURE + "patient-mothersMaidenName", "valueString": "ALDER"},
        {
            "url": STRUCTURE + "patient-religion",
            "valueCodeableConcept": {"coding": [{"system": TERMINOLOGY + "v3-ReligiousAffiliation", "code": "1025"}]},
        },
    ]


@pytest.mark.parametrize(
    ("sent", "concept", "unmapped"),
    [
        ("BUD", {"coding": [{"system": TERMINOLOGY + "v2-0006", "code": "BUD"}]}, False),
        (
            "R7^Reformed",
            {"coding": [{"system": "urn:tocengine:feed:stj-adt:PID-17", "code": "R7"}], "text": "Reformed"},
            True,
        ),
        ("^Reformed", {"text": "Reformed"}, False),
    ],
)
def test_a_religion_without_an_equivalent_is_kept_as_sent(sent: str, concept: object, unmapped: bool) -> None:
    body = movement("A01", pid=_pid({17: sent}))
    assert _one(body, "Patient")["extension"][0]["valueCodeableConcept"] == concept
    assert ("unmapped:PID-17" in event(body).flags) is unmapped


def test_an_extension_that_is_not_sent_again_stays_and_a_deleted_one_goes() -> None:
    bodies = [
        movement("A01", {}, segment("PV2", {38: "A"}), pid=_pid({6: "ALDER", 17: "JWN"})),
        movement("A08", pid=_pid({17: "BUD"})),
        movement("A08", pid=_pid({6: '""'})),
        movement("A08", {}, segment("PV2", {38: '""'})),
    ]
    events = [normalized(body) for body in bodies]

    def charted(count: int, kind: str) -> list[str]:
        chart = overlay(
            [bytes(each.fhir) for each in events[:count]], [each.summary.cleared for each in events[:count]]
        )
        (found,) = [each for each in resources_of(chart).values() if each["resourceType"] == kind]
        listed: Any = found.get("extension", [])
        return [each["url"].rpartition("-")[2] for each in listed]

    assert charted(2, "Patient") == ["mothersMaidenName", "religion"]
    assert charted(3, "Patient") == ["religion"]
    assert charted(3, "Encounter") == ["modeOfArrival"]
    assert charted(4, "Encounter") == []


@pytest.mark.parametrize(
    ("sent", "system", "unmapped"),
    [("A^Ambulance", TERMINOLOGY + "v2-0430", False), ("HELI", "urn:tocengine:feed:stj-adt:PV2-38", True)],
)
def test_the_mode_of_arrival_is_an_extension_of_the_encounter(sent: str, system: str, unmapped: bool) -> None:
    body = movement("A01", {}, segment("PV2", {38: sent}))
    (found,) = _one(body, "Encounter")["extension"]
    assert found["url"] == STRUCTURE + "encounter-modeOfArrival"
    assert found["valueCoding"] == {"system": system, "code": sent.partition("^")[0]}
    assert ("unmapped:PV2-38" in event(body).flags) is unmapped


def test_a_procedure_code_has_its_modifiers_where_its_system_can_write_them() -> None:
    coded = movement("A03", None, segment("PR1", {3: "27130^Hip^C4", 16: "RT^Right~59"}))
    assert [(each["system"], each["code"]) for each in _one(coded, "Procedure")["code"]["coding"]] == [
        (CPT, "27130"),
        (CPT, "27130:RT:59"),
    ]
    local = movement("A03", None, segment("PR1", {3: "H1^Hip^L", 16: "RT"}))
    assert [each["code"] for each in _one(local, "Procedure")["code"]["coding"]] == ["H1"]


def test_the_same_procedure_on_both_sides_is_two() -> None:
    lines = [segment("PR1", {3: "27130^Hip^C4", 5: "20260227", 16: side}) for side in ("RT", "LT")]
    assert len(resources(movement("A03", None, *lines), "Procedure")) == 2


ROLE = {1: "1", 2: "AD", 3: "CP", 4: "1999000031^ROE^ANN^^^^^^NPI", 5: "20260226", 6: "20260301"}


def test_a_role_says_when_and_how_its_person_is_reached() -> None:
    line = segment(
        "ROL",
        {**ROLE, 11: "9 MILL LN^^UTICA^NY^13501^^O~1 BIRCH ST^^ROME^NY^^^BDL", 12: "^DSM^DSM^ann@direct.example.org"},
    )
    body = movement("A01", {7: ""}, line)
    doctor = _one(body, "Practitioner")
    assert doctor["address"] == [
        {"line": ["9 MILL LN"], "city": "UTICA", "state": "NY", "postalCode": "13501", "use": "work"}
    ]
    role = _one(body, "PractitionerRole")
    assert role["practitioner"] == {"reference": f"urn:uuid:{doctor['id']}"}
    assert role["telecom"] == [{"system": "email", "value": "ann@direct.example.org"}]
    assert role["period"] == {"start": "2026-02-26", "end": "2026-03-01"}
    assert role["code"][0]["coding"][0]["code"] == "CON"
    (participant,) = _one(body, "Encounter")["participant"]
    assert participant["period"] == role["period"]


def test_what_is_known_of_a_person_does_not_leak_into_the_next_message() -> None:
    from tests.fixtures.adt import received
    from tocengine.normalize.normalizer import HL7v2Normalizer

    normalizer = HL7v2Normalizer(source())
    plain = movement("A01", {7: ""}, segment("ROL", ROLE))
    before = bytes(normalizer.normalize(received(plain))[0].fhir)
    normalizer.normalize(received(movement("A01", {7: ""}, segment("ROL", {**ROLE, 11: "9 MILL LN^^UTICA"}))))
    assert bytes(normalizer.normalize(received(plain))[0].fhir) == before


def test_a_primary_care_provider_without_a_number_is_reached_too() -> None:
    line = segment(
        "PRT", {1: "1", 2: "AD", 4: "PP", 5: "^PATEL^RAVI", 14: "2 ELM ST^^UTICA", 15: "^WPN^PH^^1^315^5550142"}
    )
    body = movement("A01", {7: ""}, line)
    assert _one(body, "Practitioner")["address"][0]["city"] == "UTICA"
    assert _one(body, "PractitionerRole")["code"][0]["coding"][0]["code"] == "446050000"
    nobody = movement("A01", {7: ""}, segment("ROL", {**ROLE, 3: "TR", 12: "^WPN^PH^^1^315^5550142"}))
    assert resources(nobody, "PractitionerRole") == []


def test_the_group_employer_has_the_numbers_of_in1_10() -> None:
    line = segment(
        "IN1", {1: "1", 2: "MCR", 3: "1", 4: "EVERGREEN", 10: "E55^^^MILL^EI~123456789^^^^SS", 11: "MILL INC"}
    )
    body = movement("A01", None, line)
    (employer,) = [each for each in resources(body, "Organization") if each.get("name") == "MILL INC"]
    assert [each["value"] for each in employer["identifier"]] == ["E55"]
    assert _one(body, "Coverage")["policyHolder"] == {"reference": f"urn:uuid:{employer['id']}"}
    unnamed = movement("A01", None, line.replace("MILL INC", ""))
    assert "policyHolder" in _one(unnamed, "Coverage")


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({10: "S9^^^EV^SN", 36: "P1"}, "S9"),
        ({10: "S9^^^EV^SN", 49: "M7", 36: "P1"}, "M7"),
        ({10: "E55^^^MILL^EI", 36: "P1"}, "P1"),
        ({49: "123456789^^^^SS", 36: "P1"}, "P1"),
    ],
)
def test_a_subscriber_number_is_found_where_it_is_one(fields: dict[int, str], number: str) -> None:
    body = movement("A01", None, segment("IN1", {1: "1", 2: "MCR", 3: "1", 4: "EVERGREEN", **fields}))
    coverage = _one(body, "Coverage")
    assert coverage["subscriberId"] == number
    assert ("policyHolder" in coverage) is fields.get(10, "").endswith("EI"), "a subscriber's number is no employer's"


CONTACT = {1: "1", 2: "VOSS^PETER", 3: "SPO", 8: "20200101", 9: "20270101", 15: "M", 20: "pol^Polish"}


def test_a_contact_has_a_period_a_gender_a_language_and_numbers() -> None:
    body = movement("A01", None, segment("NK1", {**CONTACT, 33: "R5^^^STJ^PI~123456789^^^^SS"}))
    (contact,) = _one(body, "Patient")["contact"]
    period = {"start": "2020-01-01", "end": "2027-01-01"}
    assert (contact["period"], contact["gender"]) == (period, "male")
    person = _one(body, "RelatedPerson")
    assert (person["period"], person["gender"]) == (period, "male")
    assert person["communication"][0]["language"]["coding"][0]["code"] == "pl"
    assert [each["value"] for each in person["identifier"]] == ["R5"]


def test_the_contact_person_of_an_organization_is_not_the_relative() -> None:
    more = {13: "MILL INC", 30: "OAK^JOAN", 31: "^WPN^PH^^1^315^5550142", 32: "5 DOCK RD^^UTICA"}
    body = movement("A01", None, segment("NK1", {**CONTACT, **more}))
    (mill,) = [each for each in resources(body, "Organization") if each.get("name") == "MILL INC"]
    (person,) = mill["contact"]
    assert person["name"] == {"family": "OAK", "given": ["JOAN"]}
    assert person["telecom"][0]["value"] == "+1 315 5550142"
    assert person["address"]["city"] == "UTICA"
    assert "OAK" not in str(_one(body, "RelatedPerson"))


@pytest.mark.parametrize(
    ("body", "flag"),
    [
        (movement("A01", pid=_pid({3: "00777^^^STJ^MR~9^^^STJ^XYZ"})), "unmapped:PID-3"),
        (movement("A01", None, segment("NK1", {**CONTACT, 33: "9^^^STJ^XYZ"})), "unmapped:NK1-33"),
        (movement("A40", None, "MRG|9^^^STJ^XYZ"), "unmapped:MRG-1"),
        (movement("A45", {18: ""}, "MRG|9^^^STJ^XYZ||||V1^^^STJ"), "unmapped:MRG-1"),
    ],
)
def test_an_unknown_identifier_type_is_flagged_where_it_was_sent(body: bytes, flag: str) -> None:
    assert [each for each in event(body).flags if each.startswith("unmapped")] == [flag]


def test_explain_says_where_they_came_from() -> None:
    lines = (
        segment("PV2", {38: "A"}),
        segment("ROL", {**ROLE, 11: "9 MILL LN^^UTICA", 12: "^WPN^PH^^1^315^5550142"}),
        segment("NK1", {**CONTACT, 13: "MILL INC", 30: "OAK^JOAN", 33: "R5^^^STJ^PI"}),
        segment("IN1", {1: "1", 2: "MCR", 3: "1", 4: "EVERGREEN", 10: "E55^^^MILL^EI", 11: "MILL INC"}),
        segment("PR1", {3: "27130^Hip^C4", 16: "RT"}),
    )
    made = explain(movement("A01", {7: ""}, *lines, pid=_pid({6: "ALDER", 17: "JWN"})), source(), RECEIVED)
    fields = {field for each in made.elements for field in each.fields}
    wanted = {"PID-6", "PID-17", "PV2-38", "ROL-5", "ROL-6", "ROL-11.1", "ROL-12.7", "NK1-8", "NK1-9", "NK1-15"}
    assert wanted <= fields
    assert {"NK1-20.1", "NK1-30.1", "NK1-33.1", "IN1-10.1", "PR1-16"} <= fields
    assert not [place for place in made.unused if place in wanted]
