"""Owns the form of a record: CloudEvents 1.0 around messages, events, quarantine and transitions, and their keys.

``toc.messages.v1`` is in binary mode (attributes as ``ce_*`` headers, the raw bytes as value), the others are
structured JSON (CloudEvents Kafka protocol binding 1.0.2, sections 3.2 and 3.3). Ids are derived from what the
record speaks of, so that a repeat is recognized by its id. FHIR is copied through as bytes, never decoded.
Keys and headers carry no PHI.
"""

import hmac
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from tocengine.errors import EventDataError
from tocengine.eventlog.topics import MAX_RECORD_BYTES, Topic
from tocengine.model.encounter import Snapshot, Transition
from tocengine.model.event import EventRecord
from tocengine.model.identity import PatientKey
from tocengine.model.ids import FacilityId, FeedName, MessageId
from tocengine.model.message import ContentType, Message, Problem, Quarantined
from tocengine.ports import LogRecord

SCHEMA_URN = "urn:tocengine:schema:"
STRUCTURED_HEADERS = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)

_MAX_TRANSITION_BYTES = MAX_RECORD_BYTES - 1024  # its key and the rest of the envelope
_CHART_LEFT_OUT = b'{"resourceType":"Bundle","type":"collection"}'
_encode = msgspec.json.Encoder().encode


class KeyHasher:
    """Turns a patient key, or a feed's name, into a record key: HMAC-SHA256 under the configured secret, 32 bytes.

    Without the secret nobody can tell from a key whose record it is, not even by trying every number.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the patient hash key needs at least 16 bytes")
        self._secret = secret

    def patient(self, key: PatientKey) -> bytes:
        """The key of everything about one patient; the unit separator keeps (A, B|C) and (A|B, C) apart."""
        return self._of(f"patient\x1f{key.domain}\x1f{key.value}")

    def feed(self, name: str) -> bytes:
        """The key of what is about no known patient."""
        return self._of(f"feed\x1f{name}")

    def _of(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode(), "sha256")


class CloudEventRecords:
    """Builds records; implements `ports.RecordBuilder` and `ports.TransitionRecords`."""

    def __init__(self, keys: KeyHasher) -> None:
        self._keys = keys
        self._feed_key = lru_cache(maxsize=1024)(keys.feed)

    def message(self, message: Message) -> LogRecord:
        """The raw bytes, for ``toc.messages.v1``, keyed by feed so that a feed can be read again in its order."""
        attributes: tuple[tuple[str, bytes], ...] = (
            ("ce_specversion", b"1.0"),
            ("ce_id", str(message.message_id).encode()),
            ("ce_source", _source(message.feed).encode()),
            ("ce_type", b"toc.message.v1"),
            ("ce_time", _time(message.received_at).encode()),
            ("ce_facility", message.facility.encode()),
            ("content-type", message.content_type.encode()),
        )
        return LogRecord(topic=Topic.MESSAGES, key=self._feed_key(message.feed), value=message.body, headers=attributes)

    def events(self, message: Message, records: Sequence[EventRecord]) -> list[LogRecord]:
        """One record per event, for ``toc.events.v1``, each keyed by its own patient."""
        return [self._event(message, record) for record in records]

    def _event(self, message: Message, record: EventRecord) -> LogRecord:
        event = record.summary
        opening = _opening(
            f"{event.message_id}.{event.part}.{event.revision}",
            _event_attributes(event.feed),
            _time(message.received_at),
        )
        patient = event.patient
        return LogRecord(
            topic=Topic.EVENTS,
            key=self._keys.patient(patient) if patient else self._feed_key(event.feed),
            value=b"".join((opening, b'{"summary":', _encode(event), b',"fhir":', memoryview(record.fhir), b"}}")),
            headers=STRUCTURED_HEADERS,
        )

    def quarantined(self, message: Message, problem: Problem, answered: str) -> LogRecord:
        """The raw bytes with the reason, for ``toc.quarantine.v1``; `answered` is the code or HTTP status given."""
        opening = _opening(str(message.message_id), _quarantine_attributes(message.feed), _time(message.received_at))
        data = _encode(Quarantined(message=message, problem=problem, answered=answered))
        return LogRecord(
            topic=Topic.QUARANTINE,
            key=self._feed_key(message.feed),
            value=b"".join((opening, data, b"}")),
            headers=STRUCTURED_HEADERS,
        )

    def transition(self, transition: Transition, snapshot: Snapshot, fhir: bytes) -> LogRecord:
        """What happened, for ``toc.transitions.v1``, keyed by the patient; `fhir` is the snapshot's chart.

        A chart no record takes is left out: an empty Bundle stands for it. Raises EventDataError where the summary
        alone is too large.
        """
        opening = _opening(
            str(transition.transition_id),
            _transition_attributes(snapshot.facility),
            _time(transition.received_at),
        )
        summary = b"".join(
            (opening, b'{"summary":{"transition":', _encode(transition), b',"snapshot":', _encode(snapshot), b"}")
        )
        if len(summary) + len(fhir) > _MAX_TRANSITION_BYTES:  # a chart grows with its visit: what happened goes first
            fhir = _CHART_LEFT_OUT
        if len(summary) + len(fhir) > _MAX_TRANSITION_BYTES:
            raise EventDataError(
                Problem(reason="record_too_large", text="What is known of the visit is too large", stage="track")
            )
        return LogRecord(
            topic=Topic.TRANSITIONS,
            key=self._keys.patient(snapshot.patient_key),
            value=b"".join((summary, b',"fhir":', fhir, b"}}")),
            headers=STRUCTURED_HEADERS,
        )


class TransitionSummary(msgspec.Struct, frozen=True):
    """`data.summary` of a ``toc.transitions.v1`` record."""

    transition: Transition
    snapshot: Snapshot


class TransitionRecord(msgspec.Struct, frozen=True):
    """`data` of a ``toc.transitions.v1`` record; `fhir` is the encounter's chart at that moment."""

    summary: TransitionSummary
    fhir: msgspec.Raw


