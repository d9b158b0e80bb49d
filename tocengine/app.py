"""The composition root: opens what the roles of a process share, builds them in path order, and runs them until it
shall drain.

Everything that a stage needs of another is handed over in `tocengine.roles`, as a port. Nothing is global.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from tocengine import __version__, build
from tocengine.admin import Check, role_app
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import Config
from tocengine.deployment import Role
from tocengine.embedded import database
from tocengine.inspection.gauges import Gauges
from tocengine.postgres import Pool, create_pool, migrate, unavailable_errors
from tocengine.process import settle_memory
from tocengine.roles import Parts
from tocengine.telemetry import Metrics
from tocengine.web import WebServer
from tocengine.work_items.postgres import PostgresWorkItems

log = structlog.get_logger()


class Engine:
    """The roles of one process. `run` builds them, reports ready, and returns when they have drained."""

    def __init__(self, config: Config, roles: Sequence[Role], admin_listen: str | Path) -> None:
        self._config, self._roles, self._admin_listen = config, tuple(dict.fromkeys(roles)), admin_listen
        self._metrics = Metrics()
        self._checks: dict[str, Check] = {}

    async def run(self, drain: asyncio.Event) -> int:
        """Serves until `drain` is set; exit status 0 after an orderly end.

        Raises ConfigurationError and UnavailableError for what prevents the start.
        """
        async with AsyncExitStack() as stack:
            dsn = await stack.enter_async_context(database(self._config))
            pool = await self._pool(dsn)
            stack.push_async_callback(_close, pool)
            gauges = Gauges(pool, self._metrics)
            self._checks["database"] = gauges.reachable
            admin = WebServer(role_app(self._metrics.registry, self._checks, gauges.refresh), self._admin_listen)
            parts = Parts(
                config=self._config,
                dsn=dsn,
                pool=pool,
                metrics=self._metrics,
                audit=PostgresAuditTrail(),
                work_items=PostgresWorkItems(),
            )
            stop, close = asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                workers: list[asyncio.Task[None]] = []
                closers: list[asyncio.Task[None]] = []
                # each role is loaded where it is run: a process is ready sooner without the others
                if Role.ROUTE in self._roles:
                    from tocengine.roles.route import start_keepers, start_router

                    workers.append(await start_router(group, parts, stop))
                    closers += await start_keepers(stack, group, parts, close)
                if Role.DELIVER in self._roles:
                    from tocengine.roles.deliver import start_delivery

                    workers += await start_delivery(stack, group, parts, stop)
                if Role.INGEST in self._roles:
                    from tocengine.roles.ingest import ingesting

                    await stack.enter_async_context(ingesting(parts))
                await admin.start()
                stack.push_async_callback(admin.stop)
                settle_memory()
                if Role.INGEST not in self._roles:
                    os.nice(self._config.routing.niceness)  # once ready: starting is not slowed
                log.info("ready", role=",".join(self._roles), version=__version__, build=build.kind())
                await _drained(drain, [*workers, *closers])
                stop.set()
                if workers:
                    await asyncio.wait(workers)
                close.set()  # what the workers did last is published and sealed too
        return 0

    async def _pool(self, dsn: str) -> Pool:
        pool = await create_pool(dsn, self._config.postgres.pool_size, application_name="+".join(self._roles))
        with unavailable_errors():
            async with pool.acquire() as connection:
                await migrate(connection)
        return pool


async def _close(pool: Pool) -> None:
    """Connections of a database that is gone cannot be closed in order; that must not hold up the end."""
    try:
        async with asyncio.timeout(1):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _drained(drain: asyncio.Event, workers: Sequence[asyncio.Task[None]]) -> None:
    """Returns when `drain` is set; a worker that ends before then ends the process, and its error is raised."""
    waiting = asyncio.create_task(drain.wait())
    done, _ = await asyncio.wait([waiting, *workers], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for worker in done - {waiting}:
        worker.result()
        raise RuntimeError(f"the worker {worker.get_name()} ended by itself")
