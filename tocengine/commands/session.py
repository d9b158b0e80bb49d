"""Owns what every command needs: the configuration, the database, and errors as exit statuses."""

import asyncio
import getpass
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import typer

from tocengine.commands import output
from tocengine.config import Config
from tocengine.config_file import load_config
from tocengine.embedded import database
from tocengine.errors import TocError, UnavailableError
from tocengine.postgres import Pool, create_pool, is_unavailable, migrate

Result = TypeVar("Result")

ConfigOption = typer.Option(
    Path("tocengine.toml"), "--config", envvar="TOCENGINE_CONFIG", help="The configuration file.", show_envvar=True
)
JsonOption = typer.Option(False, "--json", help="JSON instead of tables.")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a command's work; what the engine raises on purpose becomes a line and an exit status."""
    try:
        return asyncio.run(work)
    except TocError as error:
        output.fail(str(error), error.exit_code)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if not is_unavailable(error):
            raise
        output.fail(f"PostgreSQL is not available: {type(error).__name__}", UnavailableError.exit_code)


def load(path: Path) -> Config:
    """The configuration, or exit status 2 with file, line and what was probably meant."""
    try:
        return load_config(path)
    except TocError as error:
        output.fail(str(error), error.exit_code)


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Pool]:
    """A pool on the engine's database: the running one, or one started for this command. Migrated."""
    async with attached(config) as (pool, _):
        yield pool


@asynccontextmanager
async def attached(config: Config) -> AsyncIterator[tuple[Pool, str]]:
    """As `connected`, with the DSN."""
    async with database(config) as dsn:
        pool = await create_pool(dsn, 4, application_name="tocengine-command")
        try:
            async with pool.acquire() as connection:
                await migrate(connection)
            yield pool, dsn
        finally:
            await pool.close()


def user() -> str:
    """Who runs the command, for the audit log."""
    return f"user:{getpass.getuser()}"
