"""The byte form of a row and of a block, against values worked out by hand."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from tocengine.audit.chain import GENESIS, block_defect, row_hash, seal
from tocengine.audit.records import StoredRecord, detail_bytes

ROW = StoredRecord(
    audit_id=7,
    xid=900,
    at=datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC),
    action="A",
    actor="é",
    message_id=UUID(int=5),
    encounter_id=None,
    notice_id=None,
    recipient_id="",
    detail=b"{}",
)


def test_a_row_is_its_columns_in_order() -> None:
    assert ROW.canonical() == b"".join(
        (
            bytes.fromhex("0000000000000007"),
            bytes.fromhex("0000000000000384"),
            bytes.fromhex("00000000000f4240"),  # a second after 2000-01-01 in microseconds
            b"\x00\x00\x00\x01A",
            b"\x00\x00\x00\x02\xc3\xa9",
            b"\x01" + UUID(int=5).bytes,
            b"\x00",
            b"\x00",
            b"\x01\x00\x00\x00\x00",  # an empty text is not a null
            b"\x00\x00\x00\x02{}",
        )
    )


def test_a_block_hangs_on_the_one_before_it() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    first = seal([ROW], None, at)
    second = seal([msgspec.structs.replace(ROW, audit_id=8)], first, at)
    assert first.previous_hash == GENESIS
    assert first.row_hash(0) == row_hash(ROW) == hashlib.sha256(ROW.canonical()).digest()
    assert (second.number, second.record_count, second.previous_hash) == (2, 2, first.hash)
    assert block_defect(first, None) == block_defect(second, first) == ""
    assert block_defect(second, None) == "block 1 is missing"


def test_detail_is_canonical_json() -> None:
    assert detail_bytes({"b": 1, "a": {"d": None, "c": "é"}}) == '{"a":{"c":"é","d":null},"b":1}'.encode()
