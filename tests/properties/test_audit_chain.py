"""For every log: no two rows share a byte form, and no change of rows or blocks leaves the chain as it was."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tocengine.audit.chain import Block, block_defect, row_hash, seal
from tocengine.audit.records import EPOCH, StoredRecord

TIMES = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
RECORDS = st.builds(
    StoredRecord,
    audit_id=st.integers(-(2**63), 2**63 - 1),
    xid=st.integers(0, 2**64 - 1),
    at=TIMES,
    action=TEXTS,
    actor=TEXTS,
    message_id=st.none() | st.uuids(),
    encounter_id=st.none() | st.uuids(),
    notice_id=st.none() | st.uuids(),
    recipient_id=st.none() | TEXTS,
    detail=st.binary(max_size=20),
)
LOGS = st.lists(st.lists(RECORDS, min_size=1, max_size=5), min_size=1, max_size=5)


def chain(log: list[list[StoredRecord]]) -> list[Block]:
    blocks: list[Block] = []
    for number, rows in enumerate(log):
        blocks.append(seal(rows, blocks[-1] if blocks else None, EPOCH + timedelta(seconds=number)))
    return blocks


def defects(blocks: list[Block]) -> list[str]:
    first = [block_defect(blocks[0], None)] if blocks else []
    return [defect for defect in first + [block_defect(b, a) for a, b in pairwise(blocks)] if defect]


@given(RECORDS, RECORDS)
def test_two_rows_share_a_form_only_if_they_are_equal(one: StoredRecord, two: StoredRecord) -> None:
    assert (one.canonical() == two.canonical()) == (one == two)


@given(RECORDS, st.data())
def test_text_cannot_move_between_columns(row: StoredRecord, data: st.DataObject) -> None:
    joined = row.action + row.actor
    cut = data.draw(st.integers(0, len(joined)))
    moved = msgspec.structs.replace(row, action=joined[:cut], actor=joined[cut:])
    assert (row_hash(moved) == row_hash(row)) == (cut == len(row.action))


@given(LOGS)
def test_a_chain_as_sealed_has_no_defect(log: list[list[StoredRecord]]) -> None:
    blocks = chain(log)
    assert defects(blocks) == []
    assert blocks[-1].record_count == sum(len(rows) for rows in log)


@given(LOGS, st.data())
def test_any_changed_byte_of_a_block_is_found(log: list[list[StoredRecord]], data: st.DataObject) -> None:
    blocks = chain(log)
    place = data.draw(st.integers(0, len(blocks) - 1))
    block = blocks[place]
    column = data.draw(st.sampled_from(["row_hashes", "hash", "previous_hash"]))
    raw = bytearray(getattr(block, column))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    blocks[place] = msgspec.structs.replace(block, **{column: bytes(raw)})
    assert defects(blocks)


@given(LOGS.filter(lambda log: len(log) > 1), st.data())
def test_blocks_cannot_be_dropped_swapped_or_repeated(log: list[list[StoredRecord]], data: st.DataObject) -> None:
    blocks = chain(log)
    place = data.draw(st.integers(0, len(blocks) - 2))
    dropped = blocks[:place] + blocks[place + 1 :]
    swapped = [*blocks[:place], blocks[place + 1], blocks[place], *blocks[place + 2 :]]
    repeated = blocks[: place + 1] + blocks[place:]
    for changed in (dropped, swapped, repeated):
        assert defects(changed)


@given(LOGS, RECORDS, st.data())
def test_any_changed_row_no_longer_has_its_sealed_hash(
    log: list[list[StoredRecord]], other: StoredRecord, data: st.DataObject
) -> None:
    blocks = chain(log)
    place = data.draw(st.integers(0, len(blocks) - 1))
    index = data.draw(st.integers(0, len(log[place]) - 1))
    column = data.draw(st.sampled_from(StoredRecord.__struct_fields__))
    row = log[place][index]
    changed = msgspec.structs.replace(row, **{column: getattr(other, column)})
    assert (row_hash(changed) == blocks[place].row_hash(index)) == (changed == row)
