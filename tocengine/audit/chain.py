"""Owns the hash chain: how rows become a block, how a block hangs on the one before it, and what breaks it.

A block is the ordered ids and row hashes of up to some thousand rows and one SHA-256 over them and the hash of the
block before. Chaining blocks instead of rows costs one statement a block and loses nothing: a row's hash stands in
its block, so a changed row is still found and named.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from tocengine.audit.records import StoredRecord, microseconds

GENESIS = bytes(32)
"""The hash before the first block."""
HASH_BYTES = 32


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `audit_block`. `record_count` counts the records of this block and of all before it."""

    number: int
    previous_hash: bytes
    audit_ids: tuple[int, ...]
    row_hashes: bytes
    hash: bytes
    record_count: int
    last_xid: int
    last_audit_id: int
    sealed_at: datetime

    def row_hash(self, index: int) -> bytes:
        """The sealed hash of the block's record at `index`."""
        return self.row_hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def row_hash(record: StoredRecord) -> bytes:
    """SHA-256 of the row's canonical form."""
    return hashlib.sha256(record.canonical()).digest()


def block_hash(
    previous_hash: bytes,
    number: int,
    sealed_at: datetime,
    record_count: int,
    audit_ids: Sequence[int],
    row_hashes: bytes,
) -> bytes:
    """SHA-256 over everything a block says; the position it seals up to follows from its last row."""
    digest = hashlib.sha256(previous_hash)
    digest.update(number.to_bytes(8, "big", signed=True))
    digest.update(microseconds(sealed_at))
    digest.update(record_count.to_bytes(8, "big", signed=True))
    digest.update(b"".join(audit_id.to_bytes(8, "big", signed=True) for audit_id in audit_ids))
    digest.update(row_hashes)
    return digest.digest()


def seal(records: Iterable[StoredRecord], previous: Block | None, sealed_at: datetime) -> Block:
    """The block the sealer makes of `records`, given in (xid, audit_id) order and not empty."""
    rows = tuple(records)
    number = previous.number + 1 if previous else 1
    previous_hash = previous.hash if previous else GENESIS
    record_count = (previous.record_count if previous else 0) + len(rows)
    audit_ids = tuple(row.audit_id for row in rows)
    row_hashes = b"".join(row_hash(row) for row in rows)
    return Block(
        number=number,
        previous_hash=previous_hash,
        audit_ids=audit_ids,
        row_hashes=row_hashes,
        hash=block_hash(previous_hash, number, sealed_at, record_count, audit_ids, row_hashes),
        record_count=record_count,
        last_xid=rows[-1].xid,
        last_audit_id=rows[-1].audit_id,
        sealed_at=sealed_at,
    )


def block_defect(block: Block, previous: Block | None) -> str:
    """What is wrong with `block` as the successor of `previous`, without looking at its rows; "" if nothing is."""
    number = previous.number + 1 if previous else 1
    if block.number != number:
        return f"block {number} is missing"
    if block.previous_hash != (previous.hash if previous else GENESIS):
        return f"block {block.number} does not continue the block before it"
    if len(block.row_hashes) != HASH_BYTES * len(block.audit_ids) or not block.audit_ids:
        return f"block {block.number} does not hold one hash per record"
    if block.record_count != (previous.record_count if previous else 0) + len(block.audit_ids):
        return f"block {block.number} miscounts its records"
    recomputed = block_hash(
        block.previous_hash,
        block.number,
        block.sealed_at,
        block.record_count,
        block.audit_ids,
        block.row_hashes,
    )
    if recomputed != block.hash:
        return f"block {block.number} was changed"
    if block.last_audit_id != block.audit_ids[-1]:
        return f"block {block.number} misstates its end"
    return ""
