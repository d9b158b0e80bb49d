"""What a connection brings back to the pool, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tocengine.postgres import Pool, create_pool, session

LOCK = 4711


@pytest.fixture
async def single(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool of one connection: whoever comes next gets what the last one left."""
    pool = await create_pool(postgres_dsn, 1)
    yield pool
    await pool.close()


async def test_a_transaction_left_open_is_rolled_back(single: Pool) -> None:
    async with single.acquire() as connection:
        await connection.execute("create table kept (n int)")
        await connection.transaction().start()
        await connection.execute("insert into kept values (1)")
    assert await single.fetchval("select count(*) from kept") == 0
    assert await single.fetchval("select pg_current_xact_id_if_assigned()") is None


async def test_locks_and_settings_of_a_session_end_with_it(single: Pool, pool: Pool) -> None:
    async with session(single) as connection:
        await connection.execute("set lock_timeout = '1s'")
        assert await connection.fetchval("select pg_try_advisory_lock($1)", LOCK)
        assert not await pool.fetchval("select pg_try_advisory_lock($1)", LOCK)
    assert await single.fetchval("show lock_timeout") == "0"
    assert await pool.fetchval("select pg_try_advisory_lock($1)", LOCK)


async def test_they_end_where_it_fails_in_a_transaction(single: Pool, pool: Pool) -> None:
    async def fail() -> None:
        async with session(single) as connection, connection.transaction():
            await connection.fetchval("select pg_try_advisory_lock($1)", LOCK)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await pool.fetchval("select pg_try_advisory_lock($1)", LOCK)


async def test_a_lost_connection_does_not_keep_a_session_from_being_cancelled(single: Pool, pool: Pool) -> None:
    entered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def lead() -> None:
        async with session(single) as connection:
            connection.add_termination_listener(lambda _: lost.set())
            entered.set_result(await connection.fetchval("select pg_backend_pid()"))
            await asyncio.Event().wait()

    lost = asyncio.Event()
    leader = asyncio.create_task(lead())
    await pool.execute("select pg_terminate_backend($1, 5000)", await entered)
    async with asyncio.timeout(10):
        await lost.wait()
    leader.cancel()
    await asyncio.wait({leader}, timeout=5)
    assert leader.cancelled()


async def test_a_transaction_is_followed_by_no_statement_of_the_pool(single: Pool, pool: Pool) -> None:
    async with single.acquire() as connection:
        backend = await connection.fetchval("select pg_backend_pid()")
    last = await pool.fetchval("select query from pg_stat_activity where pid = $1", backend)
    assert last == "select pg_backend_pid()"
