"""Segments that are exchanged but not routed on: procedures, observations, movements by id, privacy hints, IAM."""

from typing import Any

import orjson
import pytest
from msgspec import UNSET

from tests.fixtures.adt import EVN, PID, adt, encounter_facts, event, movement, normalized, pv1
from tocengine.formats.fhir.chart import overlay
from tocengine.formats.fhir.resources import Resource
from tocengine.model.event import MovementAction, NamedMovement


def _all(body: bytes, kind: str) -> list[Any]:
    bundle = orjson.loads(bytes(normalized(body).fhir))
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_a_procedure_has_its_code_times_and_people() -> None:
    line = "PR1|1||0SR9^Hip replacement^L||20260227093000-0500|D^Diagnostic^HL70230|90||||77^STONE^AL"
    (found,) = _all(movement("A03", None, line), "Procedure")
    assert found["status"] == "unknown"
    assert found["performedPeriod"] == {"start": "2026-02-27T09:30:00-05:00", "end": "2026-02-27T11:00:00-05:00"}
    assert found["code"]["text"] == "Hip replacement"
    assert len(found["performer"]) == 1


def test_a_deleted_procedure_and_one_without_a_name_are_left_out() -> None:
    assert _all(movement("A03", None, "PR1|1||A1^X^L|||||||||||||||||D", "PR1|2|||"), "Procedure") == []


@pytest.mark.parametrize(
    ("obx", "expected"),
    [
        ("NM|8302-2^Height^LN||172|cm^cm^UCUM", {"value": 172, "unit": "cm", "code": "cm"}),
        ("NM|29463-7^Weight^LN||81.5|kg", {"value": 81.5, "unit": "kg"}),
        ("NM|8302-2^Height^LN||-0172|cm", {"value": -172}),
        ("SN|59408-5^SpO2^LN||<^2|mmol/L", {"value": 2, "comparator": "<", "unit": "mmol/L"}),
    ],
)
def test_a_measurement_is_a_quantity_in_its_unit(obx: str, expected: Resource) -> None:
    (found,) = _all(movement("A01", None, f"OBX|1|{obx}|||||F"), "Observation")
    assert found["status"] == "final"
    assert expected.items() <= found["valueQuantity"].items()


@pytest.mark.parametrize("value", ["about 80", "1e5", "60~120", "--3", "٣"])
def test_what_is_no_number_stays_text(value: str) -> None:
    (found,) = _all(movement("A01", None, f"OBX|1|NM|29463-7^X^LN||{value}|kg|||||F"), "Observation")
    assert "valueQuantity" not in found
    assert found["valueString"] == value.replace("~", "\n")


def test_a_laboratory_result_stays_in_the_message() -> None:
    assert _all(movement("A01", None, "OBX|1|NM|718-7^Hemoglobin^LN||9|g/dL|||||F"), "Observation") == []


def test_a_result_status_without_a_row_is_unknown_and_flagged() -> None:
    body = movement("A01", None, "OBX|1|ST|54121-3^X^LN||calm||||||Q")
    assert _all(body, "Observation")[0]["status"] == "unknown"
    assert "unmapped:OBX-11" in event(body).flags


def test_a_movement_is_named_by_its_sender() -> None:
    body = movement("Z99", None, "ZBE|5611^PAM|20260301101500-0500||UPDATE|Y|A02")
    told = event(body)
    assert told.handled
    assert isinstance(told.movement, NamedMovement)
    assert told.movement.ids == ("PAM:5611",)
    assert told.movement.action is MovementAction.UPDATE
    assert told.movement.trigger == "A02"
    assert told.movement.historic
    assert told.movement.starts is not None


def test_a_movement_segment_without_id_or_action_is_flagged() -> None:
    told = event(movement("A02", None, "ZBE|||20260301||PERHAPS"))
    assert told.movement is None
    assert "unreadable:ZBE" in told.flags


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("PD1||||||||||||Y", "privacy:PD1-12"),
        ("PD1|||||||||||N", "privacy:PD1-11"),
        ("PV2||||||||||||||||||||||Y", "privacy:PV2-22"),
        ("ARV|1|A|DEM", "privacy:ARV"),
        ("CON|1", "privacy:CON"),
    ],
)
def test_a_wish_for_privacy_is_a_flag(line: str, flag: str) -> None:
    assert flag in event(movement("A01", None, line)).flags
    assert not [each for each in event(movement("A01")).flags if each.startswith("privacy")]


def test_tracking_never_says_where_the_patient_lies() -> None:
    told = event(movement("A09"))
    assert told.handled
    assert encounter_facts(movement("A09")).location is UNSET


def test_a_bed_status_is_stored_and_nothing_else() -> None:
    told = event(adt("A20", EVN, "NPU|3N^312^A|C"))
    assert not told.handled
    assert told.patient is None


def test_an_allergy_update_adds_changes_and_deletes_one_by_one() -> None:
    first = normalized(movement("A01", None, "AL1|1|DA|PCN^Penicillin^L", "AL1|2|FA|NUT^Nuts^L"))
    second = normalized(adt("A60", EVN, PID, pv1(), "IAM|1|DA|ASA^Aspirin^L|||A", "IAM|2|FA|NUT^Nuts^L|||D"))
    chart = overlay([bytes(first.fhir), bytes(second.fhir)], [first.summary.cleared, second.summary.cleared])
    listed = [entry["resource"] for entry in orjson.loads(chart)["entry"]]
    codes = [each["code"]["text"] for each in listed if each["resourceType"] == "AllergyIntolerance"]
    assert sorted(codes) == ["Aspirin", "Penicillin"]
    assert second.summary.encounter_facts is UNSET


def test_who_the_patient_is_to_the_state_and_the_family() -> None:
    pid = PID + "|||9 OAK RD^^UTICA^NY^13502^USA^H^^ONEIDA||||eng^English|M^Married|||||||||2"
    (found,) = _all(movement("A01", pid=pid), "Patient")
    assert found["maritalStatus"]["coding"][0]["code"] == "M"
    assert found["communication"][0]["language"]["coding"][0]["code"] == "en"
    assert found["multipleBirthInteger"] == 2
    assert found["address"][0]["district"] == "ONEIDA"


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ("80.50", "80.50"),
        ("+80.0", "80.0"),
        (".5", "0.5"),
        ("5.", "5"),
        ("007.10", "7.10"),
        ("0.00000001", "0.00000001"),
        ("12345678901234567890", "12345678901234567890"),
        ("1234567890123456789.01", "1234567890123456789.01"),
    ],
)
def test_a_number_keeps_its_digits(sent: str, written: str) -> None:
    content = bytes(normalized(movement("A01", None, f"OBX|1|NM|29463-7^X^LN||{sent}|kg|||||F")).fhir)
    assert f'"valueQuantity":{{"value":{written},'.encode() in content
