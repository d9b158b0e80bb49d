"""Owns how the stages of each role are built: one module a role, so that a process loads only the stages it runs."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import Config
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the roles of a process share."""

    config: Config
    dsn: str
    pool: Pool
    metrics: Metrics
    audit: PostgresAuditTrail
    work_items: PostgresWorkItems


async def until(stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work`, which does not end by itself, until `stop` is set."""
    working, stopping = asyncio.ensure_future(work()), asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
    else:
        working.cancel()
        await asyncio.wait([working])
