"""Owns the SQL of the audit log: appending rows with what they record, and sealing them, one statement a block."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from tocengine.audit.records import detail_bytes
from tocengine.model.audit import AuditRecord
from tocengine.ports import Transaction
from tocengine.postgres import load_queries

QUERIES = load_queries(__package__)
SEALER_LOCK = 0x746F632D61756469  # "toc-audi": one sealer per database


class PostgresAuditTrail:
    """ports.AuditTrail: appends, and has no other operation."""

    async def record(self, transaction: Transaction, records: Sequence[AuditRecord]) -> None:
        """Writes `records` in the caller's transaction, so that they exist if and only if what they record does."""
        if not records:
            return
        await transaction.execute(
            QUERIES["record"],
            [record.at for record in records],
            [record.action.value for record in records],
            [record.actor for record in records],
            [record.message_id for record in records],
            [record.encounter_id for record in records],
            [record.notice_id for record in records],
            [record.recipient_id for record in records],
            [detail_bytes(record.detail) for record in records],
        )


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """How far the chain reaches. `records` counts those of the newest block, `record_count` all."""

    block_number: int
    hash: bytes
    record_count: int
    records: int = 0


async def seal_block(connection: Transaction, max_records: int, now: datetime) -> Sealed | None:
    """Seals the next block in a transaction of its own; None where no row is ripe.

    Two sealers cannot fork the chain: the second one's block number is taken (asyncpg.UniqueViolationError).
    """
    row = await connection.fetchrow(QUERIES["seal"], max_records, now)
    if row is None:
        return None
    return Sealed(
        block_number=row["block_number"],
        hash=row["hash"],
        record_count=row["record_count"],
        records=row["records"],
    )


async def read_tip(connection: Transaction) -> tuple[Sealed, int] | None:
    """The newest block and the transaction id it seals up to; None before the first."""
    row: asyncpg.Record | None = await connection.fetchrow(QUERIES["tip"])
    if row is None:
        return None
    sealed = Sealed(block_number=row["block_number"], hash=row["hash"], record_count=row["record_count"])
    return sealed, row["last_xid"]
