"""How the log is sealed: in order, once, by one leader, through crashes and directories that are away."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from tests.integration.audit_desk import NOON, Desk, record, until, write
from tocengine.audit import PostgresAuditTrail
from tocengine.audit.postgres import SEALER_LOCK, read_tip, seal_block
from tocengine.model.work import WorkKind
from tocengine.postgres import Pool
from tocengine.work_items.postgres import PostgresWorkItems


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
