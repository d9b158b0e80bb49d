"""Owns looking at how far routing lags, twice a second, and saying to the turns what feeds may send meanwhile."""

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from tocengine.adapters.pace import Pace
from tocengine.adapters.turns import Turns
from tocengine.ports import LogProgress
from tocengine.telemetry import Metrics

LOOK_S: Final = 0.5
LOOK_TIMEOUT_S: Final = 5.0

_log = structlog.get_logger()


class PaceWorker:
    """Moves the level of `turns`. Where the lag cannot be known there is none."""

    def __init__(
        self, progress: LogProgress, pace: Pace, turns: Turns, metrics: Metrics, look_s: float = LOOK_S
    ) -> None:
        self._progress, self._pace, self._turns, self._metrics, self._look_s = progress, pace, turns, metrics, look_s
        self._looked_at = 0.0
        self._known = True

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; holds nobody back afterwards."""
        while not stop.is_set():
            await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._look_s)
        self._set(None)

    async def look(self) -> None:
        """Looks once."""
        queue, before = self._turns.queue, self._pace.level
        since, self._looked_at = self._looked_at, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                seen = await self._progress.look()
        except Exception as error:  # an outage, or a defect of ours: neither may hold senders back
            self._pace.unknown()
            if self._known:
                _log.warning("routing_lag_unknown", error_type=type(error).__name__)
            self._known = False
        else:
            self._known = True
            now = asyncio.get_running_loop().time()
            busiest = max(queue.served.values(), default=0) / max(now - since, self._look_s)
            self._pace.seen(now, seen, busiest)
        queue.served.clear()
        self._set(self._pace.level)
        if before is None and self._pace.level is not None:
            _log.warning("feeds_held_back", seconds=round(self._pace.lag_s, 1), count=round(self._pace.level))
        elif before is not None and self._pace.level is None:
            _log.info("feeds_no_longer_held_back", seconds=round(self._pace.lag_s, 1))

    def _set(self, level: float | None) -> None:
        self._turns.set_level(level)
        self._metrics.intake_level.set(level or 0)
        self._metrics.intake_lag.set(self._pace.lag_s)
        waiting = self._turns.queue.waiting()
        for feed in self._turns.queue.feeds():
            self._metrics.intake_waiting.labels(feed).set(waiting[feed])
