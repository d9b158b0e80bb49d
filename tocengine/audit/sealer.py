"""Owns the sealing of the audit log: one leader at a time chains what is ripe and signs checkpoints of it.

Every step is one statement or one fsynced line, so a crash between any two leaves a chain that continues.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import asyncpg
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tocengine.audit.checkpoints import append_checkpoint, checkpoint_of, newest_checkpoint, write_public_key
from tocengine.audit.postgres import QUERIES, SEALER_LOCK, Sealed, read_tip, seal_block
from tocengine.config import AuditSettings
from tocengine.model.work import WorkItem, WorkKind
from tocengine.ports import Clock, ClosableWorkItems, Transaction
from tocengine.postgres import CONNECTION_ERRORS, session
from tocengine.telemetry import Metrics

BLOCK_RECORDS = 1000
_RETRY_S = 1.0
_COUNT_EVERY_S = 5.0
_P = ParamSpec("_P")
_R = TypeVar("_R")
_log = structlog.get_logger()


class CheckpointsUnwritableError(OSError):
    """The checkpoint directory is away, full or closed to us."""


def checkpoint_due(sealed_since: int, age: timedelta, settings: AuditSettings) -> bool:
    """Every `checkpoint_records` records, or `checkpoint_s` seconds after the last one if anything is new."""
    if sealed_since <= 0:
        return False
    return sealed_since >= settings.checkpoint_records or age.total_seconds() >= settings.checkpoint_s


class Sealer:
    """Seals every `seal_ms` while it leads; a second one waits until the first one's session ends."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        settings: AuditSettings,
        checkpoint_dir: Path,
        key: Ed25519PrivateKey,
        work_items: ClosableWorkItems,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._directory = checkpoint_dir
        self._key = key
        self._work_items = work_items
        self._asked = True  # an earlier process may have asked for help; the first checkpoint says that it came
        self._metrics = metrics
        self._clock = clock
        self._signed_records = 0
        self._signed_at = clock()
        self._counted_at: datetime | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then seals what is ripe and signs a last checkpoint.

        An outage of the database or a full disk is retried, never raised. Rows wait unsealed meanwhile, which the
        metric shows; a directory that takes no checkpoint is a work item as well.
        """
        while not stop.is_set():
            try:
                async with session(self._pool) as connection:
                    if await connection.fetchval(QUERIES["lead"], SEALER_LOCK):
                        await self._lead(connection, stop)
            except CheckpointsUnwritableError as error:
                _log.error("audit checkpoint not written", file=str(self._directory), reason=error.strerror)
                await self._ask_for_help()
            except CONNECTION_ERRORS as error:
                _log.warning("audit sealing interrupted", error_type=type(error).__name__)
            await _wait(stop, _RETRY_S)

    async def _lead(self, connection: Transaction, stop: asyncio.Event) -> None:
        await self._take_over(connection)
        while not stop.is_set():
            await self.seal_ripe(connection)
            await self._count(connection)
            await _wait(stop, self._settings.seal_ms / 1000)
        await self.seal_ripe(connection, last=True)

    async def _take_over(self, connection: Transaction) -> None:
        """Continues from the newest signed checkpoint; says so where the database does not reach it."""
        await _on_disk(write_public_key, self._directory, self._key.public_key())
        signed = await _on_disk(newest_checkpoint, self._directory, self._key.public_key())
        tip = await read_tip(connection)
        sealed = tip[0].record_count if tip else 0
        self._signed_records = min(signed.records, sealed) if signed else 0
        self._signed_at = self._clock()
        _log.info("audit sealer leads", block=tip[0].block_number if tip else 0, records=sealed)
        if signed and signed.records > sealed:
            _log.error("audit checkpoint is ahead of the database", block=signed.block, records=signed.records)
        if tip and tip[1] > await connection.fetchval(QUERIES["xid_horizon"]):
            # Rows are ordered by transaction id; a dump restored into a new server starts counting anew.
            _log.error("audit rows cannot be sealed: the transaction counter is behind the sealed log")

    async def seal_ripe(self, connection: Transaction, *, last: bool = False) -> int:
        """Seals all rows that are ripe, block after block, and signs a checkpoint where one is due or it is the last.

        Returns the number of rows sealed. Raises asyncpg errors; CheckpointsUnwritableError.
        """
        total = 0
        while (sealed := await seal_block(connection, BLOCK_RECORDS, self._clock())) is not None:
            total += sealed.records
            self._metrics.audit_blocks.inc()
            await self._checkpoint(connection, sealed, last=False)
            if sealed.records < BLOCK_RECORDS:
                break
        if last or not total:
            tip = await read_tip(connection) if last or self._checkpoint_overdue() else None
            if tip is not None:
                await self._checkpoint(connection, tip[0], last=last)
        return total

    def _checkpoint_overdue(self) -> bool:
        return (self._clock() - self._signed_at).total_seconds() >= self._settings.checkpoint_s

    async def _checkpoint(self, connection: Transaction, sealed: Sealed, *, last: bool) -> None:
        now = self._clock()
        since = sealed.record_count - self._signed_records
        if not checkpoint_due(since, now - self._signed_at, self._settings) and not (last and since > 0):
            if since <= 0:
                self._signed_at = now
            return
        checkpoint = checkpoint_of(sealed.block_number, sealed.hash, sealed.record_count, now)
        await _on_disk(append_checkpoint, self._directory, checkpoint, self._key)
        self._signed_records, self._signed_at = sealed.record_count, now
        if self._asked:
            kind, subject = WorkKind.AUDIT_NOT_SIGNED, str(self._directory)
            await self._work_items.close_subjects(
                connection, kind, [subject], "tocengine", "a checkpoint was signed", now
            )
            self._asked = False

    async def _ask_for_help(self) -> None:
        now, directory = self._clock(), str(self._directory)
        item = WorkItem(
            kind=WorkKind.AUDIT_NOT_SIGNED,
            subject=directory,
            summary=f"Audit checkpoints cannot be written to {directory}: the log is kept, but not signed.",
            opened_at=now,
        )
        with contextlib.suppress(*CONNECTION_ERRORS):
            async with self._pool.acquire() as connection, connection.transaction():
                await self._work_items.open(connection, [item])
                await self._count(connection)
            self._asked = True

    async def _count(self, connection: Transaction) -> None:
        now = self._clock()
        if self._counted_at is None or (now - self._counted_at).total_seconds() >= _COUNT_EVERY_S:
            self._metrics.audit_unsealed.set(await connection.fetchval(QUERIES["unsealed"]))
            self._counted_at = now


async def _on_disk(work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """`work` in a thread of its own. Raises CheckpointsUnwritableError."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise CheckpointsUnwritableError(error.errno, error.strerror) from error


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
