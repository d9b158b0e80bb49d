"""Owns consumer positions: they move in the transaction of what they cover, and epochs fence off former owners.

Whoever takes a partition raises its epoch. From then on a batch read under an older epoch cannot move the position,
so its transaction rolls back and its effects never exist.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tocengine.errors import PositionLostError
from tocengine.ports import Batch, Transaction
from tocengine.postgres import load_queries

_SQL = load_queries(__package__)

Partition = tuple[str, int]
"""Topic and partition number."""


class Position(msgspec.Struct, frozen=True):
    """Where a consumer stands: the offset it applies next, and the epoch under which it may."""

    next_offset: int
    epoch: int


def empty_batch(topic: str, partition: int, position: Position) -> Batch:
    """A batch without records: committing it proves that the partition stands at `position` and is still ours."""
    return Batch(
        topic=topic,
        partition=partition,
        first_offset=position.next_offset,
        next_offset=position.next_offset,
        epoch=position.epoch,
        records=(),
    )


class Fetcher(Protocol):
    """What a pool and a connection have in common."""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Rows of `query`; raises asyncpg's errors, TimeoutError after `timeout` seconds."""


class PositionStore:
    """The positions of one log. `namespace` goes before each topic: offsets of one log mean nothing in another."""

    def __init__(self, namespace: str = "", timeout_s: float = 10.0) -> None:
        self._namespace = namespace
        self._timeout_s = timeout_s

    async def known(self, database: Fetcher, partitions: Sequence[Partition]) -> dict[Partition, Position]:
        """The stored positions of those partitions that have one."""
        rows = await database.fetch(
            _SQL["known_positions"],
            [self._namespace + topic for topic, _ in partitions],
            [number for _, number in partitions],
            timeout=self._timeout_s,
        )
        return self._by_partition(rows)

    async def take(self, database: Fetcher, first_offsets: Mapping[Partition, int]) -> dict[Partition, Position]:
        """Makes the caller the owner of these partitions; one without a position starts at its first offset."""
        ordered = sorted(first_offsets)
        rows = await database.fetch(
            _SQL["take_positions"],
            [self._namespace + topic for topic, _ in ordered],
            [number for _, number in ordered],
            [first_offsets[partition] for partition in ordered],
            timeout=self._timeout_s,
        )
        return self._by_partition(rows)

    async def advance(self, transaction: Transaction, batches: Sequence[Batch]) -> None:
        """Moves each batch's position to its end, in the caller's transaction, which must not go on without it.

        Raises PositionLostError if a partition was taken by another consumer or stands elsewhere.
        """
        if not batches:
            return
        rows = await transaction.fetch(
            _SQL["advance_positions"],
            [self._namespace + batch.topic for batch in batches],
            [batch.partition for batch in batches],
            [batch.first_offset for batch in batches],
            [batch.next_offset for batch in batches],
            [batch.epoch for batch in batches],
        )
        if len(rows) != len(batches):
            raise PositionLostError(f"{len(batches) - len(rows)} of {len(batches)} positions are no longer ours")

    def _by_partition(self, rows: Sequence[Any]) -> dict[Partition, Position]:
        start = len(self._namespace)
        return {(row["topic"][start:], row["partition"]): Position(row["next_offset"], row["epoch"]) for row in rows}
