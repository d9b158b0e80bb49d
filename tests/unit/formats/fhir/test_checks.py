"""Seeded defects in a good bundle: each is found by the checks or the schema."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.fixtures.adt import movement, normalized
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.schema import validator

RECORD = normalized(movement("A03", {36: "03"}, "DG1|1||I50.9^Heart failure^I10|||F"))
GOOD = render_notification(notice(RECORD.summary), snapshot(RECORD.summary), bytes(RECORD.fhir), SUNNYSIDE, URL, ENGINE)
Bundle = dict[str, Any]


def _resource(bundle: Bundle, kind: str) -> Bundle:
    found: Bundle = next(each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == kind)
    return found


def test_a_good_bundle_has_no_finding() -> None:
    assert check_bundle(orjson.loads(GOOD)) == []
    assert validator().is_valid(orjson.loads(GOOD))


DEFECTS: dict[str, Callable[[Bundle], object]] = {
    "gender": lambda each: _resource(each, "Patient").update(gender="F"),
    "status": lambda each: _resource(each, "Encounter").update(status="discharged"),
    "no status": lambda each: _resource(each, "Encounter").pop("status"),
    "impossible date": lambda each: _resource(each, "Patient").update(birthDate="1951-02-30"),
    "no such month": lambda each: _resource(each, "Patient").update(birthDate="1951-13"),
    "two deaths": lambda each: _resource(each, "Patient").update(deceasedBoolean=True, deceasedDateTime="2026"),
    "dangling reference": lambda each: _resource(each, "Encounter").update(subject={"reference": "urn:uuid:x"}),
    "no header": lambda each: each["entry"].pop(0),
    "header second": lambda each: each["entry"].reverse(),
    "empty string": lambda each: _resource(each, "Organization").update(name=""),
    "null": lambda each: _resource(each, "Organization").update(name=None),
    "empty list": lambda each: _resource(each, "Patient").update(name=[]),
    "two double quotes": lambda each: _resource(each, "Organization").update(name='""'),
    "true as text": lambda each: _resource(each, "Organization").update(active="true"),
    "naive time": lambda each: _resource(each, "Encounter").update(period={"start": "2026-03-01T10:00:00"}),
    "unknown element": lambda each: _resource(each, "Encounter").update(admission={}),
    "same fullUrl": lambda each: each["entry"].append(each["entry"][-1]),
    "no focus": lambda each: _resource(each, "MessageHeader").pop("focus"),
    "no timestamp": lambda each: each.pop("timestamp"),
    "two patients": lambda each: each["entry"].append(
        {"fullUrl": "urn:uuid:2", "resource": {"resourceType": "Patient", "id": "2"}}
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name: str) -> None:
    bundle = orjson.loads(GOOD)
    DEFECTS[name](bundle)
    assert check_bundle(bundle) or not validator().is_valid(bundle)
