"""The audit log on a real database: sealed once and in order, and every way of tampering found and named."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tocengine.audit import PostgresAuditTrail, Sealer, Tampering, VerifyReport, checkpoint_ahead, verify
from tocengine.audit.chain import GENESIS, block_hash, row_hash
from tocengine.audit.checkpoints import prepare_directory
from tocengine.audit.postgres import QUERIES, SEALER_LOCK, read_tip, seal_block
from tocengine.audit.records import StoredRecord
from tocengine.config import AuditSettings
from tocengine.errors import ConfigurationError
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import EncounterId, MessageId, NoticeId, RecipientId, derive
from tocengine.model.work import WorkKind
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DEADLINE_S = 10.0


def record(number: int) -> AuditRecord:
    return AuditRecord(
        action=AuditAction.ATTEMPT_ENDED if number % 2 else AuditAction.MESSAGE_TRACKED,
        at=NOON + timedelta(seconds=number),
        actor="tocengine" if number % 3 else "usuario-ñ",
        message_id=MessageId(derive("m", str(number))) if number % 2 else None,
        encounter_id=EncounterId(derive("e", str(number))),
        notice_id=NoticeId(derive("n", str(number))) if number % 5 == 0 else None,
        recipient_id=RecipientId(f"facility:f{number}") if number % 4 else None,
        detail={"zulu": number, "alpha": [1, "x"], "status": 200},
    )


async def write(pool: Pool, numbers: range) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await PostgresAuditTrail().record(connection, [record(number) for number in numbers])


class Desk:
    """A log of 30 rows in three blocks, with a checkpoint after the second and one after the third."""

    def __init__(self, pool: Pool, directory: Path) -> None:
        self.pool, self.directory, self.metrics = pool, directory, Metrics()

    async def prepare(self) -> None:
        sealer = self.sealer()
        for start in (0, 10, 20):
            await write(self.pool, range(start, start + 10))
            async with self.pool.acquire() as connection:
                await sealer.seal_ripe(connection, last=start > 0)

    def sealer(self, **settings: float) -> Sealer:
        chosen = AuditSettings(
            checkpoint_records=int(settings.get("checkpoint_records", 1000)),
            checkpoint_s=settings.get("checkpoint_s", 300.0),
            seal_ms=settings.get("seal_ms", 5.0),
        )
        return Sealer(self.pool, chosen, self.directory, KEY, PostgresWorkItems(), self.metrics, lambda: NOON)

    async def verify(self) -> VerifyReport:
        return await verify(self.pool, self.directory, KEY.public_key())

    async def tamper(self, *statements: str) -> None:
        """As a superuser would: triggers off, rows changed, triggers on again."""
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            for statement in statements:
                await connection.execute(statement)

    async def ids(self) -> list[int]:
        rows = await self.pool.fetch("select audit_id from audit_record order by xid, audit_id")
        return [row[0] for row in rows]


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


async def test_interleaved_transactions_are_sealed_once_and_in_order(pool: Pool, tmp_path: Path) -> None:
    """Ids are handed out before commit, so rows appear out of id order; the one that comes late is not skipped."""
    desk = Desk(pool, tmp_path)
    trail = PostgresAuditTrail()
    async with pool.acquire() as early, pool.acquire() as late, pool.acquire() as sealing:
        open_early = early.transaction()
        await open_early.start()
        await trail.record(early, [record(1)])
        async with late.transaction():
            await trail.record(late, [record(2)])
        assert await seal_block(sealing, 100, NOON) is None  # row 2 is committed, but an older one may still come
        await trail.record(early, [record(3)])
        await open_early.commit()
        await write(pool, range(4, 5))
        sealed = await seal_block(sealing, 100, NOON)
        assert sealed is not None
        assert sealed.records == 4
        assert await seal_block(sealing, 100, NOON) is None
    ids = await pool.fetchval("select audit_ids from audit_block")
    assert ids == [1, 3, 2, 4]  # in (transaction, id) order
    assert (await desk.verify()).ok


async def test_a_rolled_back_row_leaves_a_gap_and_no_alarm(pool: Pool, tmp_path: Path) -> None:
    desk = Desk(pool, tmp_path)
    await write(pool, range(2))
    async with pool.acquire() as connection:
        attempt = connection.transaction()
        await attempt.start()
        await PostgresAuditTrail().record(connection, [record(9)])
        await attempt.rollback()
    await write(pool, range(2, 4))
    async with pool.acquire() as connection:
        await desk.sealer().seal_ripe(connection, last=True)
    report = await desk.verify()
    assert report.ok
    assert report.records == 4


async def test_blocks_split_where_a_transaction_is_longer_than_one(pool: Pool, tmp_path: Path) -> None:
    desk = Desk(pool, tmp_path)
    await write(pool, range(25))
    async with pool.acquire() as connection:
        sizes = []
        while (sealed := await seal_block(connection, 10, NOON)) is not None:
            sizes.append(sealed.records)
    assert sizes == [10, 10, 5]
    assert (await desk.verify()).ok


async def test_a_sealer_that_dies_between_statements_leaves_a_chain_that_continues(pool: Pool, tmp_path: Path) -> None:
    desk = Desk(pool, tmp_path)
    await write(pool, range(10))
    async with pool.acquire() as connection:
        await seal_block(connection, 5, NOON)  # sealed, and killed before its checkpoint
        half = connection.transaction()  # killed within the sealing statement's transaction
        await half.start()
        await seal_block(connection, 5, NOON)
        await half.rollback()
    async with pool.acquire() as connection:
        await desk.sealer().seal_ripe(connection, last=True)
    report = await desk.verify()
    assert report.ok
    assert (report.records, report.blocks, report.checkpoints) == (10, 2, 1)


async def test_two_sealers_cannot_fork_the_chain(pool: Pool) -> None:
    await write(pool, range(10))
    async with pool.acquire() as one, pool.acquire() as two:
        first = one.transaction()
        await first.start()
        await seal_block(one, 5, NOON)
        second = asyncio.create_task(seal_block(two, 5, NOON))
        await until(lambda: _blocked(pool))
        await first.commit()
        with pytest.raises(asyncpg.UniqueViolationError):
            await second


async def _blocked(pool: Pool) -> bool:
    return bool(await pool.fetchval("select exists (select from pg_locks where not granted)"))


async def test_only_the_leader_seals_and_a_second_one_takes_over(pool: Pool, tmp_path: Path) -> None:
    desk = Desk(pool, tmp_path)
    stops = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.sealer().run(stops[0]))
        await until(lambda: _led(pool))
        tasks.create_task(desk.sealer().run(stops[1]))
        await write(pool, range(10))
        await until(lambda: _sealed(pool, 10))
        stops[0].set()
        await write(pool, range(10, 20))
        await until(lambda: _sealed(pool, 20))
        stops[1].set()
    report = await desk.verify()
    assert report.ok
    assert report.records == 20
    assert report.checkpoints >= 1


async def test_a_sealer_survives_a_killed_connection(pool: Pool, tmp_path: Path) -> None:
    desk = Desk(pool, tmp_path)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.sealer().run(stop))
        await until(lambda: _led(pool))
        await pool.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid() "
            "and database = (select oid from pg_database where datname = current_database())"
        )
        await write(pool, range(5))
        await until(lambda: _sealed(pool, 5))
        stop.set()
    assert (await desk.verify()).ok


async def test_a_directory_that_takes_no_checkpoint_is_said_and_the_rows_wait(pool: Pool, tmp_path: Path) -> None:
    away = tmp_path / "mount"
    away.write_text("a file where the directory should be")
    desk, items = Desk(pool, away), PostgresWorkItems()
    stop = asyncio.Event()

    async def asked() -> bool:
        async with pool.acquire() as connection:
            return await items.count_open(connection) == {WorkKind.AUDIT_NOT_SIGNED: 1}

    async def answered() -> bool:
        return not await asked()

    await write(pool, range(5))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.sealer(checkpoint_records=1).run(stop))
        await until(asked)
        assert desk.metrics.registry.get_sample_value("tocengine_audit_unsealed_records") == 5
        away.unlink()
        await until(answered)
        stop.set()
    report = await desk.verify()
    assert report.ok
    assert report.checkpoints == 1


def test_a_directory_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    away = tmp_path / "mount"
    away.write_text("a file where the directory should be")
    with pytest.raises(ConfigurationError, match=r"audit\.checkpoint_dir: .* cannot be written"):
        prepare_directory(away / "audit", KEY.public_key())


async def test_checkpoints_come_by_count(pool: Pool, tmp_path: Path) -> None:
    desk = Desk(pool, tmp_path)
    sealer = desk.sealer(checkpoint_records=20)
    async with pool.acquire() as connection:
        for start in range(0, 60, 10):
            await write(pool, range(start, start + 10))
            await sealer.seal_ripe(connection)
    assert (await desk.verify()).checkpoints == 3


async def _led(pool: Pool) -> bool:
    key = SEALER_LOCK & 0xFFFFFFFF
    return bool(
        await pool.fetchval(
            "select exists (select from pg_locks where locktype = 'advisory' and objid = $1 "
            "and database = (select oid from pg_database where datname = current_database()))",
            key,
        )
    )


async def _sealed(pool: Pool, records: int) -> bool:
    async with pool.acquire() as connection:
        tip = await read_tip(connection)
    return tip is not None and tip[0].record_count >= records


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - the condition is in the database
            await asyncio.sleep(0.01)
