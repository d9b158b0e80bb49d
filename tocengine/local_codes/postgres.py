"""Owns local codes in PostgreSQL: which codes messages lack, what codes were said to mean and by whom, read live.

A code is never guessed. A message that has an unknown one is tracked with what is known, noted here, and normalized
again when the code is mapped.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from tocengine.model.codes import CodeKey, NotedCodes
from tocengine.model.event import Event, Processing
from tocengine.model.ids import FeedName, MessageId
from tocengine.ports import Transaction
from tocengine.postgres import Pool, load_queries, unavailable_errors

QUERIES = load_queries(__package__)
LocalCodes = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Feed -> table -> code -> meaning."""


class CodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A code of a feed: how many messages had it while it was unknown, and how many still wait for its meaning."""

    feed: str
    table_name: str
    code: str
    meaning: str | None
    messages: int
    waiting: int
    first_seen: datetime | None
    last_seen: datetime | None


class PostgresLocalCodes:
    """Implements `ports.CodeUse`, and what commands need besides."""

    async def note(self, transaction: Transaction, events: Sequence[Event], now: datetime) -> NotedCodes:
        """Keeps which messages lack a code. A later revision that lacks it no longer settles what waited."""
        told = [event for event in events if event.processing is not Processing.TEST]
        again = [event for event in told if event.revision]
        first = [event for event in told if event.unmapped and not event.revision]
        unknown = await self._unknown(transaction, first, again=False)
        if not again:
            return NotedCodes(unknown)
        settled = await self._settled(transaction, again, now)
        for key, count in (await self._unknown(transaction, again, again=True)).items():
            unknown[key] = unknown.get(key, 0) + count
        return NotedCodes(unknown, settled)

    async def _unknown(self, transaction: Transaction, events: Sequence[Event], *, again: bool) -> dict[CodeKey, int]:
        """The messages that newly lack a code, by code; with `again` one that was settled may lack it anew."""
        lacking = [(event, code) for event in events for code in event.unmapped]
        if not lacking:
            return {}
        rows = await transaction.fetch(
            QUERIES["note_unmapped"],
            [event.feed for event, _ in lacking],
            [code.table for _, code in lacking],
            [code.code for _, code in lacking],
            [event.message_id for event, _ in lacking],
            [event.received_at for event, _ in lacking],
            again,
        )
        counts: dict[CodeKey, int] = {}
        for row in rows:
            key = (row["feed"], row["table_name"], row["code"])
            counts[key] = counts.get(key, 0) + 1
        return counts

    async def _settled(self, transaction: Transaction, events: Sequence[Event], now: datetime) -> list[CodeKey]:
        """Codes for which these events were the last that waited."""
        lacking = [(event, code) for event in events for code in event.unmapped]
        rows = await transaction.fetch(
            QUERIES["settle"],
            [event.message_id for event in events],
            [event.message_id for event, _ in lacking],
            [code.table for _, code in lacking],
            [code.code for _, code in lacking],
            now,
        )
        keys = sorted({(row["feed"], row["table_name"], row["code"]) for row in rows})
        if not keys:
            return []
        columns = [list(column) for column in zip(*keys, strict=True)]
        waiting = {tuple(row) for row in await transaction.fetch(QUERIES["still_waiting"], *columns)}
        return [key for key in keys if key not in waiting]

    async def change(self, transaction: Transaction, key: CodeKey, meaning: str | None, by: str, now: datetime) -> bool:
        """Says what a code means, or with None takes that back; False where nothing changes."""
        return await transaction.fetchval(QUERIES["change"], *key, meaning, now, by) is not None

    async def mapped_since(self, transaction: Transaction, key: CodeKey) -> datetime | None:
        """When the code was last given a meaning; None where it never was."""
        found: datetime | None = await transaction.fetchval(QUERIES["last_mapped"], *key)
        return found

    async def listing(self, transaction: Transaction, feed: str | None, *, unmapped: bool) -> list[CodeRow]:
        """Codes that messages wait for and codes that are mapped; only the former with `unmapped`."""
        rows = await transaction.fetch(QUERIES["listing"], unmapped, feed)
        return [CodeRow(**dict(row)) for row in rows]

    async def history(self, transaction: Transaction, feed: str | None) -> list[dict[str, object]]:
        """Every change of the map, oldest first."""
        return [dict(row) for row in await transaction.fetch(QUERIES["history"], feed)]

    async def waiting_though_mapped(self, transaction: Transaction) -> dict[CodeKey, datetime]:
        """Codes with a meaning for which messages wait nevertheless, with when the newest of those was received."""
        rows = await transaction.fetch(QUERIES["waiting_though_mapped"])
        return {(row["feed"], row["table_name"], row["code"]): row["newest"] for row in rows}

    async def waiting(
        self,
        transaction: Transaction,
        key: CodeKey,
        stand_in: str,
        after: tuple[datetime, UUID],
        limit: int,
        *,
        settled: bool = False,
    ) -> list[tuple[MessageId, datetime]]:
        """Messages that wait for a code, in the order of receipt, after the one last seen; with `settled` those too
        that were read again when it was mapped."""
        feed, table, code = key
        rows = await transaction.fetch(QUERIES["waiting"], feed, table, [code, stand_in], *after, limit, settled)
        return [(MessageId(row["message_id"]), row["received_at"]) for row in rows]


async def load(connection: Transaction) -> tuple[int, LocalCodes]:
    """The map in force with its version, which is read first: a change in between is loaded next time."""
    version: int = await connection.fetchval(QUERIES["version"])
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in await connection.fetch(QUERIES["in_force"]):
        found.setdefault(row["feed"], {}).setdefault(row["table_name"], {})[row["code"]] = row["meaning"]
    return version, found


class LiveCodes:
    """The map in force, read again when its version changes; `changed` is called with it then."""

    def __init__(
        self,
        pool: Pool,
        changed: Callable[[LocalCodes], None],
        refresh_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._changed, self._refresh_s, self._monotonic = pool, changed, refresh_s, monotonic
        self._checked_at: float | None = None
        self._version = 0

    async def refresh(self) -> None:
        """Reads the version at most every `refresh_s` seconds. Raises UnavailableError."""
        now = self._monotonic()
        if self._checked_at is not None and now - self._checked_at < self._refresh_s:
            return
        with unavailable_errors():
            async with self._pool.acquire() as connection:
                if await connection.fetchval(QUERIES["version"]) != self._version:
                    self._version, codes = await load(connection)
                    self._changed(codes)
        self._checked_at = now


def of_feed(codes: LocalCodes, feed: FeedName) -> Mapping[str, Mapping[str, str]]:
    """Table -> code -> meaning of one feed."""
    return codes.get(feed, {})
