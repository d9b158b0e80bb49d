"""Owns the proof: reads the whole audit log against its chain and its checkpoints and names the first bad row.

Reads in one repeatable-read snapshot, streaming rows and blocks side by side, so that memory stays the same however
long the log is and a running engine is not disturbed.
"""

from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path

import asyncpg
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tocengine.audit.chain import Block, block_defect, row_hash
from tocengine.audit.checkpoints import CheckpointLine, newest_checkpoint, read_checkpoints
from tocengine.audit.postgres import QUERIES
from tocengine.audit.records import StoredRecord
from tocengine.ports import Transaction

_ROWS_AHEAD = 1000
_BLOCKS_AHEAD = 8
_CHECKPOINTS_AT_ONCE = 500
_MAX_FINDINGS = 50


class Tampering(StrEnum):
    """What was done to the log, as far as it can be told."""

    RECORD_EDITED = "RECORD_EDITED"
    RECORD_DELETED = "RECORD_DELETED"
    RECORD_INSERTED = "RECORD_INSERTED"  # among rows that were sealed without it
    RECORD_MOVED = "RECORD_MOVED"
    BLOCK_CHANGED = "BLOCK_CHANGED"  # edited, missing, or not continuing the one before it
    TRUNCATED = "TRUNCATED"  # a checkpoint knows more than the database
    REWRITTEN = "REWRITTEN"  # a consistent chain, but not the one that was signed
    CHECKPOINT_FORGED = "CHECKPOINT_FORGED"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One defect. `position` counts records along the chain from 1; `audit_id` is the row, where it is known."""

    tampering: Tampering
    text: str
    position: int | None = None
    audit_id: int | None = None
    block: int | None = None
    checkpoint: str = ""  # file and line


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read and what was found. `findings` starts with the first bad row of the chain, then checkpoints."""

    records: int  # sealed rows that were found as they were sealed
    blocks: int
    unsealed: int  # rows newer than the last block: normal while the engine runs
    checkpoints: int
    newest_checkpoint: str = ""  # its time
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """True where nothing was found."""
        return not self.findings


