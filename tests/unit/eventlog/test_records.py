"""What a record looks like from outside: CloudEvents that validate, keys that tell nothing, FHIR left as it was."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import jsonschema_rs
import msgspec
import pytest
import yaml

from tocengine.errors import EventDataError
from tocengine.eventlog import schemas
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.eventlog.topics import MAX_RECORD_BYTES, TOPIC_GROUPS, TOPIC_NUMBERS, Topic
from tocengine.model.encounter import EncounterState, Snapshot, Transition, TransitionKind, TransitionStatus
from tocengine.model.event import Event, EventRecord
from tocengine.model.facts import EncounterFacts, PatientClass, PatientFacts, PersonName
from tocengine.model.identity import Identifier, PatientKey, VisitKey
from tocengine.model.ids import EncounterId, FacilityId, FeedName, MessageId, SnapshotId, TransitionId
from tocengine.model.message import ContentType, Message, Problem, Quarantined
from tocengine.model.time import Timestamp
from tocengine.ports import LogRecord, RecordBuilder, RecordReader, TransitionRecords
from tocengine.resources import schema, schemas_folder

NOW = datetime(2026, 3, 1, 20, 41, 5, 123000, tzinfo=UTC)
MESSAGE_ID = MessageId(UUID("11111111-1111-8111-8111-111111111111"))
PATIENT = PatientKey("NORTH", "0099887")
STATED = Timestamp(text="2026-03-01T15:35:00-05:00", at=NOW)
FHIR = b'{"resourceType": "Bundle",\n "type": "collection", "entry": [{"x": "\\u00e9"}]}'
MESSAGE = Message(
    message_id=MESSAGE_ID,
    feed=FeedName('north "adt"/ä'),
    facility=FacilityId("north"),
    content_type=ContentType.HL7V2,
    control_id="C-1",
    received_at=NOW,
    body=b"MSH|^~\\&|\xff\x00",
)
EVENT = Event(
    message_id=MESSAGE_ID,
    feed=MESSAGE.feed,
    facility=MESSAGE.facility,
    content_type=ContentType.HL7V2,
    trigger="A03",
    control_id="C-1",
    message_day="2026-03-01",
    received_at=NOW,
    recorded=STATED,
    effective=STATED,
    patient=PATIENT,
    visit=VisitKey("NORTH", "V7"),
    patient_facts=PatientFacts(
        identifiers=(Identifier("NORTH", "0099887", "MR"),), names=(PersonName("ÅBERG", ("LIV",)),), birth_date=None
    ),
    encounter_facts=EncounterFacts(patient_class=PatientClass.INPATIENT),
)
TRANSITION = Transition(
    transition_id=TransitionId(UUID("22222222-2222-8222-8222-222222222222")),
    encounter_id=EncounterId(UUID("33333333-3333-8333-8333-333333333333")),
    kind=TransitionKind.INPATIENT_DISCHARGE,
    status=TransitionStatus.NEW,
    fact_kind=TransitionKind.INPATIENT_DISCHARGE,
    occurrence=1,
    watched=b"\x01\xff",
    snapshot_id=SnapshotId(UUID("44444444-4444-8444-8444-444444444444")),
    message_id=MESSAGE_ID,
    effective=STATED,
    recorded=STATED,
    received_at=NOW,
)
SNAPSHOT = Snapshot(
    snapshot_id=SnapshotId(UUID("44444444-4444-8444-8444-444444444444")),
    encounter_id=TRANSITION.encounter_id,
    feed=MESSAGE.feed,
    facility=MESSAGE.facility,
    state=EncounterState.DISCHARGED,
    patient_key=PATIENT,
    visit=VisitKey("NORTH", "V7"),
    patient=PatientFacts(names=(PersonName("ÅBERG", ("LIV",)),)),
    encounter=EncounterFacts(patient_class=PatientClass.INPATIENT),
    trigger="A03",
    control_id="C-1",
    message_id=MESSAGE_ID,
    received_at=NOW,
)
PROBLEM = Problem(reason="required_field_missing", text="PV1-19 is empty", location="PV1^1^19", code="101")

builder = CloudEventRecords(KeyHasher(b"sixteen bytes and more"))
reader = CloudEventReader()


def for_the_door() -> RecordBuilder:
    """Fails type checking where the builder is not what the ports ask for; so do the two below."""
    return builder


def for_the_tracker() -> TransitionRecords:
    return builder


def for_the_router() -> RecordReader:
    return reader


def event_record() -> LogRecord:
    return builder.events(MESSAGE, [EventRecord(summary=EVENT, fhir=msgspec.Raw(FHIR))])[0]


STRUCTURED = [
    (Topic.EVENTS, event_record()),
    (Topic.QUARANTINE, builder.quarantined(MESSAGE, PROBLEM, "AE")),
    (Topic.TRANSITIONS, builder.transition(TRANSITION, SNAPSHOT, FHIR)),
]


@pytest.mark.parametrize(("topic", "record"), STRUCTURED)
def test_structured_records_validate_against_their_schema(topic: Topic, record: LogRecord) -> None:
    validator = jsonschema_rs.validator_for(json.loads(schema(topic)), validate_formats=True)
    value = json.loads(record.value)
    validator.validate(value)
    assert record.topic == topic
    assert not validator.is_valid(value | {"type": "something.else"})
    assert not validator.is_valid({name: member for name, member in value.items() if name != "data"})


@pytest.mark.parametrize(("topic", "record"), STRUCTURED)
def test_structured_records_say_what_they_are(topic: Topic, record: LogRecord) -> None:
    assert dict(record.headers) == {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    assert json.loads(record.value)["dataschema"] == f"urn:tocengine:schema:{topic}"


def test_a_message_is_binary_mode_with_its_own_bytes() -> None:
    record = builder.message(MESSAGE)
    headers = dict(record.headers)
    assert record.value == MESSAGE.body
    assert headers["content-type"] == b"application/hl7-v2"
    assert headers["ce_id"] == str(MESSAGE_ID).encode()
    assert headers["ce_time"] == b"2026-03-01T20:41:05.123000Z"


def test_an_event_comes_back_as_it_was_and_its_fhir_byte_for_byte() -> None:
    read = reader.event(event_record())
    assert read.summary == EVENT
    assert bytes(read.fhir) == FHIR


def test_a_quarantined_message_comes_back_as_it_was() -> None:
    record = builder.quarantined(MESSAGE, PROBLEM, "AE")
    assert reader.quarantined(record) == Quarantined(message=MESSAGE, problem=PROBLEM, answered="AE")
    assert base64.b64decode(json.loads(record.value)["data"]["message"]["body"]) == MESSAGE.body


def test_a_transition_comes_back_as_it_was() -> None:
    read = reader.transition(builder.transition(TRANSITION, SNAPSHOT, FHIR))
    assert (read.summary.transition, read.summary.snapshot, bytes(read.fhir)) == (TRANSITION, SNAPSHOT, FHIR)


def test_a_chart_no_record_takes_is_left_out_and_what_happened_is_not() -> None:
    read = reader.transition(builder.transition(TRANSITION, SNAPSHOT, b" " * MAX_RECORD_BYTES))
    assert (read.summary.transition, read.summary.snapshot) == (TRANSITION, SNAPSHOT)
    assert json.loads(bytes(read.fhir)) == {"resourceType": "Bundle", "type": "collection"}


def test_a_summary_no_record_takes_is_a_data_error() -> None:
    endless = msgspec.structs.replace(SNAPSHOT, control_id="9" * MAX_RECORD_BYTES)
    with pytest.raises(EventDataError, match="record_too_large"):
        builder.transition(TRANSITION, endless, FHIR)


def test_the_same_message_gives_the_same_ids_and_each_part_its_own() -> None:
    second = msgspec.structs.replace(EVENT, part=1)
    records = [EventRecord(summary=each, fhir=msgspec.Raw(FHIR)) for each in (EVENT, second)]
    ids = [json.loads(record.value)["id"] for record in builder.events(MESSAGE, records)]
    assert ids == [json.loads(record.value)["id"] for record in builder.events(MESSAGE, records)]
    assert len(set(ids)) == 2


def test_an_event_without_a_patient_is_keyed_by_its_feed() -> None:
    nobody = EventRecord(summary=msgspec.structs.replace(EVENT, patient=None), fhir=msgspec.Raw(b"{}"))
    assert builder.events(MESSAGE, [nobody])[0].key == builder.message(MESSAGE).key


def test_one_patient_has_one_key_and_the_key_tells_nothing() -> None:
    key = event_record().key
    assert key == builder.transition(TRANSITION, SNAPSHOT, FHIR).key
    assert len(key) == 32
    other_secret = CloudEventRecords(KeyHasher(b"another secret, also long"))
    assert other_secret.transition(TRANSITION, SNAPSHOT, FHIR).key != key


def test_keys_keep_domain_and_value_apart() -> None:
    keys = KeyHasher(b"sixteen bytes and more")
    texts = [PatientKey("A", "BC"), PatientKey("AB", "C"), PatientKey("ABC", "")]
    assert len({keys.patient(each) for each in texts} | {keys.feed("ABC")}) == 4


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        KeyHasher(b"short")


@pytest.mark.parametrize("value", [b"", b"{}", b"not json", b'{"data":{"summary":{},"fhir":{}}}'])
def test_what_cannot_be_read_is_a_data_error_without_content(value: bytes) -> None:
    record = LogRecord(topic=Topic.EVENTS, key=b"", value=value)
    with pytest.raises(EventDataError, match="record_undecodable"):
        reader.event(record)
    with pytest.raises(EventDataError):
        reader.quarantined(record)


def test_headers_and_keys_carry_no_phi() -> None:
    records = [builder.message(MESSAGE), *(record for _, record in STRUCTURED)]
    for record in records:
        seen = record.key + b"".join(value for _, value in record.headers)
        assert not any(secret in seen for secret in (b"0099887", b"BERG", b"V7"))


def test_the_schemas_in_the_checkout_are_those_of_the_types() -> None:
    for name, built in schemas.build().items():
        assert schema(name).decode() == schemas.as_text(built), "run: python -m tocengine.eventlog.schemas"


def test_every_schema_is_a_valid_schema() -> None:
    for path in sorted(Path(str(schemas_folder())).glob("*.json")):
        content = json.loads(path.read_bytes())
        jsonschema_rs.meta.validate(content)
        assert content["$id"] == f"urn:tocengine:schema:{path.stem}"


def test_asyncapi_names_every_topic_and_only_files_that_exist() -> None:
    document = yaml.safe_load(schemas_folder().joinpath("asyncapi.yaml").read_text(encoding="utf-8"))
    assert {channel["address"] for channel in document["channels"].values()} == set(Topic)
    for message in document["components"]["messages"].values():
        reference = message["payload"].get("$ref")
        assert reference is None or schemas_folder().joinpath(reference).is_file()


def test_every_topic_has_a_number_and_an_appender() -> None:
    assert set(TOPIC_NUMBERS) == set(TOPIC_GROUPS) == set(Topic)
    assert len(set(TOPIC_NUMBERS.values())) == len(Topic)
