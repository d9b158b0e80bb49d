"""Whatever a FHIR sender posts is taken, set aside or refused with an outcome that names a place and repeats no value;
and of whatever is taken every notice can be rendered."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.adt import source
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tests.unit.adapters.fhir.bundles import Bundle, bundle, coded, encoded, resource
from tests.unit.adapters.fhir.written import document, notification, transaction
from tocengine.adapters.fhir.request import check_message, refusal
from tocengine.delivery.channels.webhook import render_notice
from tocengine.errors import RefusedError
from tocengine.formats.fhir.chart import overlay
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.json_body import BodyLimits
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.validity import assert_valid
from tocengine.model.directory import Level
from tocengine.model.encounter import EncounterState
from tocengine.model.event import EventRecord
from tocengine.model.facts import EncounterFacts, PatientFacts
from tocengine.model.ids import MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.resources import schema

SECRET = "MARY ONEIL 4321"
LIMITS = BodyLimits(depth=24, entries=60)
SOURCE = source()
NORMALIZER = FhirNormalizer(SOURCE)
WEBHOOK = jsonschema_rs.validator_for(json.loads(schema("webhook-notice.v1")), validate_formats=True)
RECEIVED = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
WHOLE_BODY = {"not_json", "not_an_object", "too_deep"}
"""Refusals of a body in which no place can be named."""


def rich() -> Bundle:
    """A discharge that says something of everything a notice shows."""
    sent = bundle(
        serviceType=coded("http://snomed.info/sct", "394802001"),
        priority=coded("http://terminology.hl7.org/CodeSystem/v3-ActPriority", "EM"),
        reasonCode=[{"coding": [{"system": "http://snomed.info/sct", "code": "29857009"}], "text": "Chest pain"}],
        diagnosis=[
            {"condition": {"reference": "urn:uuid:dx"}, "use": coded("http://example.org/use", "AD"), "rank": 1}
        ],
        classHistory=[{"class": {"code": "EMER"}, "period": {"start": "2026-02-26T08:00:00-05:00"}}],
    )
    visit, patient = resource(sent, "Encounter"), resource(sent, "Patient")
    consulting = [coded("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "CON")]
    visit["participant"].append({"type": consulting, "individual": {"reference": "urn:uuid:pcp"}})
    visit["hospitalization"]["admitSource"] = coded("http://terminology.hl7.org/CodeSystem/admit-source", "emd")
    patient |= {
        "telecom": [{"system": "phone", "use": "home", "value": "315-555-0111", "rank": 1}],
        "address": [{"id": "a1", "use": "home", "line": ["4 PINE ST"], "city": "UTICA", "period": {"start": "2020"}}],
        "maritalStatus": coded("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "M"),
        "contact": [{"name": {"family": "VOSS"}, "relationship": [{"text": "Spouse"}], "telecom": [{"value": "555"}]}],
        "deceasedBoolean": False,
        "communication": [{"language": coded("urn:ietf:bcp:47", "en"), "preferred": True}],
        "extension": [{"url": "http://example.org/race", "valueString": "x"}],
    }
    patient["name"][0] |= {"prefix": ["MS"], "period": {"end": "2030-01"}}
    more: list[Bundle] = [
        {
            "resourceType": "AllergyIntolerance",
            "id": "al",
            "clinicalStatus": coded("http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active"),
            "type": "allergy",
            "category": ["medication"],
            "criticality": "high",
            "code": {"text": "Penicillin"},
            "patient": {"reference": "urn:uuid:p"},
            "onsetDateTime": "2020",
            "reaction": [{"manifestation": [{"text": "Rash"}], "severity": "mild", "onset": "2020-01-01"}],
            "note": [{"text": "asked"}],
        },
        {
            "resourceType": "Coverage",
            "id": "cov",
            "status": "active",
            "type": {"text": "Medicare"},
            "subscriberId": "M1",
            "beneficiary": {"reference": "urn:uuid:p"},
            "period": {"start": "2025-01-01"},
            "payor": [{"reference": "urn:uuid:practice"}],
            "class": [{"type": {"text": "group"}, "value": "G"}],
        },
        {
            "resourceType": "RelatedPerson",
            "id": "kin",
            "active": True,
            "patient": {"reference": "urn:uuid:p"},
            "relationship": [{"text": "Son"}],
            "name": [{"family": "VOSS", "given": ["PETER"]}],
            "telecom": [{"system": "phone", "value": "315-555-0199"}],
        },
        {
            "resourceType": "DocumentReference",
            "id": "doc",
            "status": "current",
            "type": {"text": "Discharge summary"},
            "subject": {"reference": "urn:uuid:p"},
            "date": "2026-03-01T15:38:00Z",
            "content": [
                {"attachment": {"contentType": "text/plain", "data": "aGVsbG8=", "title": "Summary"}},
                {"attachment": {"contentType": "application/pdf", "url": "https://ehr.example.org/d/1", "size": 9}},
            ],
        },
    ]
    sent["entry"] += [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in more]
    return sent


ARRIVAL = bundle("admit", "in-progress", "EMER")
SENT = [rich(), ARRIVAL, transaction(rich(), "PUT"), document(rich()), notification(rich())]
AWKWARD: st.SearchStrategy[Any] = st.sampled_from(
    [
        "", " ", '""', "\x00", "a\x00b", "\b", "\u00a0", "\u2028", "  two  blanks ", "A\tB\nC", SECRET,
        SECRET.encode().hex(), "2026", "2026-02-30", "2026-13-01", "2026-03-01T10:00:00", "2026-03-01T24:00:00Z",
        "2026-03-01T10:00:00.5+14:00",
        "0000", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "urn:uuid:p", "urn:uuid:e", "Patient/p", "#x",
        "http://a b", "urn:oid:2.16", "EMER", "IMP", "AMB", "finished", "in-progress", "male", "x" * 300, "=", "1e400",
        0, -1, 7, 2**63, 1.5, True, False, None, [], {}, [[]], [{}], [None], ["", "a"], {"a": SECRET}, {"text": " "},
        {"reference": SECRET}, {"reference": "urn:uuid:p"}, {"coding": [{}]}, {"coding": [{"code": "a b  c"}]},
        {"start": "2026-05-01", "end": "2026-01-01"}, {"value": SECRET}, {"system": " ", "value": "1"},
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    ["id", "value", "system", "code", "text", "display", "use", "reference", "extension", "_value", "period", "meta",
     "identifier", "name", "contained", "status", "class", "type", "start", "end", "given", "family", "resourceType",
     "a b", "", "rank", "language", "data", "url", "content", "entry", "deceasedDateTime", "deceasedBoolean"]
)  # fmt: skip
JSON = st.recursive(
    AWKWARD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)


def _places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [where] if where else []
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        found += _places(inner, (*where, name))
    return found


@st.composite
def posted(draw: st.DrawFn) -> bytes:
    """A message of a sender with up to three things in it that are not as they should be."""
    sent: Any = copy.deepcopy(draw(st.sampled_from(SENT)))
    for _ in range(draw(st.integers(0, 3))):
        places = _places(sent)
        *way, last = places[draw(st.integers(0, len(places) - 1))]
        inner = sent
        for part in way:
            inner = inner[part]
        match draw(st.sampled_from(["put", "take", "add"])):
            case "put":
                inner[last] = copy.deepcopy(draw(JSON))  # what is changed later is not what is drawn again
            case "take":
                del inner[last]
            case "add" if isinstance(inner, list):
                inner.insert(draw(st.integers(0, len(inner))), copy.deepcopy(draw(JSON)))
            case "add":
                inner[draw(NAMES)] = copy.deepcopy(draw(JSON))
    return encoded(sent)


def taken(body: bytes) -> list[EventRecord]:
    """The events of a body; none where it is refused or set aside, which is told without its content."""
    error = check_message(body, LIMITS)
    found: list[EventRecord] = []
    if error is None:
        message = Message(
            message_id=MessageId(derive("message", body)),
            feed=SOURCE.feed,
            facility=SOURCE.facility.id,
            content_type=ContentType.FHIR,
            control_id="b-1",
            received_at=RECEIVED,
            body=body,
        )
        try:
            found = list(NORMALIZER.normalize(message))
        except RefusedError as refused:
            error = refused
    if error is not None:
        answer = refusal((error.problem, *error.others), error.http_status)
        assert answer.status in (400, 422, 202) or error.problem.reason == "resources_not_sent"
        issues = orjson.loads(answer.body)["issue"]
        for problem, issue in zip((error.problem, *error.others), issues, strict=True):
            assert issue.get("expression") or problem.reason in WHOLE_BODY
        for secret in (SECRET, "NEIL", "0012345", "V500", "1940-01-02", "PINE ST", "PENICILLIN", SECRET.encode().hex()):
            assert secret not in answer.body.decode().upper()
    return found


def deliverable(record: EventRecord) -> None:
    """Every level of a notice about an event renders, over both channels, and is valid."""
    event = record.summary
    if not (isinstance(event.patient_facts, PatientFacts) and isinstance(event.encounter_facts, EncounterFacts)):
        return
    chart = overlay([bytes(record.fhir)], [event.cleared])
    for level in Level:
        for state in (EncounterState.DISCHARGED, EncounterState.INPATIENT):
            told, tracked = notice(event, level=level), snapshot(event, state)
            made = render_notification(told, tracked, chart, SUNNYSIDE, URL, ENGINE)
            assert check_bundle(orjson.loads(made)) == []
            assert_valid(made)
            shown = render_notice(told, tracked, chart, SUNNYSIDE, ENGINE.facilities)
            assert [error.instance_path for error in WEBHOOK.iter_errors(orjson.loads(shown))] == []


def test_the_messages_that_are_changed_here_are_taken_and_told() -> None:
    for sent in SENT:
        records = taken(encoded(sent))
        assert records, sent["type"]
        for record in records:
            deliverable(record)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(posted())
def test_whatever_is_posted_is_answered_and_what_is_taken_can_be_told(body: bytes) -> None:
    for record in taken(body):
        deliverable(record)


@settings(deadline=None)
@given(JSON.map(orjson.dumps) | st.binary(max_size=60) | st.dictionaries(NAMES, JSON, max_size=6).map(orjson.dumps))
def test_any_json_and_any_bytes_are_answered(body: bytes) -> None:
    assert taken(body) == []
