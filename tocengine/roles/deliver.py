"""Owns how the deliver role is built: the worker with its channels, the directory it goes by, and alerts."""

import asyncio
from contextlib import AsyncExitStack, suppress

from tocengine.clock import utc_now
from tocengine.credentials import resolve_secret
from tocengine.delivery.alerts import AlertWorker
from tocengine.delivery.channels.base import HttpPoster, Surroundings
from tocengine.delivery.channels.registry import open_channels
from tocengine.delivery.networks import NetworkGuard
from tocengine.delivery.worker import DeliveryWorker
from tocengine.deployment import engine_identity
from tocengine.errors import UnavailableError
from tocengine.roles import Parts
from tocengine.routing.postgres import LiveDirectory


async def start_delivery(
    stack: AsyncExitStack, group: asyncio.TaskGroup, parts: Parts, stop: asyncio.Event
) -> list[asyncio.Task[None]]:
    """Sends notices and alerts until `stop` is set."""
    config = parts.config
    directory = LiveDirectory(parts.pool, config.routing.directory_refresh_s)
    poster = await stack.enter_async_context(HttpPoster(NetworkGuard(config.delivery.allowed_networks)))
    await directory.refresh()
    worker = DeliveryWorker(
        parts.pool,
        open_channels(Surroundings(poster=poster, identity=engine_identity(config))),
        directory,
        resolve_secret,
        parts.audit,
        parts.work_items,
        config.delivery,
        parts.metrics,
        utc_now,
    )
    alerts = AlertWorker(
        parts.pool,
        poster,
        resolve_secret,
        parts.audit,
        parts.work_items,
        config.alerts,
        [feed.name for feed in config.feeds],
        parts.metrics,
        utc_now,
        config.delivery.backoff,
    )
    return [
        group.create_task(_follow(directory, config.routing.directory_refresh_s, stop), name="directory"),
        group.create_task(worker.run(stop), name="deliver"),
        group.create_task(alerts.run(stop), name="alerts"),
    ]


async def _follow(directory: LiveDirectory, every_s: float, stop: asyncio.Event) -> None:
    """Keeps the role's directory current; while the database is away the last one stands."""
    while not stop.is_set():
        with suppress(UnavailableError):
            await directory.refresh()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
