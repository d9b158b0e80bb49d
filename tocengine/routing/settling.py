"""Owns what a batch puts right: messages that had been set aside and are tracked now, codes nobody waits for any more.

Work items close in the transaction that takes their cause away.
"""

from collections.abc import Sequence
from datetime import datetime

from tocengine.model.codes import NotedCodes, subject_of
from tocengine.model.event import Event
from tocengine.model.work import WorkKind, quarantine_subject
from tocengine.ports import ClosableWorkItems, CodeUse, Transaction
from tocengine.routing.postgres import QUERIES

ENGINE = "tocengine"


async def settle(
    transaction: Transaction, events: Sequence[Event], codes: CodeUse, work_items: ClosableWorkItems, now: datetime
) -> NotedCodes:
    """Closes what `events`, which were tracked in this transaction, put right; returns what they say about codes."""
    await _settle_quarantine(transaction, events, work_items, now)
    if not any(event.unmapped or event.revision for event in events):
        return NotedCodes()
    noted = await codes.note(transaction, events, now)
    if noted.settled:
        subjects = [subject_of(key) for key in noted.settled]
        await work_items.close_subjects(
            transaction, WorkKind.CODE_UNMAPPED, subjects, ENGINE, "every message that waited was normalized again", now
        )
    return noted


async def _settle_quarantine(
    transaction: Transaction, events: Sequence[Event], work_items: ClosableWorkItems, now: datetime
) -> None:
    waiting = await transaction.fetch(QUERIES["set_aside"], [event.message_id for event in events])
    if not waiting:  # as a rule; what was seen of a message is looked for on every day there is a partition of
        return
    rows = await transaction.fetch(QUERIES["settle_quarantine"], [row["message_id"] for row in waiting], now)
    tracked = [str(row["message_id"]) for row in rows if row["stage"] == "track"]
    if tracked:
        await work_items.close_subjects(
            transaction, WorkKind.EVENT_SET_ASIDE, tracked, ENGINE, "the event was tracked", now
        )
    kinds = {(row["feed"], row["reason"], row["location"]) for row in rows if row["stage"] != "track"}
    if kinds:
        columns = [list(column) for column in zip(*sorted(kinds), strict=True)]
        left = {tuple(row) for row in await transaction.fetch(QUERIES["still_quarantined"], *columns)}
        await work_items.close_subjects(
            transaction,
            WorkKind.MESSAGE_QUARANTINED,
            [quarantine_subject(*kind) for kind in sorted(kinds - left)],
            ENGINE,
            "every message was received again and read",
            now,
        )
