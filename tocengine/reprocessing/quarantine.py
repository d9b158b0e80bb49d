"""Owns what a person does with messages that were set aside: read one again, or decide that it stays out.

Both are on record in the audit log, in the transaction that does it, and the work item closes with the last message
that failed alike.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from tocengine.errors import EventDataError, RefusedError
from tocengine.eventlog import Topic
from tocengine.eventlog.records import CloudEventReader
from tocengine.formats.hl7v2.batch import is_batch
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.event import EventRecord
from tocengine.model.ids import FacilityId, FeedName, MessageId
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.work import WorkKind, quarantine_subject
from tocengine.ports import AuditTrail, ClosableWorkItems, LogRecord, MessageScanner, Transaction
from tocengine.reprocessing.comparison import Held, Renormalized
from tocengine.reprocessing.lookup import find
from tocengine.reprocessing.postgres import SQL, Reprocessor, Request, held

PORTION = 100
TRACK, FRAMING = "track", "framing"
Readmit = Callable[[Message], tuple[Message, RefusedError | None]]
"""Passes a message through the gate of its listener again: whose it is now, and why it is refused, if it is."""

_reader = CloudEventReader()


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one message: the revisions of its events, or why it stays where it is."""

    message_id: MessageId
    feed: str
    revisions: Sequence[int] = ()
    problem: Problem | None = None


class Quarantine:
    """What was set aside, for commands."""

    def __init__(
        self,
        reprocessor: Reprocessor,
        scanner: MessageScanner,
        readmit: Readmit,
        audit: AuditTrail,
        work_items: ClosableWorkItems,
    ) -> None:
        self._reprocessor, self._scanner, self._readmit = reprocessor, scanner, readmit
        self._audit, self._work_items = audit, work_items

    async def retry(self, message_ids: Sequence[MessageId], request: Request) -> list[Retried]:
        """Reads open messages again, as the feed reads them now; what is no longer open is passed over.

        Raises UnavailableError; what was done until then stays done.
        """
        done: list[Retried] = []
        for start in range(0, len(message_ids), PORTION):
            done += await self._retry(message_ids[start : start + PORTION], request)
        return done

    async def _retry(self, message_ids: Sequence[MessageId], request: Request) -> list[Retried]:
        pool = self._reprocessor.pool
        tracked = await pool.fetch(SQL["quarantine_tracked"], list(message_ids))
        raw = await find(self._scanner, {row["message_id"]: row["received_at"] for row in tracked})
        async with pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(SQL["quarantine_take"], list(message_ids))
            outcomes = await self._read(connection, rows, raw)
            await self._reprocessor.keep(connection, [each for each in outcomes if each.records], request)
            await self._settle(connection, rows, outcomes, request)
        return [
            Retried(
                message_id=outcome.message.message_id,
                feed=outcome.message.feed,
                revisions=[record.summary.revision for record in outcome.records],
                problem=outcome.problem,
            )
            for outcome in outcomes
        ]

    async def _read(
        self, transaction: Transaction, rows: Sequence[asyncpg.Record], raw: Mapping[MessageId, Message]
    ) -> list[Renormalized]:
        """One outcome for each row, in their order."""
        stopped: dict[MessageId, Renormalized] = {}
        readable: list[Message] = []
        for row in rows:
            message, problem = self._message(row, raw)
            if problem is None:
                readable.append(message)
            else:
                stopped[message.message_id] = Renormalized(message=message, problem=problem)
        again = {each.message.message_id: each for each in await self._reprocessor.compare(transaction, readable)}
        lost = [row for row in rows if row["stage"] == TRACK and row["message_id"] not in raw]
        stopped.update(await self._as_they_were(transaction, lost))
        return [{**again, **stopped}[row["message_id"]] for row in rows]

    def _message(self, row: asyncpg.Record, raw: Mapping[MessageId, Message]) -> tuple[Message, Problem | None]:
        if row["stage"] == TRACK:
            found = raw.get(row["message_id"])
            return (found, None) if found else (_stored(row), _stays("message_missing", "It is no longer in the log"))
        message = _stored(row)
        if row["stage"] == FRAMING:
            return message, _stays(row["reason"], "What came is no whole message; its sender sends it again")
        if is_batch(message.body):
            return message, _stays(row["reason"], "A batch is taken whole or not at all; its sender sends it again")
        message, refusal = self._readmit(message)
        return message, refusal.problem if refusal else None

    async def _as_they_were(
        self, transaction: Transaction, rows: Sequence[asyncpg.Record]
    ) -> dict[MessageId, Renormalized]:
        """Events whose message the log no longer holds: the event that was set aside, with the next revision."""
        known = await held(transaction, [row["message_id"] for row in rows])
        found: dict[MessageId, Renormalized] = {}
        for row in rows:
            message, has = _stored(row), known.get(row["message_id"], Held())
            try:
                record = _reader.event(LogRecord(topic=Topic.EVENTS, key=b"", value=row["body"]))
            except EventDataError as error:
                found[message.message_id] = Renormalized(message=message, problem=error.problem)
                continue
            revision = max(has.revision or 0, record.summary.revision) + 1
            summary = msgspec.structs.replace(record.summary, revision=revision)
            found[message.message_id] = Renormalized(
                message=message, records=[EventRecord(summary=summary, fhir=record.fhir)]
            )
        return found

    async def _settle(
        self,
        transaction: Transaction,
        rows: Sequence[asyncpg.Record],
        outcomes: Sequence[Renormalized],
        request: Request,
    ) -> None:
        done = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.problem is None]
        failed = [each for each in outcomes if each.problem is not None]
        await transaction.execute(
            SQL["quarantine_retried"],
            [row["message_id"] for row in done],
            request.at,
            request.by,
            "normalized again",
        )
        problems = [each.problem for each in failed if each.problem is not None]
        await transaction.execute(
            SQL["quarantine_failed"],
            [each.message.message_id for each in failed],
            [problem.reason for problem in problems],
            [problem.location for problem in problems],
            [problem.code for problem in problems],
            [problem.text for problem in problems],
        )
        await self._audit.record(
            transaction,
            [_audit(AuditAction.QUARANTINE_RETRIED, row, request.by, request.at, _became(outcome))
             for row, outcome in zip(rows, outcomes, strict=True)],
        )  # fmt: skip
        await self._close(transaction, rows, request.by, request.at)

    async def discard(self, message_ids: Sequence[MessageId], reason: str, by: str, now: datetime) -> int:
        """Decides that open messages stay out, for `reason` (no patient data); returns how many those were."""
        async with self._reprocessor.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(SQL["quarantine_discard"], list(message_ids), now, by, reason)
            detail: dict[str, object] = {"resolution": reason}
            await self._audit.record(
                connection, [_audit(AuditAction.QUARANTINE_DISCARDED, row, by, now, detail) for row in rows]
            )
            await self._close(connection, rows, by, now)
        return len(rows)

    async def _close(self, transaction: Transaction, rows: Sequence[asyncpg.Record], by: str, now: datetime) -> None:
        """Closes the work items of what is no longer open."""
        kinds = sorted({(row["feed"], row["reason"], row["location"]) for row in rows if row["stage"] != TRACK})
        columns = [list(column) for column in zip(*kinds, strict=True)] or [[], [], []]
        left = {tuple(row) for row in await transaction.fetch(SQL["still_open"], *columns)}
        tracked = [row["message_id"] for row in rows if row["stage"] == TRACK]
        open_still = {row["message_id"] for row in await transaction.fetch(SQL["quarantine_tracked"], tracked)}
        for kind, subjects in (
            (WorkKind.MESSAGE_QUARANTINED, [quarantine_subject(*each) for each in kinds if each not in left]),
            (WorkKind.EVENT_SET_ASIDE, [str(each) for each in tracked if each not in open_still]),
        ):
            await self._work_items.close_subjects(transaction, kind, subjects, by, "settled in the quarantine", now)


