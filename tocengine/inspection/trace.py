"""Owns the trace: one message's whole way through the engine, from the rows each stage left behind."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from tocengine.postgres import load_queries

QUERIES = load_queries(__package__)
Row = dict[str, object]


class Trace(msgspec.Struct, kw_only=True):
    """Rows by stage, in path order; every list may be empty. Holds ids, codes and times, no PHI."""

    messages: list[Row]
    quarantine: list[Row]
    encounters: list[Row]
    transitions: list[Row]
    decisions: list[Row]
    notices: list[Row]
    attempts: list[Row]
    audit: list[Row]

    @property
    def found(self) -> bool:
        """Whether the engine knows the message at all."""
        return bool(self.messages or self.quarantine)


async def trace(pool: "asyncpg.Pool[asyncpg.Record]", wanted: str) -> Trace:
    """The way of the message that `wanted` names: a message id, a notice id, or ``FEED:CONTROL_ID``.

    A control id that was used more than once gives the newest message.
    """
    messages = await _messages(pool, wanted)
    quarantine = await _quarantined(pool, wanted)
    message_id = messages[0]["message_id"] if messages else quarantine[0]["message_id"] if quarantine else None
    messages = [row for row in messages if row["message_id"] == message_id]
    quarantine = [row for row in quarantine if row["message_id"] == message_id]
    decisions = await _rows(pool, "decisions_of_message", message_id)
    transitions = await _rows(pool, "transitions_of_message", message_id)
    notice_ids = [row["notice_id"] for row in decisions if row["notice_id"]]
    concerned = [row["encounter_id"] for row in (*messages, *transitions, *decisions) if row["encounter_id"]]
    return Trace(
        messages=messages,
        quarantine=quarantine,
        encounters=await _rows(
            pool, "encounter_states", [row["encounter_id"] for row in messages if row["encounter_id"]]
        ),
        transitions=transitions,
        decisions=decisions,
        notices=await _rows(pool, "notices", notice_ids),
        attempts=await _rows(pool, "attempts", notice_ids),
        audit=[_with_detail(row) for row in await _rows(pool, "audit_of_message", message_id, notice_ids, concerned)],
    )


async def _messages(pool: "asyncpg.Pool[asyncpg.Record]", wanted: str) -> list[Row]:
    if identifier := _uuid(wanted):
        return await _rows(pool, "messages_by_id", identifier) or await _rows(pool, "messages_by_notice", identifier)
    feed, _, control_id = wanted.partition(":")
    return await _rows(pool, "messages_by_control_id", feed, control_id)


async def _quarantined(pool: "asyncpg.Pool[asyncpg.Record]", wanted: str) -> list[Row]:
    if identifier := _uuid(wanted):
        return await _rows(pool, "quarantined", identifier)
    feed, _, control_id = wanted.partition(":")
    return await _rows(pool, "quarantined_by_control_id", feed, control_id)


async def _rows(pool: "asyncpg.Pool[asyncpg.Record]", query: str, *arguments: object) -> list[Row]:
    return [dict(row) for row in await pool.fetch(QUERIES[query], *arguments)]


def _with_detail(row: Row) -> Row:
    detail = row["detail"]
    assert isinstance(detail, bytes)
    return {**row, "detail": msgspec.json.decode(detail)}


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def timeline(found: Trace) -> Sequence[tuple[object, str, str]]:
    """The trace as (when, stage, what), oldest first, for a person to read."""
    lines: list[tuple[object, str, str]] = []
    for row in found.messages:
        what = f"{row['trigger'] or 'message'} on {row['feed']}, control id {row['control_id']}"
        lines.append((row["received_at"], "received", what))
        lines.append((row["tracked_at"], "tracked", f"answered {row['answered']}, {row['disposition']}"))
    for row in found.quarantine:
        lines.append((row["received_at"], "set aside", f"{row['reason']} at {row['location'] or '-'}: {row['text']}"))
    for row in found.transitions:
        lines.append((row["created_at"], "transition", f"{row['kind']} {row['status']}, effective {row['effective']}"))
    for row in found.decisions:
        why = f"{row['reason']} ({row['evidence']})" if row["evidence"] else row["reason"]
        outcome = f"notice {row['notice_id']}" if row["notice_id"] else f"not told: {why}"
        basis = ", ".join(map(str, row["basis"] or ())) or "no basis"  # type: ignore[call-overload]
        lines.append((row["decided_at"], "decided", f"{row['recipient_id'] or 'nobody'} ({basis}): {outcome}"))
    for row in found.attempts:
        lines.append((row["started_at"], "attempt", f"{row['endpoint_id']} no. {row['number']}: {_outcome(row)}"))
    for row in found.notices:
        if row["ended_at"]:
            lines.append(
                (row["ended_at"], "notice", f"{row['recipient_id']}: {row['state']} {row['reason'] or ''}".rstrip())
            )
    return sorted(lines, key=lambda line: str(line[0]))


def _outcome(row: Row) -> str:
    status = f" (HTTP {row['status']})" if row["status"] else ""
    return f"{row['outcome'] or 'open'}{status} {row['detail'] or ''}".rstrip()
