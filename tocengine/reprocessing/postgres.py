"""Owns the SQL of reprocessing: what is held of messages, and the events that wait to replace it.

Which message became which event, and at whose request, is kept in the transaction that decides it. The events go into
the log from there (`eventlog.relay.RENORMALIZED`), so that an interruption at any point loses and repeats nothing.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from tocengine.eventlog.relay import outbox_row
from tocengine.formats.hl7v2.ack import read_sent
from tocengine.formats.packing import unpack
from tocengine.model.event import Event
from tocengine.model.ids import MessageId
from tocengine.model.message import MAX_CONTROL_ID, ContentType, Message
from tocengine.ports import Normalizer, RecordBuilder, Transaction
from tocengine.postgres import Pool, load_queries
from tocengine.reprocessing.comparison import Held, Renormalized, digest, news, renormalize

SQL = load_queries(__package__)
_decode_event = msgspec.json.Decoder(Event).decode


class Cause(StrEnum):
    """What asked for messages to be normalized again."""

    QUARANTINE = "QUARANTINE"
    REPLAY = "REPLAY"
    CODES = "CODES"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One run: who asked for it, and when. Its events and what they led to are found by its id."""

    run_id: UUID
    cause: Cause
    by: str
    at: datetime


class Tally(msgspec.Struct, kw_only=True):
    """What a run came to, in messages; `events` counts the events that were logged."""

    messages: int = 0
    changed: int = 0
    unchanged: int = 0
    unreadable: int = 0  # what they are known to say stays as it is
    ignored: int = 0  # of a type that their feed stores and does not read
    missing: int = 0  # no longer in the event log
    events: int = 0

    def leave_out(self, count: int) -> None:
        """Counts messages that are not read at all."""
        self.messages += count
        self.ignored += count

    def add(self, outcomes: Sequence[Renormalized]) -> None:
        """Counts what came of a portion."""
        self.messages += len(outcomes)
        self.changed += sum(bool(outcome.records) for outcome in outcomes)
        self.unreadable += sum(outcome.problem is not None for outcome in outcomes)
        self.unchanged = self.messages - self.changed - self.unreadable - self.ignored
        self.events += sum(len(outcome.records) for outcome in outcomes)


class Reprocessor:
    """Normalizes messages again and keeps what is new in them for the log."""

    def __init__(self, pool: Pool, normalizer: Normalizer, records: RecordBuilder) -> None:
        self.pool, self.normalizer, self._records = pool, normalizer, records

    async def apply(
        self, messages: Sequence[Message], request: Request, *, dry_run: bool = False
    ) -> list[Renormalized]:
        """What came of each; all of it is kept, or with `dry_run` nothing. Safe to repeat after an interruption."""
        if not messages:
            return []
        async with self.pool.acquire() as connection, connection.transaction():
            outcomes = await self.compare(connection, messages)
            if not dry_run:
                await self.keep(connection, outcomes, request)
        return outcomes

    async def compare(self, transaction: Transaction, messages: Sequence[Message]) -> list[Renormalized]:
        """What is new in each message; until the transaction ends nobody else decides about revisions."""
        await transaction.execute(SQL["lock"])
        known = await held(transaction, [message.message_id for message in messages])
        outcomes = []
        for message in messages:
            has = known.get(message.message_id, Held())
            named = _named(message, has)
            records, problem = renormalize(named, self.normalizer)
            if problem is not None:
                outcomes.append(Renormalized(message=named, problem=problem))
            else:
                outcomes.append(news(named, records, has))
            await asyncio.sleep(0)  # a listener of this process answers in between
        return outcomes

    async def keep(self, transaction: Transaction, outcomes: Sequence[Renormalized], request: Request) -> None:
        """Keeps the events with their lineage until they are published."""
        made = [
            (record, outbox_row(logged))
            for outcome in outcomes
            for record, logged in zip(
                outcome.records, self._records.events(outcome.message, outcome.records), strict=True
            )
        ]
        if made:
            await transaction.execute(
                SQL["keep_renormalized"],
                [record.summary.message_id for record, _ in made],
                [record.summary.part for record, _ in made],
                [record.summary.revision for record, _ in made],
                [digest(record) for record, _ in made],
                *(list(column) for column in zip(*(row for _, row in made), strict=True)),
                request.run_id,
                request.cause.value,
                request.by,
                request.at,
            )


def _named(message: Message, has: Held) -> Message:
    """With what its sender calls it, which the log of messages does not say."""
    control_id = message.control_id or has.control_id
    if not control_id and message.content_type is ContentType.HL7V2:
        control_id = read_sent(message.body).control_id.decode("utf-8", "replace")[:MAX_CONTROL_ID]
    return msgspec.structs.replace(message, control_id=control_id)


async def held(transaction: Transaction, message_ids: Collection[MessageId]) -> Mapping[MessageId, Held]:
    """What the engine has of these messages, events on their way included."""
    ids = list(message_ids)
    seen = {row["message_id"]: row for row in await transaction.fetch(SQL["held"], ids)}
    revisions: dict[UUID, int] = {message_id: row["revision"] for message_id, row in seen.items()}
    pending: dict[UUID, dict[int, bytes]] = {}
    for row in await transaction.fetch(SQL["under_way"], ids):
        message_id = row["message_id"]
        revisions[message_id] = max(revisions.get(message_id, row["revision"]), row["revision"])
        if not row["tracked"]:
            pending.setdefault(message_id, {})[row["part"]] = row["digest"]
    events: dict[UUID, dict[int, tuple[Event, bytes]]] = {}
    for row in await transaction.fetch(SQL["events_held"], ids):
        events.setdefault(row["message_id"], {})[row["part"]] = (
            _decode_event(unpack(row["summary"])),
            unpack(row["fhir"]),
        )
    return {
        MessageId(message_id): Held(
            revision=revision,
            control_id=seen[message_id]["control_id"] if message_id in seen else "",
            answered=seen[message_id]["answered"] if message_id in seen else "",
            events=events.get(message_id, {}),
            unhandled=message_id in seen and seen[message_id]["unhandled"],
            pending=pending.get(message_id, {}),
            discarded=message_id in seen and seen[message_id]["discarded"],
        )
        for message_id, revision in revisions.items()
    }


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What routing made of a run: `untracked` events it has not come to yet."""

    untracked: int
    transitions: Sequence[dict[str, object]]
    notices: Sequence[dict[str, object]]
    untold: Sequence[dict[str, object]]


async def result_of(pool: Pool, request: Request) -> Result:
    """What is known so far."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        untracked = await connection.fetchval(SQL["untracked"], request.run_id)
        transitions = await connection.fetch(SQL["resulting_transitions"], request.run_id, request.at)
        decisions = await connection.fetch(SQL["resulting_decisions"], request.run_id, request.at)
    return Result(
        untracked=untracked,
        transitions=[dict(row) for row in transitions],
        notices=[{"status": row["outcome"], "count": row["count"]} for row in decisions if row["notice"]],
        untold=[{"reason": row["outcome"], "count": row["count"]} for row in decisions if not row["notice"]],
    )
