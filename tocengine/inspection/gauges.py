"""Owns the gauges that are read from the database when somebody looks: what is open, by state."""

import asyncio
from contextlib import suppress

from tocengine.errors import UnavailableError
from tocengine.postgres import Pool, load_queries, unavailable_errors
from tocengine.telemetry import Metrics

QUERIES = load_queries(__package__)
OPEN_STATES = ("QUEUED", "HELD", "SENDING")


class Gauges:
    """Refreshed by each scrape; an outage leaves the last values and shows in `/readyz`."""

    def __init__(self, pool: Pool, metrics: Metrics) -> None:
        self._pool, self._metrics = pool, metrics

    async def reachable(self) -> bool:
        """Whether the database answers."""
        with suppress(UnavailableError), unavailable_errors():
            async with asyncio.timeout(1):  # getting a connection included
                return bool(await self._pool.fetchval("select true"))
        return False

    async def refresh(self) -> None:
        """Open notices by state, endpoints that are stopped, events held back."""
        with suppress(UnavailableError), unavailable_errors():
            async with asyncio.timeout(2):  # a supervisor waits 3 s for the page
                found = {row["state"]: row["count"] for row in await self._pool.fetch(QUERIES["gauge_notices"])}
                stopped = await self._pool.fetchval(QUERIES["gauge_endpoints"])
                held = await self._pool.fetchval(QUERIES["gauge_held"])
            for state in OPEN_STATES:
                self._metrics.notices.labels(state).set(found.get(state, 0))
            self._metrics.endpoints_paused.set(stopped)
            self._metrics.held_events.set(held)
