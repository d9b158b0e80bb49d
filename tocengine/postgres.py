"""Owns the way to PostgreSQL: named queries, the pool, what an error means, and migrations."""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import TypeAlias, TypeVar

import asyncpg
import asyncpg.pool
import msgspec
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tocengine.errors import ConfigurationError, SchemaTooNewError, UnavailableError

Result = TypeVar("Result")
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

MIGRATION_LOCK = 0x746F_6365_6E67  # "toceng": the advisory lock migrations run under

UNAVAILABLE = (
    OSError,  # refused, reset, no socket file, timeouts
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # class 53: disk full, out of memory, too many connections
    asyncpg.OperatorInterventionError,  # class 57: shutting down, starting up, cancelled
    asyncpg.PostgresSystemError,  # class 58: I/O errors
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby answered
    asyncpg.InternalClientError,  # the protocol broke off in the middle
)
"""Errors that say the database cannot be used now, and nothing about the statement."""
CONNECTION_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Whatever talking to PostgreSQL raises, an outage or not: for loops that do nothing but try again."""
SERIALIZATION = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""Errors of a transaction that lost a race and may be run again from its beginning."""

log = structlog.get_logger()


def load_queries(package: str) -> Mapping[str, str]:
    """The statements of `queries.sql` in `package`, by the name in each ``-- name: NAME`` line."""
    text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^-- name: *(\w+).*$", text)
    return {parts[i]: parts[i + 1].strip().rstrip(";") for i in range(1, len(parts), 2)}


async def create_pool(
    dsn: str,
    size: int = 8,
    *,
    minimum: int = 1,
    application_name: str = "tocengine",
    timeout_s: float = 10.0,
) -> Pool:
    """A pool of at most `size` connections. Raises UnavailableError when the first cannot be made.

    Connections that break are replaced when they are next asked for, so that a restart of the server costs the
    operations under way and no more. Bodies are bytea: no JSON codecs. What comes back is rolled back and not otherwise
    reset, which would be a round trip for each transaction: what belongs to a session is for `session` alone.
    """
    with unavailable_errors(_place(dsn)):
        return await asyncpg.create_pool(
            dsn,
            min_size=min(minimum, size),
            max_size=size,
            timeout=timeout_s,
            max_inactive_connection_lifetime=0.0,
            statement_cache_size=256,
            reset=_leave,
            server_settings={"application_name": application_name, "jit": "off"},
        )


_sessions: set[int] = set()
"""The server's processes whose connections are reset before the pool has them again."""


async def _leave(connection: Connection) -> None:
    """What the pool does with a connection that comes back, shielded from cancellation; where it fails the connection
    is closed. asyncpg has ended the transaction and forgotten the listeners by now."""
    process = connection.get_server_pid()
    if process in _sessions:
        _sessions.discard(process)
        await connection.execute(connection.get_reset_query())


@asynccontextmanager
async def session(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for advisory locks and settings; what is left of them ends with the block."""
    async with pool.acquire() as connection:
        _sessions.add(connection.get_server_pid())
        yield connection


def is_unavailable(error: BaseException) -> bool:
    """Whether `error` says that the database cannot be used now."""
    if isinstance(error, UNAVAILABLE):
        return True
    # asyncpg says "connection is closed", "pool is closing" and, of a pooled one that broke, "released back to the
    # pool" with the class it also uses for wrong calls
    return isinstance(error, asyncpg.InterfaceError) and ("clos" in str(error) or "released back" in str(error))


@contextmanager
def unavailable_errors(at: str = "") -> Iterator[None]:
    """Translates what asyncpg raises for an outage to UnavailableError; every other error passes."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise UnavailableError(f"PostgreSQL{at} is not available: {type(error).__name__}") from error
        raise


def _place(dsn: str) -> str:
    """Where a DSN leads, without its user and password."""
    address = dsn.partition("?")[0].rpartition("@")[2].partition("/")[0]
    return f" at {address}" if address else ""


async def retry_serialization(operation: Callable[[], Awaitable[Result]], attempts: int = 5) -> Result:
    """Runs `operation`, a whole transaction, again when it lost a race (deadlock, serialization failure)."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(SERIALIZATION),
        wait=wait_random_exponential(multiplier=0.01, max=0.5),
        stop=stop_after_attempt(attempts),
        reraise=True,
    )
    return await retrying(operation)


class Migration(msgspec.Struct, frozen=True):
    """One file of `tocengine/migrations`."""

    version: int
    name: str
    checksum: str  # SHA-256 of the file, hexadecimal
    sql: str


def load_migrations() -> Sequence[Migration]:
    """The migrations of this program in order; numbers run from 1 without a gap."""
    found = []
    for file in resources.files("tocengine.migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", file.name)
        if match:
            sql = file.read_text(encoding="utf-8")
            found.append(Migration(int(match[1]), file.name, hashlib.sha256(sql.encode()).hexdigest(), sql))
    found.sort(key=lambda migration: migration.name)
    numbers = [migration.version for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations must be numbered from 1 without a gap: {numbers}")
    return found


async def migrate(connection: Connection, migrations: Sequence[Migration] | None = None) -> Sequence[str]:
    """Brings the schema to what this program knows and returns the names of what was applied.

    All of it is one transaction under an advisory lock: processes that start together apply each migration once,
    and a failure leaves the schema as it was. Raises SchemaTooNewError when the database holds a migration
    this program does not know, ConfigurationError when an applied one was changed, UnavailableError.
    """
    known = load_migrations() if migrations is None else migrations
    with unavailable_errors():
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            pending = _pending(known, await _applied(connection))
            for migration in pending:
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into schema_migration (version, name, checksum) values ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
    if pending:
        log.info("schema migrated", schema=pending[-1].version, count=len(pending))
    return [migration.name for migration in pending]


async def _applied(connection: Connection) -> Mapping[int, tuple[str, str]]:
    if await connection.fetchval("select to_regclass('schema_migration')") is None:
        await connection.execute(
            "create table schema_migration (version int primary key, name text not null, checksum text not null,"
            " applied_at timestamptz not null default now())"
        )
    rows = await connection.fetch("select version, name, checksum from schema_migration")
    return {row["version"]: (row["name"], row["checksum"]) for row in rows}


def _pending(known: Sequence[Migration], applied: Mapping[int, tuple[str, str]]) -> Sequence[Migration]:
    newest = max(applied, default=0)
    if newest > len(known):
        raise SchemaTooNewError(
            f"the database has migration {applied[newest][0]}, this program knows {len(known)}: update the program"
        )
    for migration in known:
        name, checksum = applied.get(migration.version, (migration.name, migration.checksum))
        if checksum != migration.checksum:
            raise ConfigurationError(
                f"migration {name} is not the one that was applied to this database",
                hint="an applied migration is never changed; add a new one",
            )
    return [migration for migration in known if migration.version not in applied]
