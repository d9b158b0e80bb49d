"""What the worker does with what it sees: a level while routing lags, none where nobody knows, and both to be seen."""

import asyncio

import pytest

from tocengine.adapters.pace import Pace
from tocengine.adapters.pace_worker import PaceWorker
from tocengine.adapters.turns import Turns
from tocengine.errors import UnavailableError
from tocengine.model.ids import FeedName
from tocengine.ports import Progress
from tocengine.telemetry import Metrics

FLOOD, QUIET = FeedName("flood"), FeedName("quiet")
LEAST = 10.0


class _Log:
    """Routing stands still; `fails` is raised where it is set."""

    def __init__(self) -> None:
        self.appended = 0
        self.fails: Exception | None = None

    async def look(self) -> Progress:
        if self.fails is not None:
            raise self.fails
        return Progress(self.appended, 0)

    async def close(self) -> None:
        return


class _Setting:
    """Looks every 10 ms at a log whose lag may be 20 ms."""

    def __init__(self) -> None:
        self.log, self.metrics = _Log(), Metrics()
        self.turns = Turns(0.3, self.metrics)
        self.worker = PaceWorker(self.log, Pace(0.02, LEAST), self.turns, self.metrics, look_s=0.01)

    async def send(self, feed: FeedName, count: int) -> None:
        await asyncio.gather(*(self.turns.take(feed, 2000) for _ in range(count)))
        self.log.appended += count

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def lag(self) -> None:
        """Routing stands still while much is sent, until the level is at its least."""
        async with asyncio.timeout(10):
            while self.turns.queue.level != LEAST:
                self.log.appended += 20
                await self.worker.look()
                await asyncio.sleep(0.01)


async def test_a_feed_is_held_back_while_routing_stands_still_and_it_shows() -> None:
    setting = _Setting()
    await setting.worker.look()
    assert setting.sample("tocengine_intake_level") == 0
    await setting.lag()
    flood = [asyncio.create_task(setting.send(FLOOD, 1)) for _ in range(50)]
    await asyncio.wait_for(setting.send(QUIET, 1), 0.2)
    assert sum(task.done() for task in flood) < 50
    await setting.worker.look()
    assert (setting.sample("tocengine_intake_waiting", feed=FLOOD) or 0) > 0
    assert setting.sample("tocengine_intake_waiting", feed=QUIET) == 0
    assert (setting.sample("tocengine_intake_lag_seconds") or 0) > 0
    assert (setting.sample("tocengine_intake_level") or 0) == LEAST
    await asyncio.wait_for(asyncio.gather(*flood), 5)
    assert (setting.sample("tocengine_intake_wait_seconds_sum", feed=FLOOD) or 0) > 0.3


async def test_nobody_is_held_back_where_the_lag_is_unknown_whatever_the_reason() -> None:
    for error in (UnavailableError("down"), TimeoutError(), RuntimeError("a defect")):
        setting = _Setting()
        await setting.lag()
        setting.log.fails = error
        await setting.worker.look()
        assert setting.turns.queue.level is None
        await asyncio.wait_for(setting.send(FLOOD, 200), 1)


async def test_the_end_holds_nobody_back() -> None:
    setting = _Setting()
    await setting.lag()
    stop = asyncio.Event()
    stop.set()
    await setting.worker.run(stop)
    assert setting.turns.queue.level is None


async def test_what_was_sent_since_an_outage_counts_for_the_time_since_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, rates = _Setting(), list[float]()
    monkeypatch.setattr(Pace, "seen", lambda _pace, _now, _seen, busiest: rates.append(busiest))
    await setting.worker.look()
    setting.worker._looked_at -= 60  # long ago
    setting.log.fails = UnavailableError("away")
    await setting.worker.look()
    await setting.send(FLOOD, 20)
    setting.log.fails = None
    await setting.worker.look()
    assert rates[-1] > 20 / 30
