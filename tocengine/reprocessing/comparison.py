"""Owns what is new in a message that was normalized again: its events against those the engine holds. Pure.

An event that says what the stored one says is left alone; another goes into the log with the next revision and there
replaces it. A message that cannot be read any more keeps the event it has.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from tocengine.encounters.steps import settled
from tocengine.errors import RefusedError
from tocengine.model.event import Event, EventRecord
from tocengine.model.message import Message, Problem
from tocengine.ports import Normalizer

CONTRADICTS = "patient_contradicts_visit"
"""What tracking notes on an event of another patient than its visit's, whose patient data it then leaves out."""

_encode = msgspec.json.Encoder().encode


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine has of a message: its newest event by part, and what the next one has to go on with."""

    revision: int | None = None  # the highest one known or on its way; None where nothing is known
    control_id: str = ""
    answered: str = ""
    events: Mapping[int, tuple[Event, bytes]] = msgspec.field(default_factory=dict)
    unhandled: bool = False  # stored and not handled: nothing to compare with
    pending: Mapping[int, bytes] = msgspec.field(default_factory=dict)  # digests of events on their way, by part
    discarded: bool = False  # a person decided that it stays out


class Renormalized(msgspec.Struct, frozen=True, kw_only=True):
    """What came of normalizing a message again: events to log, or why it cannot be read, or neither."""

    message: Message
    records: Sequence[EventRecord] = ()
    problem: Problem | None = None


def renormalize(message: Message, normalizer: Normalizer) -> tuple[Sequence[EventRecord], Problem | None]:
    """The events of `message` as it is read now, or what prevents it."""
    try:
        return normalizer.normalize(message), None
    except RefusedError as error:
        return (), error.problem
    except Exception as error:  # a defect of ours stops neither the other messages nor the command
        text = f"The engine failed to read it: {type(error).__name__}"
        return (), Problem(reason="internal", text=text, code="207")


def news(message: Message, records: Sequence[EventRecord], held: Held) -> Renormalized:
    """What of `records` is to be logged, with the next revision. One that was discarded stays out."""
    if held.discarded:
        return Renormalized(message=message)
    revision = 1 if held.revision is None else held.revision + 1
    changed = [record for record in records if not _stands(record, held)]
    made = [
        EventRecord(
            summary=msgspec.structs.replace(record.summary, revision=revision, answered=held.answered),
            fhir=record.fhir,
        )
        for record in changed
    ]
    return Renormalized(message=message, records=made)


def digest(record: EventRecord) -> bytes:
    """What an event says, whatever its revision and answer."""
    said = _encode(_said(record.summary))
    return hashlib.sha256(len(said).to_bytes(4, "big") + said + bytes(record.fhir)).digest()


def _stands(record: EventRecord, held: Held) -> bool:
    part = record.summary.part
    if part in held.pending:
        return held.pending[part] == digest(record)
    if part not in held.events:
        return held.unhandled and not record.summary.handled
    event, fhir = held.events[part]
    fresh = settled(record.summary)
    if CONTRADICTS in event.flags:
        fresh = msgspec.structs.replace(fresh, patient_facts=UNSET, flags=(*fresh.flags, CONTRADICTS))
    return _said(event) == _said(fresh) and fhir == bytes(record.fhir)


def _said(event: Event) -> Event:
    return msgspec.structs.replace(event, revision=0, answered="", released_at=None)