async def verify(
    pool: "asyncpg.Pool[asyncpg.Record]", checkpoint_dir: Path, public_key: Ed25519PublicKey
) -> VerifyReport:
    """Verifies everything that is sealed. Rows that are newer than the last block cannot be judged and are counted."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        walk = _ChainWalk(connection)
        first_bad = await walk.run()
        signed = _CheckpointCheck(connection, walk.sealed_records)
        await signed.run(checkpoint_dir, public_key)
    findings = ([first_bad] if first_bad else []) + signed.findings
    return VerifyReport(
        records=walk.position,
        blocks=walk.blocks,
        unsealed=walk.unsealed,
        checkpoints=signed.checked,
        newest_checkpoint=signed.newest_at,
        findings=tuple(findings[:_MAX_FINDINGS]),
    )


async def checkpoint_ahead(
    pool: "asyncpg.Pool[asyncpg.Record]", checkpoint_dir: Path, public_key: Ed25519PublicKey
) -> bool:
    """True if the newest checkpoint is not in the database: it was restored from an older state, or cut.

    Checked at start, before anything is sent: what the lost rows had told would be told again.
    """
    newest = newest_checkpoint(checkpoint_dir, public_key)
    if newest is None:
        return False
    rows = await pool.fetch(QUERIES["blocks_at"], [newest.block])
    return not rows or rows[0]["hash"].hex() != newest.hash


class _ChainWalk:
    """Walks blocks and rows in step until the end or the first difference."""

    def __init__(self, connection: Transaction) -> None:
        self._connection = connection
        self.position = 0  # rows found good
        self.blocks = 0
        self.unsealed = 0
        self.sealed_records = 0  # as the newest block that was read counts them

    async def run(self) -> Finding | None:
        """The first bad row or block. Counts unsealed rows when it reaches the end."""
        rows = self._rows()
        previous: Block | None = None
        async for block in self._blocks():
            if defect := block_defect(block, previous):
                next_row = await anext(rows, None)  # what a tampered block says of its rows is worth nothing
                return self._bad_block(block, defect, next_row.audit_id if next_row else None)
            self.sealed_records = block.record_count
            if bad := await self._check_rows(block, rows):
                return bad
            self.blocks += 1
            previous = block
        return await self._after_the_end(rows, previous)

    async def _check_rows(self, block: Block, rows: AsyncIterator[StoredRecord]) -> Finding | None:
        for index, audit_id in enumerate(block.audit_ids):
            row = await anext(rows, None)
            if row is None or row.audit_id != audit_id:
                return await self._out_of_place(block, audit_id, row)
            if row_hash(row) != block.row_hash(index):
                return self._finding(
                    Tampering.RECORD_EDITED, f"record {audit_id} is not what was sealed", audit_id, block
                )
            self.position += 1
        if row is not None and row.xid != block.last_xid:
            bad = self._bad_block(block, f"block {block.number} misstates its end", row.audit_id)
            return msgspec.structs.replace(bad, position=self.position)
        return None

    async def _out_of_place(self, block: Block, expected: int, found: StoredRecord | None) -> Finding:
        """Row `expected` should come next and does not: it is gone, or one that was never sealed stands before it,
        or the order was changed."""
        if found is not None and await self._connection.fetchval(QUERIES["block_holding"], found.audit_id) is None:
            return self._finding(
                Tampering.RECORD_INSERTED,
                f"record {found.audit_id} was inserted before record {expected} after that was sealed",
                found.audit_id,
                block,
            )
        if not await self._connection.fetchval(QUERIES["record_exists"], expected):
            return self._finding(Tampering.RECORD_DELETED, f"record {expected} is missing", expected, block)
        return self._finding(Tampering.RECORD_MOVED, f"record {expected} is not where it was sealed", expected, block)

    async def _after_the_end(self, rows: AsyncIterator[StoredRecord], last: Block | None) -> Finding | None:
        async for row in rows:
            if last is not None and (row.xid, row.audit_id) <= (last.last_xid, last.last_audit_id):
                return self._finding(
                    Tampering.RECORD_INSERTED,
                    f"record {row.audit_id} was inserted among sealed records",
                    row.audit_id,
                    last,
                )
            self.unsealed += 1
        return None

    def _bad_block(self, block: Block, defect: str, audit_id: int | None) -> Finding:
        return self._finding(Tampering.BLOCK_CHANGED, defect, audit_id, block)

    def _finding(self, tampering: Tampering, text: str, audit_id: int | None, block: Block) -> Finding:
        return Finding(
            tampering=tampering, text=text, position=self.position + 1, audit_id=audit_id, block=block.number
        )

    async def _rows(self) -> AsyncIterator[StoredRecord]:
        async for row in self._connection.cursor(QUERIES["read_records"], prefetch=_ROWS_AHEAD):
            yield StoredRecord(
                audit_id=row[0],
                xid=row[1],
                at=row[2],
                action=row[3],
                actor=row[4],
                message_id=row[5],
                encounter_id=row[6],
                notice_id=row[7],
                recipient_id=row[8],
                detail=row[9],
            )

    async def _blocks(self) -> AsyncIterator[Block]:
        async for row in self._connection.cursor(QUERIES["read_blocks"], prefetch=_BLOCKS_AHEAD):
            yield Block(
                number=row["block_number"],
                previous_hash=row["previous_hash"],
                audit_ids=tuple(row["audit_ids"]),
                row_hashes=row["row_hashes"],
                hash=row["hash"],
                record_count=row["record_count"],
                last_xid=row["last_xid"],
                last_audit_id=row["last_audit_id"],
                sealed_at=row["sealed_at"],
            )


class _CheckpointCheck:
    """Holds every checkpoint against the block it speaks of."""

    def __init__(self, connection: Transaction, sealed_records: int) -> None:
        self._connection = connection
        self._sealed_records = sealed_records
        self._last_good_records = 0
        self._last_good_block = 0
        self.checked = 0
        self.newest_at = ""
        self.findings: list[Finding] = []

    async def run(self, directory: Path, key: Ed25519PublicKey) -> None:
        batch: list[CheckpointLine] = []
        for line in read_checkpoints(directory, key):
            self.checked += 1
            if line.checkpoint is None:
                text = f"{line.place}: {line.defect}"
                self._add(Finding(tampering=Tampering.CHECKPOINT_FORGED, text=text, checkpoint=line.place))
                continue
            batch.append(line)
            if len(batch) == _CHECKPOINTS_AT_ONCE:
                await self._compare(batch)
                batch = []
        await self._compare(batch)

    async def _compare(self, lines: list[CheckpointLine]) -> None:
        numbers = [line.checkpoint.block for line in lines if line.checkpoint]
        rows = await self._connection.fetch(QUERIES["blocks_at"], numbers)
        stored = {row["block_number"]: (row["hash"].hex(), row["record_count"]) for row in rows}
        for line in lines:
            checkpoint = line.checkpoint
            if checkpoint is None:
                continue
            self.newest_at = max(self.newest_at, checkpoint.at)
            found = stored.get(checkpoint.block)
            if found == (checkpoint.hash, checkpoint.records):
                self._last_good_records, self._last_good_block = checkpoint.records, checkpoint.block
            elif found is None:
                self._add(self._truncated(line.place, checkpoint.block, checkpoint.records))
            else:
                self._add(self._rewritten(line.place, checkpoint.block))

    def _truncated(self, place: str, block: int, records: int) -> Finding:
        first_missing = max(self._sealed_records, self._last_good_records) + 1
        return Finding(
            tampering=Tampering.TRUNCATED,
            text=f"records {first_missing} to {records} are missing: block {block} was signed and is gone",
            position=first_missing,
            block=block,
            checkpoint=place,
        )

    def _rewritten(self, place: str, block: int) -> Finding:
        first_suspect = self._last_good_records + 1
        return Finding(
            tampering=Tampering.REWRITTEN,
            text=f"block {block} is not the one that was signed: records from {first_suspect} on were rewritten",
            position=first_suspect,
            block=self._last_good_block + 1,
            checkpoint=place,
        )

    def _add(self, finding: Finding) -> None:
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(finding)
