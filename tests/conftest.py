"""Owns what tests share: one PostgreSQL per test process, and a fresh migrated database per test from a template."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from tests.services.memory import place
from tocengine.embedded import EmbeddedPostgres
from tocengine.postgres import Pool, create_pool, migrate

pytest_plugins = ["tests.services.fixtures", "tests.services.validator"]

# In CI a run that failed fails again, and a busy machine is no failure; `make search` looks further.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("ci"), derandomize=False, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

TEMPLATE = "migrated"


def pytest_itemcollected(item: pytest.Item) -> None:
    """`make test` looks for those marked `alone` in one folder, since collecting takes its time."""
    if item.get_closest_marker("alone") and not item.path.is_relative_to(item.config.rootpath / "tests/acceptance"):
        raise pytest.UsageError(f"{item.nodeid} is marked alone and would not run: it is not under tests/acceptance")


def _other_database(dsn: str, name: str) -> str:
    return dsn.replace("@/tocengine?", f"@/{name}?")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The DSN of this process's server, without fsync; it ends with the process, however that ends."""
    folder = Path(tempfile.mkdtemp(prefix="tocengine-test-", dir=place()))
    folder.chmod(0o711)  # the server's account has to pass through it
    server = EmbeddedPostgres(folder / "var", durable=False, settings={"max_wal_size": "256MB"})

    async def start() -> str:
        dsn = await server.start()
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(f"create database {TEMPLATE}")
            template = await asyncpg.connect(_other_database(dsn, TEMPLATE))
            try:
                await migrate(template)
            finally:
                await template.close()
        finally:
            await connection.close()
        return dsn

    try:
        yield asyncio.run(start())
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def empty_postgres_dsn(postgres_server: str) -> AsyncIterator[str]:
    """A fresh database without any table."""
    async for dsn in fresh_database(postgres_server, "template1"):
        yield dsn


@pytest.fixture
async def postgres_dsn(postgres_server: str) -> AsyncIterator[str]:
    """A fresh migrated database."""
    async for dsn in fresh_database(postgres_server, TEMPLATE):
        yield dsn


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh migrated database."""
    pool = await create_pool(postgres_dsn, 8, application_name="tocengine-test")
    yield pool
    await pool.close()


async def fresh_database(server: str, template: str = TEMPLATE) -> AsyncIterator[str]:
    """The DSN of a new database on `server`, dropped afterwards."""
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"create database {name} template {template} strategy file_copy")
        yield _other_database(server, name)
        await connection.execute(f"drop database if exists {name} with (force)")
    finally:
        await connection.close()
