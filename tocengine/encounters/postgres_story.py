"""Owns the reading of one encounter's story: its messages in the order they became known, what each changed, what was
told of it, and what was not and why. Read from the rows the stages left behind."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tocengine.encounters.fold import fold
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.formats.packing import unpack
from tocengine.model.event import Event, Processing
from tocengine.model.identity import VisitKey
from tocengine.ports import Transaction
from tocengine.postgres import load_queries

QUERIES = load_queries(__package__)
ORDER = ("held back", "message", "transition", "decision", "notice")
"""Of what became known at the same moment."""
Row = Mapping[str, Any]

_decode_event = msgspec.json.Decoder(Event).decode
_decode_body = msgspec.json.Decoder(EncounterBody).decode


class Moment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the timeline. `at` is when the engine knew it; `state` the one it led to, where it changed one."""

    at: datetime
    what: str  # message | held back | transition | decision | notice
    text: str
    state: str = ""
    message_id: str = ""
    flags: tuple[str, ...] = ()


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """An encounter and its timeline, oldest first. Names the visit and the patient: PHI."""

    encounter_id: str
    domain: str
    visit_number: str
    patient: str  # AUTHORITY|number, of the surviving record
    facility: str
    feed: str
    state: str
    opened_at: datetime | None
    closed_at: datetime | None
    flags: tuple[str, ...]
    facts: tuple[str, ...]
    timeline: tuple[Moment, ...]


async def find_visits(connection: Transaction, number: str, domain: str) -> list[Row]:
    """The encounters with a visit number, of one assigning authority or of any ("")."""
    return [dict(row) for row in await connection.fetch(QUERIES["encounters_by_visit"], number, domain)]


async def read_story(connection: Transaction, found: Row) -> Story:
    """The story of an encounter that `find_visits` gave."""
    encounter_id = found["encounter_id"]

    async def rows(query: str) -> Sequence[Row]:
        return [dict(row) for row in await connection.fetch(QUERIES[query], encounter_id)]

    body = _decode_body(unpack(found["body"]))
    visit = VisitKey(str(found["domain"]), str(found["visit_number"]))
    events = await rows("encounter_events")
    lines = [
        *messages(visit, [(row["learned_at"], _decode_event(unpack(row["summary"]))) for row in events]),
        *(_held(row) for row in await rows("encounter_held")),
        *(_transition(row) for row in await rows("encounter_transitions")),
        *(_decision(row) for row in await rows("encounter_decisions")),
        *(_notice(row) for row in await rows("encounter_notices")),
    ]
    facts = (
        f"{entry.fact.kind} {entry.fact.effective.text}"
        + (f" (not told by itself: {entry.fact.covered_by})" if entry.fact.covered_by else "")
        for entry in body.announced
    )
    return Story(
        encounter_id=str(encounter_id),
        domain=visit.domain,
        visit_number=visit.value,
        patient=f"{found['patient_domain']}|{found['patient_value']}",
        facility=str(found["facility"]),
        feed=str(found["feed"]),
        state=str(found["state"]),
        opened_at=found["opened_at"],
        closed_at=found["closed_at"],
        flags=body.folded.flags,
        facts=tuple(facts),
        timeline=tuple(sorted(lines, key=lambda line: (line.at, ORDER.index(line.what)))),
    )


def messages(visit: VisitKey, learned: Sequence[tuple[datetime, Event]]) -> Iterable[Moment]:
    """One line for each event, in the order in which they became known, with what was known of the visit then."""
    known: list[Event] = []
    before = Folded(visit=visit)
    for learned_at, event in learned:
        known.append(event)
        after = fold(visit, known)
        yield Moment(
            at=learned_at,
            what="message",
            text=_said(event, visit, before, after),
            state=after.state if after.state is not before.state else "",
            message_id=str(event.message_id),
            flags=tuple(sorted({*after.flags} - {*before.flags})),
        )
        before = after


def _said(event: Event, visit: VisitKey, before: Folded, after: Folded) -> str:
    parts = [f"{event.trigger} of {event.feed}, control id {event.control_id}, recorded {event.recorded.text}"]
    if event.effective is not None and event.effective.at != event.recorded.at:
        parts.append(f"effective {event.effective.text}")
    if event.processing is not Processing.PRODUCTION:
        parts.append(event.processing)
    if event.visit != visit:
        parts.append("of another visit" if event.visit else "of the person")
    if before.last is not None and event.order_key < before.last:
        parts.append("late: folded anew")
    if event.revision:
        parts.append(f"read again ({event.revision})")
    if event.released_at is not None:
        parts.append(f"held back until {event.released_at.isoformat(timespec='seconds')}")
    parts.append(f"{before.state} -> {after.state}" if before.state is not after.state else f"stays {after.state}")
    return ", ".join(parts)


def _held(row: Row) -> Moment:
    event = _decode_event(unpack(row["summary"]))
    release = row["release_at"].isoformat(timespec="seconds")
    text = f"{event.trigger} of {event.feed}, control id {event.control_id}, waits until {release}"
    return Moment(at=row["held_at"], what="held back", text=text, message_id=str(event.message_id))


def _transition(row: Row) -> Moment:
    text = f"{row['kind']} {row['status']}, effective {row['effective']}"
    if row["supersedes"]:
        text += f", supersedes {row['supersedes']}"
    return Moment(at=row["stored_at"], what="transition", text=text, message_id=str(row["message_id"]))


def _decision(row: Row) -> Moment:
    outcome = f"{row['status']}: notice {row['notice_id']}" if row["notice_id"] else f"not told: {row['reason']}"
    basis = ", ".join(row["basis"] or ()) or "no basis"
    text = f"{row['fact_kind']} no. {row['occurrence']} to {row['recipient_id'] or 'nobody'} ({basis}): {outcome}"
    return Moment(at=row["decided_at"], what="decision", text=text, message_id=str(row["message_id"]))


def _notice(row: Row) -> Moment:
    text = f"{row['notice_id']} to {row['recipient_id']}: {row['state']} {row['reason'] or ''}".rstrip()
    return Moment(at=row["ended_at"], what="notice", text=text)
