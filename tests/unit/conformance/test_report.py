"""What the report says of invented messages: errors for what costs a notice, warnings for the rest, no values."""

import msgspec

from tests.fixtures.adt import EVN, PID, RECEIVED, adt, movement, pv1, source
from tocengine.conformance import Finding, Severity, check_file, check_message
from tocengine.model.profile import SourceProfile

DISCHARGE = {36: "03", 37: "SUNNYSIDE", 44: "20260225", 45: "20260301153500-0500"}


def findings(body: bytes, profile: SourceProfile | None = None) -> set[tuple[Severity, str, str]]:
    report = check_message("a.hl7", 1, body, source(profile), RECEIVED)
    return {(each.severity, each.rule, each.location) for each in report.findings}


def errors(body: bytes) -> set[tuple[str, str]]:
    return {(rule, location) for severity, rule, location in findings(body) if severity is Severity.ERROR}


def test_a_good_discharge_has_no_error() -> None:
    report = check_message("a.hl7", 1, movement("A03", DISCHARGE), source(), RECEIVED)
    assert report.count(Severity.ERROR) == 0
    assert (report.message_type, report.version) == ("ADT^A03", "2.5.1")


def test_what_routing_needs_is_an_error() -> None:
    assert errors(movement("A03", {**DISCHARGE, 19: ""})) == {("visit_key_missing", "PV1^1^19")}
    assert errors(movement("A01", pid="PID|1||||VOSS^HELENA")) == {("patient_id_missing", "PID^1^3")}
    assert errors(movement("A01", pid="PID|1||UNKNOWN^^^STJ^MR||VOSS^HELENA")) == {("patient_id_missing", "PID^1^3")}
    assert errors(movement("A03", DISCHARGE).replace(b"ADT^A03|1|", b"ADT^A03||")) == {
        ("control_id_missing", "MSH^1^10")
    }
    assert errors(b"PID|1")
    assert ("message_type_unsupported", "MSH^1^9^1^1") in errors(adt("A03").replace(b"ADT^", b"ORU^"))


def test_the_minimum_of_a_notice() -> None:
    assert errors(movement("A03", {**DISCHARGE, 7: ""})) == {("cop_practitioner_name", "PV1^1^7")}
    assert errors(movement("A03", DISCHARGE, pid="PID|1||00777^^^STJ^MR")) == {("cop_patient_name", "PID^1^5")}
    found = findings(movement("A03", {}))
    assert {("disposition", "PV1^1^36"), ("destination", "PV1^1^37"), ("discharge_time", "PV1^1^45")} & {
        (rule, location) for _, rule, location in found
    } == {("disposition", "PV1^1^36"), ("destination", "PV1^1^37")}  # EVN-6 states the time


def test_codes_and_dates_are_warnings_with_their_place() -> None:
    body = movement("A03", {**DISCHARGE, 2: "QQ", 36: "ZZ9", 44: "20261350"})
    found = {(rule, location) for _, rule, location in findings(body)}
    assert {("unmapped", "PV1-2"), ("unmapped", "PV1-36"), ("unreadable", "PV1-44")} <= found
    mapped = findings(body, SourceProfile(disposition_map={"ZZ9": "03"}))
    assert ("unmapped", "PV1-36") not in {(rule, location) for _, rule, location in mapped}


def test_the_standard_of_the_stated_version() -> None:
    body = adt("A03", EVN, "PID|1||00777^^^STJ^MR", pv1(DISCHARGE), "DG1|1||I10", "ZPI|own", "OBR|1")
    found = {(rule, location) for _, rule, location in findings(body)}
    assert {("required", "PID^1^5"), ("required", "DG1^1^6"), ("segment_unexpected", "OBR")} <= found
    assert not [location for _, location in found if location.startswith("ZPI")]
    assert ("segment_missing", "EVN") in {
        (rule, location) for _, rule, location in findings(adt("A03", PID, pv1(DISCHARGE)))
    }
    unknown = findings(movement("A03", DISCHARGE).replace(b"|2.5.1", b"|9.9"))
    assert (Severity.WARNING, "version", "MSH^1^12") in unknown


def test_no_value_of_the_patient_is_shown() -> None:
    pid = "PID|1||QUAGMIRE-77 1^^^STJ^MR||QUAGMIRE LONG^HELENA||QUAGMIRE 1|QUAGMIRE OF THE NORTH"
    body = movement("A03", {**DISCHARGE, 2: "QUAGMIRE NOT A CODE", 36: "QUAGMIRE AND MORE"}, pid=pid)
    report = check_message("a.hl7", 1, body, source(), RECEIVED)
    assert report.findings
    assert b"QUAGMIRE" not in msgspec.json.encode(report)


def test_several_messages_and_batches_are_reported_one_by_one() -> None:
    one, other = movement("A03", DISCHARGE), movement("A01")
    for content in (one + other, b"FHS|^~\\&\rBHS|^~\\&\r" + one + other + b"BTS|2\rFTS|1\r"):
        reports = list(check_file("a.hl7", content, source(), RECEIVED))
        assert [(report.number, report.message_type) for report in reports] == [(1, "ADT^A03"), (2, "ADT^A01")]
    (broken,) = check_file("a.hl7", b"BHS|^~\\&\r" + one + b"BTS|7\r", source(), RECEIVED)
    assert [finding.rule for finding in broken.findings] == ["batch_count"]
    (hollow,) = check_file("a.hl7", b"BHS|^~\\&\rBTS|0\r", source(), RECEIVED)
    assert [finding.rule for finding in hollow.findings] == ["batch_empty"]
    (empty,) = check_file("a.txt", b"no message at all", source(), RECEIVED)
    assert empty.count(Severity.ERROR)
    assert isinstance(empty.findings[0], Finding)
