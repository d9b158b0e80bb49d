"""The audit log on a real database: sealed once and in order, and every way of tampering found and named."""

from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.audit_desk import KEY, NOON, Desk, write
from tocengine.audit import Tampering, checkpoint_ahead, verify
from tocengine.audit.chain import GENESIS, block_hash, row_hash
from tocengine.audit.postgres import QUERIES, seal_block
from tocengine.audit.records import StoredRecord
from tocengine.postgres import Pool


@pytest.fixture
async def desk(pool: Pool, tmp_path: Path) -> Desk:
    prepared = Desk(pool, tmp_path / "audit")
    await prepared.prepare()
    return prepared


async def stored(pool: Pool) -> list[StoredRecord]:
    rows = await pool.fetch(QUERIES["read_records"])
    return [StoredRecord(**dict(row.items())) for row in rows]


async def test_an_untouched_log_verifies(desk: Desk) -> None:
    report = await desk.verify()
    assert report.ok
    assert (report.records, report.blocks, report.unsealed, report.checkpoints) == (30, 3, 0, 2)


async def test_the_sealer_and_the_verifier_agree_on_every_byte(desk: Desk) -> None:
    rows = await stored(desk.pool)
    hashes = await desk.pool.fetch("select audit_ids, row_hashes, hash, sealed_at from audit_block order by 1")
    assert b"".join(block["row_hashes"] for block in hashes) == b"".join(row_hash(row) for row in rows)
    assert hashes[0]["hash"] == block_hash(
        GENESIS, 1, hashes[0]["sealed_at"], 10, hashes[0]["audit_ids"], hashes[0]["row_hashes"]
    )


async def test_nothing_may_be_changed_the_ordinary_way(desk: Desk) -> None:
    for table in ("audit_record", "audit_block"):
        for statement in (f"delete from {table}", f"truncate {table}"):
            with pytest.raises(asyncpg.RaiseError, match="append-only"):
                await desk.pool.execute(statement)


async def test_rows_that_are_not_sealed_yet_are_counted_not_judged(desk: Desk) -> None:
    await write(desk.pool, range(30, 34))
    report = await desk.verify()
    assert report.ok
    assert report.unsealed == 4


async def test_an_edited_row_is_named(desk: Desk) -> None:
    target = (await desk.ids())[17]
    for column, value in {
        "detail": "'{}'",
        "actor": "'nobody'",
        "at": "at + interval '1 microsecond'",
        "recipient_id": "'facility:other'",
        "message_id": "gen_random_uuid()",
    }.items():
        before = await desk.pool.fetchrow("select * from audit_record where audit_id = $1", target)
        assert before is not None
        await desk.tamper(f"update audit_record set {column} = {value} where audit_id = {target}")
        first = (await desk.verify()).findings[0]
        assert (first.tampering, first.audit_id, first.position) == (Tampering.RECORD_EDITED, target, 18)
        async with desk.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(
                f"update audit_record set {column} = $2 where audit_id = $1", target, before[column]
            )
    assert (await desk.verify()).ok


async def test_a_deleted_row_is_named(desk: Desk) -> None:
    target = (await desk.ids())[12]
    await desk.tamper(f"delete from audit_record where audit_id = {target}")
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.audit_id, first.position) == (Tampering.RECORD_DELETED, target, 13)


async def test_swapped_contents_are_found_at_the_first_of_the_two(desk: Desk) -> None:
    first_id, second_id = (await desk.ids())[4], (await desk.ids())[6]
    await desk.tamper(
        f"create temporary table swap on commit drop as "
        f"select * from audit_record where audit_id in ({first_id}, {second_id})",
        f"update audit_record a set at = s.at, action = s.action, detail = s.detail, encounter_id = s.encounter_id "
        f"from swap s where a.audit_id in ({first_id}, {second_id}) and s.audit_id <> a.audit_id "
        f"and s.audit_id in ({first_id}, {second_id})",
    )
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.audit_id, first.position) == (Tampering.RECORD_EDITED, first_id, 5)


async def test_a_row_moved_to_another_place_is_found(desk: Desk) -> None:
    moved = (await desk.ids())[3]
    await desk.tamper(
        f"update audit_record set xid = (select max(xid::text::bigint) from audit_record)::text::xid8 "
        f"where audit_id = {moved}"
    )
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.audit_id, first.position) == (Tampering.RECORD_MOVED, moved, 4)


