"""Seeded defects in a good bundle: each is found, named, and keeps the bundle from leaving."""

from collections.abc import Callable
from datetime import date
from typing import Any

import orjson
import pytest

from tests.fixtures.adt import movement, normalized
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tocengine.errors import InvalidBundleError
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.schema import validator
from tocengine.formats.fhir.validity import assert_valid

RECORD = normalized(movement("A03", {36: "03"}, "DG1|1||I50.9^Heart failure^I10|||F"))
GOOD = render_notification(notice(RECORD.summary), snapshot(RECORD.summary), bytes(RECORD.fhir), SUNNYSIDE, URL, ENGINE)
Bundle = dict[str, Any]


def _resource(bundle: Bundle, kind: str) -> Bundle:
    found: Bundle = next(each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == kind)
    return found


def test_a_good_bundle_has_no_finding() -> None:
    assert check_bundle(orjson.loads(GOOD)) == []
    assert_valid(GOOD)


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
    "blank": lambda each: _resource(each, "Organization").update(name=" \n"),
    "control character": lambda each: _resource(each, "Encounter").update({"class": {"code": "I\x01"}}),
    "29 February": lambda each: _resource(each, "Patient").update(birthDate="1900-02-29"),
    "no number": lambda each: _resource(each, "Encounter").update(length={"value": "3"}),
    "unknown resource": lambda each: _resource(each, "Encounter").update(resourceType="Account"),
    "no resource type": lambda each: _resource(each, "Encounter").pop("resourceType"),
    "unknown element": lambda each: _resource(each, "Encounter").update(admission={}),
    "same fullUrl": lambda each: each["entry"].append(each["entry"][-1]),
    "no focus": lambda each: _resource(each, "MessageHeader").pop("focus"),
    "no timestamp": lambda each: each.pop("timestamp"),
    "two patients": lambda each: each["entry"].append(
        {"fullUrl": "urn:uuid:2", "resource": {"resourceType": "Patient", "id": "2"}}
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_and_keeps_the_bundle_from_leaving(name: str) -> None:
    bundle = orjson.loads(GOOD)
    DEFECTS[name](bundle)
    findings = check_bundle(bundle)
    assert findings
    assert all(each.path.startswith("Bundle") and each.rule for each in findings)
    with pytest.raises(InvalidBundleError):
        assert_valid(orjson.dumps(bundle))


def test_a_finding_names_its_place_and_rule() -> None:
    bundle = orjson.loads(GOOD)
    place = next(at for at, each in enumerate(bundle["entry"]) if each["resource"]["resourceType"] == "Patient")
    for name in ("gender", "two deaths", "empty list"):
        DEFECTS[name](bundle)
    path = f"Bundle.entry[{place}].resource"
    assert {(each.path, each.rule) for each in check_bundle(bundle)} == {
        (f"{path}.gender", "not one of the codes"),
        (f"{path}.deceasedBoolean", "more than one of a choice"),
        (f"{path}.deceasedDateTime", "more than one of a choice"),
        (f"{path}.name", "empty"),
    }


@pytest.mark.parametrize("year", [1, 4, 100, 400, 1899, 1900, 1904, 2000, 2023, 2024])
def test_the_schema_knows_the_calendar(year: int) -> None:
    for month in range(14):
        for day in range(33):
            try:
                stated = date(year, month, day).isoformat()
                exists = True
            except ValueError:
                stated = f"{year:04d}-{month:02d}-{day:02d}"
                exists = False
            patient = {"resourceType": "Patient", "birthDate": stated, "deceasedDateTime": f"{stated}T00:00:00Z"}
            bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient}]}
            assert validator().is_valid(bundle) is exists, stated