class _EventEnvelope(msgspec.Struct, frozen=True):
    data: EventRecord


class _QuarantineEnvelope(msgspec.Struct, frozen=True):
    data: Quarantined


class _TransitionEnvelope(msgspec.Struct, frozen=True):
    data: TransitionRecord


_event_decoder = msgspec.json.Decoder(_EventEnvelope)
_quarantine_decoder = msgspec.json.Decoder(_QuarantineEnvelope)
_transition_decoder = msgspec.json.Decoder(_TransitionEnvelope)


class CloudEventReader:
    """Decodes records; implements `ports.RecordReader`. Raises EventDataError for a value this program cannot read."""

    def event(self, record: LogRecord) -> EventRecord:
        """Of a ``toc.events.v1`` record; the FHIR content stays undecoded, a view into the record's value."""
        try:
            return _event_decoder.decode(record.value).data
        except msgspec.MsgspecError as error:
            raise _undecodable() from error

    def message(self, record: LogRecord) -> Message:
        """Of a ``toc.messages.v1`` record. What its sender calls it and was told stands in the body and elsewhere."""
        attributes = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        try:
            return Message(
                message_id=MessageId(UUID(attributes["ce_id"])),
                feed=FeedName(unquote(attributes["ce_source"].removeprefix("/feeds/"))),
                facility=FacilityId(attributes["ce_facility"]),
                content_type=ContentType(attributes["content-type"]),
                control_id="",
                received_at=datetime.fromisoformat(attributes["ce_time"]),
                body=record.value,
            )
        except (KeyError, ValueError) as error:
            raise _undecodable() from error

    def quarantined(self, record: LogRecord) -> Quarantined:
        """Of a ``toc.quarantine.v1`` record."""
        try:
            return _quarantine_decoder.decode(record.value).data
        except msgspec.MsgspecError as error:
            raise _undecodable() from error

    def transition(self, record: LogRecord) -> TransitionRecord:
        """Of a ``toc.transitions.v1`` record."""
        try:
            return _transition_decoder.decode(record.value).data
        except msgspec.MsgspecError as error:
            raise _undecodable() from error


def _undecodable() -> EventDataError:
    return EventDataError(
        Problem(reason="record_undecodable", text="The record of the event log cannot be read", stage="track")
    )


def _opening(event_id: str, attributes: bytes, time: str) -> bytes:
    """Everything before the data. `event_id` and `time` hold no character that JSON would escape."""
    return b'{"specversion":"1.0","id":"%b","time":"%b",%b,"data":' % (
        event_id.encode(),
        time.encode(),
        attributes,
    )


@lru_cache(maxsize=1024)
def _event_attributes(feed: str) -> bytes:
    return _attributes(_source(feed), "toc.event.v1", Topic.EVENTS)


@lru_cache(maxsize=1024)
def _quarantine_attributes(feed: str) -> bytes:
    return _attributes(_source(feed), "toc.quarantined.v1", Topic.QUARANTINE)


@lru_cache(maxsize=1024)
def _transition_attributes(facility: str) -> bytes:
    return _attributes(f"/facilities/{quote(facility, safe='')}", "toc.transition.v1", Topic.TRANSITIONS)


def _attributes(source: str, event_type: str, topic: Topic) -> bytes:
    attributes = {
        "source": source,
        "type": event_type,
        "datacontenttype": "application/json",
        "dataschema": SCHEMA_URN + topic,
    }
    return _encode(attributes)[1:-1]


@lru_cache(maxsize=1024)
def _source(feed: str) -> str:
    return f"/feeds/{quote(feed, safe='')}"  # a URI reference (CloudEvents 1.0, attribute `source`)


def _time(at: datetime) -> str:
    text = at.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text
