"""The level: it comes down until what comes in goes out, spares whoever sends little, and is gone afterwards."""

import pytest

from tocengine.adapters.pace import MOST_SAMPLES, Pace
from tocengine.ports import Progress

LOOK_S = 0.5
LIMIT_S = 1.0
LEAST = 10.0


class _Engine:
    """Two feeds before a log, and routing that takes so many events per second in batches; times in steps of a look."""

    def __init__(self, takes: float, batch: int = 100) -> None:
        self.pace = Pace(LIMIT_S, LEAST)
        self.takes, self.batch = takes, batch
        self.now = self.appended = self.applied = self.ready = 0.0
        self.lags: list[float] = []
        self.levels: list[float] = []

    def run(self, seconds: float, *wants: float) -> list[float]:
        """What each feed sends in the end, wanting so many messages per second."""
        sent = [0.0 for _ in wants]
        for _ in range(int(seconds / LOOK_S)):
            level = self.pace.level or float("inf")
            sent = [min(each, level) for each in wants]
            self.now += LOOK_S
            self.appended += sum(sent) * LOOK_S
            self.ready = min(self.appended - self.applied, self.ready + self.takes * LOOK_S)
            if self.ready >= min(self.batch, self.appended - self.applied):
                self.applied += self.ready
                self.ready = 0.0
            self.pace.seen(self.now, Progress(round(self.appended), round(self.applied)), max(sent))
            self.lags.append(self.pace.lag_s)
            self.levels.append(self.pace.level or float("inf"))
        return sent


def test_nobody_is_held_back_while_routing_keeps_up() -> None:
    engine = _Engine(takes=350)
    engine.run(30, 200, 100, 30)
    assert set(engine.levels) == {float("inf")}


def test_a_flood_gets_what_the_others_leave_and_they_notice_nothing() -> None:
    engine = _Engine(takes=350)
    engine.run(20, 700, 30)
    engine.lags.clear()
    engine.levels.clear()
    total = engine.appended
    engine.run(60, 700, 30)
    assert min(engine.levels) > 100
    assert max(engine.lags) < 3 * LIMIT_S
    assert sum(engine.lags) / len(engine.lags) < 1.5 * LIMIT_S
    assert (engine.appended - total) / 60 == pytest.approx(350, rel=0.1)


def test_the_level_is_gone_when_the_flood_is() -> None:
    engine = _Engine(takes=350)
    engine.run(20, 700, 30)
    engine.run(15, 30)
    assert engine.pace.level is None
    assert engine.pace.lag_s < LIMIT_S / 2


def test_feeds_that_send_alike_are_held_back_alike() -> None:
    engine = _Engine(takes=300)
    sent = engine.run(60, 200, 200, 200)
    assert sum(sent) == pytest.approx(300, rel=0.35)
    assert len(set(sent)) == 1


def test_while_nothing_is_routed_every_feed_may_send_the_least_and_no_less() -> None:
    engine = _Engine(takes=0)
    engine.run(60, 5000, LEAST)
    assert engine.pace.level == LEAST
    engine.takes = 350
    engine.run(600, 200, LEAST)
    assert engine.pace.level is None


def test_samples_are_bounded_and_the_lag_is_known_all_the_same() -> None:
    engine = _Engine(takes=0)
    engine.run(3600, 10)
    assert engine.pace.lag_s == pytest.approx(3600, rel=0.05)
    assert len(engine.pace._samples) <= MOST_SAMPLES


def test_the_lag_is_the_age_of_what_is_next() -> None:
    pace = Pace(LIMIT_S, LEAST)
    pace.seen(0, Progress(0, 0), 0)
    pace.seen(1, Progress(100, 0), 100)
    pace.seen(2, Progress(200, 50), 100)
    assert pace.lag_s == pytest.approx(1.5)
    pace.seen(3, Progress(200, 200), 0)
    assert pace.lag_s == 0


def test_a_limit_of_zero_and_an_unknown_lag_hold_nobody_back() -> None:
    never = Pace(0, LEAST)
    assert [never.seen(at, Progress(1000 * at, 0), 1000) for at in range(20)] == [None] * 20
    engine = _Engine(takes=0)
    engine.run(20, 5000)
    assert engine.pace.level is not None
    engine.pace.unknown()
    assert engine.pace.level is None
