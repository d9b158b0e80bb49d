"""Owns the reading of one encounter's story: its messages in the order they became known, what each changed, what was
told of it, and what was not and why. Read from the rows the stages left behind."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tocengine.encounters.edges import keys_of, moved_from, moved_to, rekeys
from tocengine.encounters.fold import fold
from tocengine.encounters.identity import Forest, Register
from tocengine.encounters.ownership import owned
from tocengine.encounters.postgres_identity import read_account_edges, read_families
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.formats.packing import unpack
from tocengine.model.event import Event, Processing
from tocengine.model.identity import VisitKey
from tocengine.model.ids import MessageId, PatientId
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


class Learned(msgspec.Struct, frozen=True):
    """An event and when the engine knew it; `of_person` where it was kept with a person, not with the visit."""

    at: datetime
    event: Event
    of_person: bool = False


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """An encounter and its timeline, oldest first. Names the visit and the patient: PHI."""

    encounter_id: str
    domain: str
    visit_number: str
    merged: tuple[str, ...]  # AUTHORITY|number of the visits that were merged into it
    patient: str  # AUTHORITY|number, of the surviving record
    facility: str
    feed: str
    state: str
    opened_at: datetime | None
    closed_at: datetime | None
    flags: tuple[str, ...]
    facts: tuple[str, ...]
    timeline: tuple[Moment, ...]


class Known(msgspec.Struct, frozen=True):
    """What a story is told with: the numbers a visit goes by, its own first, and who is who around it, as of now."""

    visits: tuple[VisitKey, ...]
    register: Register
    accounts: Forest

    @property
    def visit(self) -> VisitKey:
        """The number that survives."""
        return self.visits[0]

    def counting(self, learned: Iterable[Learned]) -> list[Event]:
        """The events that count of the visit, of those learned so far."""
        history: list[Event] = []
        statements: list[Event] = []
        for each in learned:
            (statements if each.of_person else history).append(each.event)
        return owned(self.visit, self.visits, history, statements, self.register, self.accounts).events


async def find_visits(connection: Transaction, number: str, domain: str) -> list[Row]:
    """The encounters with a visit number, of one assigning authority or of any (""). A number that was merged into
    another one leads to the visit that survives."""
    return [dict(row) for row in await connection.fetch(QUERIES["encounters_by_visit"], number, domain)]


async def read_story(connection: Transaction, found: Row) -> Story:
    """The story of an encounter that `find_visits` gave, with those of the visits that were merged into it."""

    async def rows(query: str, key: object) -> Sequence[Row]:
        return [dict(row) for row in await connection.fetch(QUERIES[query], key)]

    numbers = await rows("encounter_numbers", found["encounter_id"])
    visits = tuple(VisitKey(row["domain"], row["visit_number"]) for row in numbers)
    members = [row["encounter_id"] for row in numbers]
    history = [
        Learned(row["learned_at"], _decode_event(unpack(row["summary"])))
        for row in await rows("encounter_events", members)
    ]
    register, statements = await _people(connection, found["patient_id"], history)
    accounts = Forest(await read_account_edges(connection, (), [[said.event for said in statements]]))
    learned = sorted([*history, *statements], key=lambda each: each.at)
    body = _decode_body(unpack(found["body"]))
    lines = [
        *messages(Known(visits, register, accounts), learned),
        *(_held(row) for row in await rows("encounter_held", members)),
        *(_transition(row) for row in await rows("encounter_transitions", members)),
        *(_decision(row) for row in await rows("encounter_decisions", members)),
        *(_notice(row) for row in await rows("encounter_notices", members)),
    ]
    facts = (
        f"{entry.fact.kind} {entry.fact.effective.text}"
        + (f" (not told by itself: {entry.fact.covered_by})" if entry.fact.covered_by else "")
        for entry in body.announced
    )
    return Story(
        encounter_id=str(found["encounter_id"]),
        domain=visits[0].domain,
        visit_number=visits[0].value,
        merged=tuple(f"{visit.domain}|{visit.value}" for visit in visits[1:]),
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


async def read_bundles(connection: Transaction, found: Row) -> list[bytes]:
    """The Bundles of all events of an encounter that `find_visits` gave, oldest first."""
    numbers = await connection.fetch(QUERIES["encounter_numbers"], found["encounter_id"])
    rows = await connection.fetch(QUERIES["encounter_bundles"], [row["encounter_id"] for row in numbers])
    return [unpack(row["fhir"]) for row in rows]


async def _people(
    connection: Transaction, owner: PatientId, history: Iterable[Learned]
) -> tuple[Register, list[Learned]]:
    """Everybody whom a visit was ever filed under or its messages name, and what was said of them by itself."""
    ids = {owner, *(key.patient_id for each in history for key in keys_of(each.event))}
    while True:
        patients = await read_families(connection, ids)
        ids.update(patient.patient_id for patient in patients)
        rows = await connection.fetch(QUERIES["encounter_statements"], list(ids))
        said = [Learned(row["learned_at"], _decode_event(unpack(row["summary"])), of_person=True) for row in rows]
        moved = {key.patient_id for each in said for key in (*moved_from(each.event), *moved_to(each.event))}
        if moved <= ids:
            return Register(patients), said
        ids |= moved


def messages(known: Known, learned: Sequence[Learned]) -> Iterable[Moment]:
    """One line for each event that counts of the visit or says whose it is, in the order in which they became known,
    with what was known of the visit then."""
    counting = {(event.message_id, event.part) for event in known.counting(learned)}
    before, shown = Folded(visit=known.visit), set[tuple[MessageId, int]]()
    for number, each in enumerate(learned, 1):
        event = each.event
        identity = (event.message_id, event.part)
        if identity in shown or not (identity in counting or rekeys(event)):
            continue
        shown.add(identity)
        after = fold(known.visit, known.counting(learned[:number]))
        yield Moment(
            at=each.at,
            what="message",
            text=_said(event, known, before, after),
            state=after.state if after.state is not before.state else "",
            message_id=str(event.message_id),
            flags=tuple(sorted({*after.flags} - {*before.flags})),
        )
        before = after


def _said(event: Event, known: Known, before: Folded, after: Folded) -> str:
    parts = [f"{event.trigger} of {event.feed}, control id {event.control_id}, recorded {event.recorded.text}"]
    if event.effective is not None and event.effective.at != event.recorded.at:
        parts.append(f"effective {event.effective.text}")
    if event.processing is not Processing.PRODUCTION:
        parts.append(event.processing)
    if event.visit is None or event.merges:
        parts.append("of the person")
    elif event.visit != known.visit:
        parts.append(f"under {event.visit.value}" if event.visit in known.visits else "of another visit")
    if before.last is not None and event.order_key < before.last:
        parts.append("late: folded anew")
    if event.revision:
        parts.append(f"read again ({event.revision})")
    if event.released_at is not None:
        parts.append(f"held back until {event.released_at.isoformat(timespec='seconds')}")
    parts.append(f"{before.state} -> {after.state}" if before.state is not after.state else f"stays {after.state}")
    return ", ".join(parts)


def _held(row: Row) -> Moment:
    """What waits, readable or not: a row that is damaged stays until its window ends and it is set aside."""
    try:
        event = _decode_event(unpack(row["summary"]))
        said = f"{event.trigger} of {event.feed}, control id {event.control_id},"
    except (ValueError, msgspec.DecodeError):
        said = "a message whose stored event cannot be read"
    text = f"{said} waits until {row['release_at'].isoformat(timespec='seconds')}"
    return Moment(at=row["held_at"], what="held back", text=text, message_id=str(row["message_id"]))


def _transition(row: Row) -> Moment:
    text = f"{row['kind']} {row['status']}, effective {row['effective']}"
    if row["supersedes"]:
        text += f", supersedes {row['supersedes']}"
    return Moment(at=row["stored_at"], what="transition", text=text, message_id=str(row["message_id"]))


def _decision(row: Row) -> Moment:
    why = f"{row['reason']} ({row['evidence']})" if row["evidence"] else row["reason"]
    outcome = f"{row['status']}: notice {row['notice_id']}" if row["notice_id"] else f"not told: {why}"
    basis = ", ".join(row["basis"] or ()) or "no basis"
    text = f"{row['fact_kind']} no. {row['occurrence']} to {row['recipient_id'] or 'nobody'} ({basis}): {outcome}"
    return Moment(at=row["decided_at"], what="decision", text=text, message_id=str(row["message_id"]))


def _notice(row: Row) -> Moment:
    text = f"{row['notice_id']} to {row['recipient_id']}: {row['state']} {row['reason'] or ''}".rstrip()
    return Moment(at=row["ended_at"], what="notice", text=text)