def _became(outcome: Renormalized) -> dict[str, object]:
    if outcome.problem is not None:
        return {"failed": outcome.problem.reason, "at": outcome.problem.location}
    return {"revisions": [record.summary.revision for record in outcome.records]}


def _audit(action: AuditAction, row: asyncpg.Record, by: str, now: datetime, more: Mapping[str, object]) -> AuditRecord:
    detail = {"feed": row["feed"], "stage": row["stage"], "reason": row["reason"], **more}
    return AuditRecord(action=action, at=now, actor=by, message_id=row["message_id"], detail=detail)


def _stays(reason: str, text: str) -> Problem:
    return Problem(reason=reason, text=text)


def _stored(row: asyncpg.Record) -> Message:
    """The message a row keeps; of one set aside by tracking the body is its event."""
    kind = row["content_type"]
    return Message(
        message_id=MessageId(row["message_id"]),
        feed=FeedName(row["feed"]),
        facility=FacilityId(""),  # of its feed: `Readmit` says whose
        content_type=ContentType(kind) if kind in tuple(ContentType) else ContentType.HL7V2,
        control_id=row["control_id"],
        received_at=row["received_at"],
        body=row["body"],
    )


async def listing(
    pool: "asyncpg.Pool[asyncpg.Record]", feed: str | None, reason: str | None, state: str | None, limit: int
) -> list[dict[str, object]]:
    """The newest rows, without their content."""
    return [dict(row) for row in await pool.fetch(SQL["quarantine_list"], feed, reason, state, limit)]


async def show(
    pool: "asyncpg.Pool[asyncpg.Record]", audit: AuditTrail, message_id: UUID, by: str, now: datetime
) -> dict[str, object] | None:
    """One row with its bytes and the events it became; that somebody looked is on record. None where there is none."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(SQL["quarantine_show"], message_id)
        if row is None:
            return None
        lineage = [dict(each) for each in await connection.fetch(SQL["lineage"], message_id)]
        detail: dict[str, object] = {"what": "quarantine", "feed": row["feed"]}
        record = AuditRecord(
            action=AuditAction.RECORD_VIEWED, at=now, actor=by, message_id=MessageId(message_id), detail=detail
        )
        await audit.record(connection, [record])
    return {**dict(row), "lineage": lineage}
