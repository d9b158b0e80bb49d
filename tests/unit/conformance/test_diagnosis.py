"""The second opinion on what was set aside: names of segments and fields, never values, and never for long."""

import time
from datetime import UTC, datetime

import pytest

from tocengine.commands.check import ANYBODY
from tocengine.conformance import check_message
from tocengine.conformance import diagnosis as module
from tocengine.conformance.diagnosis import diagnosis

HL7 = "application/hl7-v2"
BODY = (
    b"MSH|^~\\&|REG|NORTH|TOC|HUB|20260301154102||ADT^A03^ADT_A03|77|P|2.5.1\rEVN||2026\r"
    b"PID|1||12^^^N^MR||SECRETNAME^ANN||19400102\rPV1|1|\rZPV|a\rQQQ|SECRETVALUE\r"
)


def test_the_structure_is_examined_with_the_library_of_the_field() -> None:
    found = diagnosis(HL7, BODY)
    assert "required by the standard (required) at PV1^1^2" in found
    assert any("QQQ" in finding for finding in found)
    assert "SECRET" not in " ".join(found)


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"MSH", b"MSH|^~\\&|" + b"x" * 1000, b"FHS|^~\\&|a\r"])
def test_what_is_no_message_is_a_finding_too(body: bytes) -> None:
    assert diagnosis(HL7, body)


def test_it_is_what_check_says_of_the_structure() -> None:
    report = check_message("", 1, BODY, ANYBODY, datetime.now(UTC))
    assert set(diagnosis(HL7, BODY)) <= {f"{each.text} ({each.rule}) at {each.location}" for each in report.findings}


def test_fhir_is_examined_with_its_models() -> None:
    (found,) = diagnosis("application/fhir+json", b'{"resourceType":"Patient"}')
    assert "Bundle.resourceType" in found


def test_other_content_has_no_diagnosis() -> None:
    assert diagnosis("application/octet-stream", b"x") == []


def test_a_message_that_takes_too_long_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(body: bytes) -> list[str]:
        time.sleep(1)
        return []

    monkeypatch.setattr(module, "_of_hl7v2", slow)
    assert diagnosis(HL7, BODY, 0.05) == ["the structure was not examined within 0.05 s"]
