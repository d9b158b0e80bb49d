"""What a body is before any socket is involved: its id, what is wrong with it, and the answer."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.unit.adapters.fhir.bundles import Bundle, bundle, encoded, resource
from tocengine.adapters.fhir.request import answer_to, check_message, control_id, media_type_accepted, message_id
from tocengine.model.ids import FeedName, MessageId, derive
from tocengine.model.message import Disposition, Problem, Receipt

FEED = FeedName("valley-fhir")


def test_a_sound_notification_has_no_problem() -> None:
    for event in ("admit", "discharge", "transfer"):
        assert check_message(encoded(bundle(event))) is None


def _set(kind: str, **elements: Any) -> Callable[[Bundle], None]:
    return lambda message: resource(message, kind).update(elements)


def _drop(kind: str) -> Callable[[Bundle], None]:
    def change(message: Bundle) -> None:
        message["entry"] = [e for e in message["entry"] if e["resource"]["resourceType"] != kind]

    return change


def _nest(message: Bundle) -> None:
    inner: Bundle = {"url": "u"}
    for _ in range(70):
        inner = {"extension": [inner]}
    resource(message, "Patient")["extension"] = [inner]


@pytest.mark.parametrize(
    ("change", "reason", "location"),
    [
        (lambda m: m.update(resourceType="Patient"), "not_a_bundle", "Bundle.resourceType"),
        (lambda m: m.update(type="searchset"), "type_not_taken", "Bundle.type"),
        (lambda m: m.pop("timestamp"), "timestamp_missing", "Bundle.timestamp"),
        (lambda m: m.update(entry=[]), "no_entries", "Bundle.entry"),
        (lambda m: m["entry"].reverse(), "header_not_first", "Bundle.entry[0]"),
        (lambda m: m["entry"].append(m["entry"][0] | {"fullUrl": "urn:uuid:2"}), "several_headers", "Bundle.entry"),
        (lambda m: m["entry"].append(m["entry"][4]), "urls_not_unique", "Bundle.entry.fullUrl"),
        (lambda m: m["entry"].append({"fullUrl": "urn:uuid:9"}), "no_resource", "Bundle.entry[9].resource"),
        (_set("Encounter", status=["completed"]), "status_unknown", "Bundle.entry[1].resource.status"),
        (_set("MessageHeader", focus=[]), "focus_missing", "Bundle.entry[0].resource.focus"),
        (_drop("Encounter"), "focus_not_found", "Bundle.entry[0].resource.focus"),
        (
            _set("MessageHeader", focus=[{"reference": "urn:uuid:p"}]),
            "focus_not_an_encounter",
            "Bundle.entry[0].resource.focus",
        ),
        (_set("MessageHeader", response={}), "is_a_response", "Bundle.entry[0].resource.response"),
        (
            _set("MessageHeader", eventCoding={"system": "urn:other", "code": "x"}),
            "event_unknown",
            "Bundle.entry[0].resource.eventCoding.system",
        ),
        (_drop("Patient"), "patient_not_found", "Bundle.entry[1].resource.subject"),
        (_set("Encounter", **{"class": [{"code": "IMP"}]}), "fhir_r5", "Bundle.entry[1].resource.class"),
        (_set("Encounter", actualPeriod={"start": "2026-03-01"}), "fhir_r5", "Bundle.entry[1].resource.actualPeriod"),
        (_set("Encounter", admission={}), "fhir_r5", "Bundle.entry[1].resource.admission"),
        (_set("Encounter", status="completed"), "fhir_r5", "Bundle.entry[1].resource.status"),
        (_set("Encounter", status="gone"), "status_unknown", "Bundle.entry[1].resource.status"),
        (_set("Patient", birthDate=["1940"]), "not_r4", "Bundle.entry[2].resource.birthDate"),
        (_set("Patient", **{"mary o'neil": 1}), "not_r4", "Bundle.entry[2].resource.?"),
        (_set("Patient", photo=[{"url": ["x"]}]), "not_r4", "Bundle.entry[2].resource"),
        (_set("Patient", photo=[{"url": 0}]), "not_r4", "Bundle.entry[2].resource"),
        (_set("Practitioner", favourite="x"), "not_r4", "Bundle.entry[3].resource.favourite"),
        (_set("Location", resourceType="Coding"), "type_unknown", "Bundle.entry[6].resource.resourceType"),
        (_nest, "too_deep", ""),
    ],
)
def test_what_is_wrong_is_named_by_path(change: Callable[[Bundle], None], reason: str, location: str) -> None:
    message = bundle()
    change(message)
    error = check_message(encoded(message))
    assert error is not None
    assert (error.problem.reason, error.problem.location) == (reason, location)
    assert error.http_status == 400
    assert "NEIL" not in repr(error.problem).upper()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"MSH|^~\\&|", b'{"a":"\xff"}', b'{"id":"M\xfcller"}', b"[" * 5000])
def test_bodies_that_are_no_object_are_refused(body: bytes) -> None:
    error = check_message(body)
    assert error is not None
    assert error.http_status == 400
    assert control_id(body) == ""


def test_the_same_transmission_has_the_same_id_and_other_content_another() -> None:
    body = encoded(bundle())
    assert message_id(FEED, "c", body) == message_id(FEED, "c", body)
    others = [
        message_id(FEED, "d", body),
        message_id(FeedName("other"), "c", body),
        message_id(FEED, "c", encoded(bundle(status="in-progress"))),
    ]
    assert len({message_id(FEED, "c", body), *others}) == 4


def test_the_control_id_is_the_identifier_then_the_id() -> None:
    message = bundle()
    assert control_id(encoded(message)) == "b-1"
    message["identifier"] = {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:7"}
    assert control_id(encoded(message)) == "urn:uuid:7"


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("application/fhir+json", True),
        ("application/fhir+json; charset=UTF-8; fhirVersion=4.0", True),
        ("application/json", True),
        ("application/fhir+xml", False),
        ("text/plain", False),
        ("", False),
        ("application/fhir+json; charset=latin1", False),
        ("application/fhir+json; fhirVersion=5.0", False),
    ],
)
def test_media_types(header: str, accepted: bool) -> None:
    assert media_type_accepted(header) is accepted


PROBLEM = Problem(reason="visit_identifier_missing", text="No visit.", location="Bundle.entry[1]", code="required")


@pytest.mark.parametrize(
    ("disposition", "problem", "answered", "status", "severity"),
    [
        (Disposition.ACCEPTED, None, "202", 202, "information"),
        (Disposition.QUARANTINED, PROBLEM, "202", 202, "warning"),
        (Disposition.REFUSED, PROBLEM, "422", 422, "error"),
    ],
)
def test_answers(disposition: Disposition, problem: Problem | None, answered: str, status: int, severity: str) -> None:
    identity = MessageId(derive("test", "1"))
    answer = answer_to(Receipt(message_id=identity, disposition=disposition, problem=problem, answered=answered))
    (issue,) = orjson.loads(answer.body)["issue"]
    assert (answer.status, issue["severity"]) == (status, severity)
    assert str(identity) in issue["diagnostics"]
    assert issue.get("expression") == ([problem.location] if problem else None)
