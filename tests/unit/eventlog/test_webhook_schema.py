"""The published schema of the webhook notice: takes what the contract shows, refuses what it forbids."""

import json
from typing import Any

import jsonschema_rs
import pytest

from tocengine.resources import schema

validator = jsonschema_rs.validator_for(json.loads(schema("webhook-notice.v1")), validate_formats=True)


def notice(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "notice_id": "55555555-5555-8555-8555-555555555555",
        "status": "NEW",
        "kind": "INPATIENT_DISCHARGE",
        "supersedes": None,
        "basis": ["DESTINATION"],
        "level": "COP_MIN",
        "late": False,
        "effective_at": "2026-03-01T15:35:00-05:00",
        "recorded_at": "2026-03-01",
        "received_at": "2026-03-01T20:41:05Z",
        "from": {"facility": "north", "name": "North Hospital", "npi": None},
        "to": {"facility": "lakeside", "name": "Lakeside Rehab"},
        "patient": {"name": {"family": "ÅBERG", "given": ["LIV"]}},
        "encounter": {"treating": None},
        "not_supplied": ["treating"],
        "flags": [],
        "source": {"feed": "north-adt", "control_id": "C-1", "message_id": "11111111-1111-8111-8111-111111111111"},
    }
    data |= changes
    return {
        "type": "notice.inpatient_discharge",
        "timestamp": "2026-03-01T20:41:06Z",
        "data": {name: value for name, value in data.items() if value is not ...},
    }


def test_a_notice_is_taken() -> None:
    validator.validate(notice())


def test_a_retraction_without_patient_and_encounter_is_taken() -> None:
    validator.validate(notice(status="RETRACTED", patient=..., encounter=..., not_supplied=..., flags=...))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "RETRACTED"},  # says something of the patient
        {"patient": ...},
        {"status": "GONE"},
        {"effective_at": "yesterday"},
        {"notice_id": "17"},
        {"basis": ["CURIOSITY"]},
        {"source": {"feed": "north-adt"}},
    ],
)
def test_what_the_contract_forbids_is_refused(changes: dict[str, Any]) -> None:
    assert not validator.is_valid(notice(**changes))
