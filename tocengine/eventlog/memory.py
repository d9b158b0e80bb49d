"""Owns the log that lives in memory: a twin for unit tests, kept honest by the suite that the real ones pass."""

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType

from tocengine.errors import PositionLostError, UnavailableError
from tocengine.eventlog.positions import Partition, Position, empty_batch
from tocengine.eventlog.topics import Topic, record_bytes
from tocengine.ports import Batch, LogRecord, Transaction


class MemoryTransaction:
    """Stands in for a database transaction: position moves made in it are undone if its block raises."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []

    async def __aenter__(self) -> "MemoryTransaction":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            for step in reversed(self.undo):
                step()


class MemoryEventLog:
    """The writing side, and the state both sides share."""

    def __init__(self, partitions: int = 1) -> None:
        self._partitions = partitions
        self.records: dict[Partition, list[LogRecord]] = {}
        self.positions: dict[Partition, Position] = {}
        self.available = True  # a test sets it to False: the log is gone
        self._appended = asyncio.Condition()
        self._closed = False

    async def append(self, records: Sequence[LogRecord]) -> None:
        """Keeps the records. Raises UnavailableError while `available` is False, or after `close`."""
        for record in records:
            record_bytes(record)
        if self._closed or not self.available:
            raise UnavailableError("the event log in memory is switched off")
        async with self._appended:
            for record in records:
                self.records.setdefault((record.topic, self._partition_of(record.key)), []).append(record)
            self._appended.notify_all()

    async def close(self) -> None:
        """Nothing is under way between two turns of the event loop."""
        self._closed = True

    def of_topic(self, topic: str) -> list[LogRecord]:
        """All records of a topic, for assertions."""
        return [record for (name, _), held in sorted(self.records.items()) if name == topic for record in held]

    async def changed(self, timeout_s: float) -> None:
        """Returns after the next append, or after `timeout_s`."""

        async def wait() -> None:
            async with self._appended:
                await self._appended.wait()

        try:
            await asyncio.wait_for(wait(), timeout_s)
        except TimeoutError:
            return

    def partitions_of(self, topic: str) -> list[Partition]:
        """Every partition of `topic`."""
        return [(topic, number) for number in range(self._partitions)]

    def _partition_of(self, key: bytes) -> int:
        return zlib.crc32(key) % self._partitions


class MemoryLogConsumer:
    """The reading side; whoever took a partition last owns it."""

    def __init__(self, log: MemoryEventLog, topics: Sequence[str]) -> None:
        self._log = log
        self._partitions = [partition for topic in topics for partition in log.partitions_of(topic)]
        self._taken: dict[Partition, Position] = {}

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        """At most one batch per partition; empty after `timeout_s` without records. Raises UnavailableError."""
        deadline = time.monotonic() + timeout_s
        while True:
            if not self._log.available:
                raise UnavailableError("the event log in memory is switched off")
            if not self._taken:
                self._take()
            batches = [batch for partition in self._partitions if (batch := self._read(partition, max_records))]
            left_s = deadline - time.monotonic()
            if batches or left_s <= 0:
                return batches
            await self._log.changed(left_s)

    async def commit(self, transaction: "Transaction | MemoryTransaction", batches: Sequence[Batch]) -> None:
        """Moves the positions; a MemoryTransaction that fails moves them back. Raises PositionLostError."""
        stored = self._log.positions
        for batch in batches:
            if stored[batch.topic, batch.partition] != Position(batch.first_offset, batch.epoch):
                self._taken.clear()
                raise PositionLostError("the position is no longer ours")
        before = {(b.topic, b.partition): stored[b.topic, b.partition] for b in batches}
        for batch in batches:
            stored[batch.topic, batch.partition] = Position(batch.next_offset, batch.epoch)
        if isinstance(transaction, MemoryTransaction):
            transaction.undo.append(lambda: stored.update(before))

    async def rewind(self) -> None:
        """Forgets what was polled and not committed: the next poll starts at the stored positions."""
        self._taken.clear()

    async def lag(self) -> Mapping[tuple[str, int], int]:
        """Records not yet committed, by (topic, partition)."""
        start = Position(0, 0)
        return {
            partition: len(self._log.records.get(partition, ())) - self._log.positions.get(partition, start).next_offset
            for partition in self._partitions
        }

    async def idle(self) -> Sequence[Batch]:
        """An empty batch of every partition that is ours and read to its end."""
        lags = await self.lag()
        return [empty_batch(*each, position) for each, position in self._taken.items() if not lags[each]]

    async def close(self) -> None:
        """Nothing is held."""
        self._taken.clear()

    def _take(self) -> None:
        for partition in self._partitions:
            held = self._log.positions.get(partition, Position(0, 0))
            self._taken[partition] = Position(held.next_offset, held.epoch + 1)
        self._log.positions.update(self._taken)

    def _read(self, partition: Partition, max_records: int) -> Batch | None:
        position = self._taken[partition]
        first = position.next_offset
        records = tuple(self._log.records.get(partition, ())[first : first + max_records])
        if not records:
            return None
        following = first + len(records)
        self._taken[partition] = Position(following, position.epoch)
        return Batch(
            topic=partition[0],
            partition=partition[1],
            first_offset=first,
            next_offset=following,
            epoch=position.epoch,
            records=records,
        )


class MemoryMessageScanner:
    """Implements `ports.MessageScanner` on the log in memory, which keeps no times: all that is in it."""

    def __init__(self, log: MemoryEventLog) -> None:
        self._log = log

    async def messages(
        self, since: datetime, until: datetime, portion: int = 200
    ) -> AsyncGenerator[Sequence[LogRecord], None]:
        """Every message, in portions."""
        records = self._log.of_topic(Topic.MESSAGES)
        for start in range(0, len(records), portion):
            yield records[start : start + portion]