@pytest.mark.parametrize("place", [0, 14, 29])
async def test_a_row_inserted_into_the_past_is_named(desk: Desk, place: int) -> None:
    before = (await desk.ids())[place]
    # as early as the row it is put beside, under an id that was never handed out
    await desk.tamper(
        f"insert into audit_record (audit_id, xid, at, action, actor, detail) overriding system value "
        f"select -{before}, xid, at, action, actor, detail from audit_record where audit_id = {before}"
    )
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.audit_id) == (Tampering.RECORD_INSERTED, -before)


async def test_rows_cut_from_the_end_are_named(desk: Desk) -> None:
    ids = await desk.ids()
    await desk.tamper(f"delete from audit_record where audit_id >= {ids[25]}")
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.audit_id, first.position) == (Tampering.RECORD_DELETED, ids[25], 26)


async def test_rows_and_blocks_cut_from_the_end_are_betrayed_by_the_checkpoint(desk: Desk) -> None:
    ids = await desk.ids()
    await desk.tamper(
        f"delete from audit_record where audit_id >= {ids[20]}", "delete from audit_block where block_number >= 3"
    )
    report = await desk.verify()
    assert [(each.tampering, each.position, each.block) for each in report.findings] == [(Tampering.TRUNCATED, 21, 3)]
    assert await checkpoint_ahead(desk.pool, desk.directory, KEY.public_key())


async def test_everything_truncated_is_betrayed_by_the_checkpoint(desk: Desk) -> None:
    assert not await checkpoint_ahead(desk.pool, desk.directory, KEY.public_key())
    await desk.tamper(
        "alter table audit_record disable trigger all",
        "alter table audit_block disable trigger all",
        "truncate audit_record, audit_block",
        "alter table audit_record enable trigger all",
        "alter table audit_block enable trigger all",
    )
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.position) == (Tampering.TRUNCATED, 1)
    assert await checkpoint_ahead(desk.pool, desk.directory, KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        "row_hashes = overlay(row_hashes placing '\\x00' from 5)",
        "audit_ids = array_reverse(audit_ids)",
        "sealed_at = sealed_at - interval '1 hour'",
        "record_count = record_count + 1",
        "previous_hash = hash",
        "hash = previous_hash",
        "block_number = 7",
        "last_xid = '1'",
        "last_audit_id = 1",
    ],
)
async def test_an_edited_block_is_named(desk: Desk, change: str) -> None:
    ids = await desk.ids()
    await desk.tamper(f"update audit_block set {change} where block_number = 2")
    first = (await desk.verify()).findings[0]
    assert first.tampering is Tampering.BLOCK_CHANGED
    assert (first.position, first.audit_id) in ((11, ids[10]), (20, ids[19]), (21, ids[20]))


async def test_a_deleted_block_is_named(desk: Desk) -> None:
    await desk.tamper("delete from audit_block where block_number = 2")
    first = (await desk.verify()).findings[0]
    assert (first.tampering, first.text) == (Tampering.BLOCK_CHANGED, "block 2 is missing")


async def test_a_chain_rebuilt_from_an_edited_row_is_betrayed_by_the_checkpoint(desk: Desk) -> None:
    ids = await desk.ids()
    await desk.tamper(
        "alter table audit_block disable trigger all",
        f"update audit_record set detail = '{{}}' where audit_id = {ids[22]}",
        "delete from audit_block where block_number = 3",
        "alter table audit_block enable trigger all",
    )
    async with desk.pool.acquire() as connection:
        assert await seal_block(connection, 1000, NOON) is not None
    report = await desk.verify()
    assert report.records == 30
    assert [(each.tampering, each.position) for each in report.findings] == [(Tampering.REWRITTEN, 21)]


async def test_an_edited_checkpoint_is_found(desk: Desk) -> None:
    (path,) = desk.directory.glob("checkpoints-*.jsonl")
    original = path.read_bytes()
    path.write_bytes(original.replace(b'"records":30', b'"records":31'))
    (finding,) = (await desk.verify()).findings
    assert (finding.tampering, finding.checkpoint) == (Tampering.CHECKPOINT_FORGED, f"{path.name}:2")
    path.write_bytes(original.replace(b'"checkpoint"', b'"checkpiont"'))
    assert {each.tampering for each in (await desk.verify()).findings} == {Tampering.CHECKPOINT_FORGED}


async def test_a_checkpoint_signed_with_another_key_is_forged(desk: Desk) -> None:
    report = await verify(desk.pool, desk.directory, Ed25519PrivateKey.generate().public_key())
    assert {each.tampering for each in report.findings} == {Tampering.CHECKPOINT_FORGED}
