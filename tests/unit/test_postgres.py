"""What an error of the database means, and how statements and migrations are found."""

import asyncpg
import pytest

from tocengine.errors import UnavailableError
from tocengine.postgres import (
    create_pool,
    is_unavailable,
    load_migrations,
    load_queries,
    retry_serialization,
    unavailable_errors,
)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        FileNotFoundError("no socket"),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.AdminShutdownError(),
        asyncpg.CrashShutdownError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.DiskFullError(),
        asyncpg.ReadOnlySQLTransactionError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InterfaceError("pool is closing"),
    ],
)
def test_outages(error: Exception) -> None:
    assert is_unavailable(error)
    with pytest.raises(UnavailableError), unavailable_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError(),
        asyncpg.DataError("wrong argument"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        asyncpg.DeadlockDetectedError(),
        KeyError(),
    ],
)
def test_errors_of_the_statement_pass(error: Exception) -> None:
    assert not is_unavailable(error)
    with pytest.raises(type(error)), unavailable_errors():
        raise error


async def test_who_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(UnavailableError, match=r"^PostgreSQL at 127\.0\.0\.1:1 is not available: \w+$"):
        await create_pool("postgresql://toc:secret@127.0.0.1:1/toc?sslmode=disable")


async def test_a_lost_race_is_run_again() -> None:
    errors: list[Exception] = [asyncpg.DeadlockDetectedError(), asyncpg.SerializationError()]

    async def transaction() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await retry_serialization(transaction) == "done"


async def test_a_race_that_is_always_lost_is_given_up_with_its_own_error() -> None:
    tried = 0

    async def transaction() -> None:
        nonlocal tried
        tried += 1
        raise asyncpg.DeadlockDetectedError

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await retry_serialization(transaction, attempts=3)
    assert tried == 3


def test_queries_are_found_by_name() -> None:
    queries = load_queries("tocengine.work_items")
    assert queries["mark_alerted"].startswith("update work_item")
    assert not any(query.endswith(";") for query in queries.values())


def test_migrations_are_numbered_without_a_gap() -> None:
    migrations = load_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert len({migration.checksum for migration in migrations}) == len(migrations)
