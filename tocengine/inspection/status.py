"""Owns the status: counts by stage that tell at a glance whether anything is stuck, lost or late."""

from datetime import datetime

import asyncpg
import msgspec

from tocengine.postgres import load_queries

QUERIES = load_queries(__package__)
Row = dict[str, object]


class Status(msgspec.Struct, kw_only=True):
    """Counts since the database was made, by stage."""

    messages: list[Row]  # by feed and disposition
    quarantine: list[Row]  # open, by feed and reason
    transitions: list[Row]  # by kind and status
    notices: list[Row]  # by recipient and state
    unsent: list[Row]  # decisions not to send, by reason
    attempts: list[Row]  # by outcome
    outbox: int
    work_items: int
    endpoints_stopped: int
    oldest_open_notice: datetime | None

    def total(self, part: str) -> int:
        """The sum of one part's counts."""
        return sum(int(str(row["count"])) for row in getattr(self, part))


async def status(pool: "asyncpg.Pool[asyncpg.Record]") -> Status:
    """Reads all counts in one snapshot of the database."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        parts = {
            part: [dict(row) for row in await connection.fetch(QUERIES[f"status_{part}"])]
            for part in ("messages", "quarantine", "transitions", "notices", "unsent", "attempts")
        }
        open_work = await connection.fetchrow(QUERIES["status_open"])
    return msgspec.convert({**parts, **dict(open_work or {})}, Status)
