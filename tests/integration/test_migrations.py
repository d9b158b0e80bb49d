"""Migrations on a real PostgreSQL."""

import asyncio

import asyncpg
import msgspec
import pytest

from tocengine.errors import ConfigurationError, SchemaTooNewError
from tocengine.postgres import Pool, create_pool, load_migrations, migrate


async def test_a_fresh_database_gets_every_migration_once(empty_postgres_dsn: str) -> None:
    pool = await create_pool(empty_postgres_dsn, 4)
    async with pool.acquire() as one, pool.acquire() as two, pool.acquire() as three:
        results = await asyncio.gather(migrate(one), migrate(two), migrate(three))
    names = [migration.name for migration in load_migrations()]
    assert sorted(name for result in results for name in result) == names
    assert await pool.fetchval("select count(*) from schema_migration") == len(names)
    await pool.close()


async def test_a_current_database_is_left_alone(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await migrate(connection) == []


async def test_a_newer_schema_refuses_an_older_program(pool: Pool) -> None:
    async with pool.acquire() as connection:
        with pytest.raises(SchemaTooNewError, match="update the program"):
            await migrate(connection, load_migrations()[:-1])


async def test_a_changed_migration_is_refused(pool: Pool) -> None:
    first, *rest = load_migrations()
    changed = msgspec.structs.replace(first, checksum="0" * 64)
    async with pool.acquire() as connection:
        with pytest.raises(ConfigurationError, match=first.name):
            await migrate(connection, [changed, *rest])


async def test_a_failing_migration_leaves_the_schema_as_it_was(empty_postgres_dsn: str) -> None:
    first, *rest = load_migrations()
    broken = msgspec.structs.replace(rest[0], sql="create table half_done (); select 1/0")
    connection = await asyncpg.connect(empty_postgres_dsn)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, [first, broken])
    assert await connection.fetchval("select to_regclass('half_done')") is None
    assert await migrate(connection) == [migration.name for migration in load_migrations()]
    await connection.close()


SEEN = """insert into message_seen (day, message_id, revision, part, feed, control_id, trigger, answered, received_at,
          disposition)
          select current_date + n, md5(n::text)::uuid, 0, 0, 'stj-adt', '1', 'A03', 'AA', now(), 'TRACKED'
          from generate_series(-900, 30, 10) as n on conflict (day, message_id, revision, part) do nothing"""
GAPS = """select count(*) from (
              select lead(first_day) over (order by first_day) - end_day as days from message_seen_weeks()
          ) as w where days <> 0"""


async def test_messages_seen_on_single_days_stay_seen_and_weeks_follow_them(empty_postgres_dsn: str) -> None:
    pool = await create_pool(empty_postgres_dsn, 2)
    async with pool.acquire() as connection:
        await migrate(connection, load_migrations()[:9])
        assert await connection.execute(SEEN) == "INSERT 0 94"
        await migrate(connection)
        assert await connection.execute(SEEN) == "INSERT 0 0"
        await connection.fetchval("select prepare_message_seen(current_date - 900, current_date + 40)")
        assert await connection.fetchval("select count(*) from message_seen_other") == 0
        assert await connection.execute(SEEN) == "INSERT 0 0"
        assert await connection.fetchval(GAPS) == 0
    await pool.close()
