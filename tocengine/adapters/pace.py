"""Owns how much feeds may send while routing lags behind what they send. Pure: what was seen is given.

There is one level for all feeds, in messages per second. It starts at what the busiest feed sends and is moved, each
time somebody looked, by the ratio of what routing takes to what is appended, so that it comes down until feeds above it
send together what those below leave over. Feeds below it never notice.
"""

from collections import deque
from typing import Final

import msgspec

from tocengine.ports import Progress

RATES_S: Final = 2.6
"""The time over which is measured what routing takes: it moves in batches."""
EARLIEST_S: Final = 0.05
UP, DOWN = 1.5, 0.5
"""What one look may do to the level, at most."""
HALF: Final = 0.5
"""What is let in of what goes out, however long the lag: a backlog is worked off, and nobody is shut out."""
MOST_SAMPLES: Final = 512
ROOM: Final = 4.0
"""The level is forgotten where it is so many times what anybody sends."""


class _Sample(msgspec.Struct, frozen=True):
    at: float
    appended: int
    applied: int


class Pace:
    """Follows one log. `limit_s` is the lag at which no more is let in than goes out; 0 is never.

    `least` is the level below which it never goes: what every feed may send, whatever happens to routing.
    """

    def __init__(self, limit_s: float, least: float) -> None:
        self._limit_s, self._least = limit_s, least
        self._samples: deque[_Sample] = deque()
        self.level: float | None = None
        self.lag_s = 0.0
        """How long ago the next event to be routed was appended."""

    def unknown(self) -> None:
        """Nobody can say how far routing is: nobody is held back."""
        self._samples.clear()
        self.level, self.lag_s = None, 0.0

    def seen(self, now: float, progress: Progress, busiest: float) -> float | None:
        """The level from now on, where the busiest feed has just had `busiest` messages per second."""
        if self._samples and progress.appended < self._samples[-1].appended:
            self._samples.clear()  # another log
        self._samples.append(_Sample(now, progress.appended, progress.applied))
        self.lag_s = self._lag(now, progress)
        while len(self._samples) > 2 and self._old(self._samples[1]):
            self._samples.popleft()
        if len(self._samples) > MOST_SAMPLES:  # routing is down for long: less exactly then
            self._samples = deque([*list(self._samples)[:-8:2], *list(self._samples)[-8:]])
        if self._limit_s:
            self.level = self._moved(busiest)
        return self.level

    def _old(self, sample: _Sample) -> bool:
        """No longer needed: neither for rates nor to say when what routing is at was appended."""
        newest = self._samples[-1]
        return sample.at < newest.at - RATES_S and sample.appended <= newest.applied

    def _lag(self, now: float, progress: Progress) -> float:
        if progress.applied >= progress.appended:
            return 0.0
        before = self._samples[0]
        for sample in self._samples:
            if sample.appended > progress.applied:
                passed = max(0, progress.applied - before.appended) / max(1, sample.appended - before.appended)
                return now - (before.at + (sample.at - before.at) * passed)
            before = sample
        return 0.0

    def _moved(self, busiest: float) -> float | None:
        """Below half the limit there is no need; at the limit as much comes in as goes out; above it, less."""
        calm = self.lag_s <= self._limit_s / 2
        if self.level is None and calm:
            return None
        urgency = max(2 - self.lag_s / self._limit_s, HALF)
        newest, before = self._samples[-1], self._samples[-2 if len(self._samples) > 1 else -1]
        recent = (each for each in self._samples if newest.at - RATES_S <= each.at < newest.at)
        earlier = next(recent, before)
        taken = (newest.applied - earlier.applied) / max(newest.at - earlier.at, EARLIEST_S)
        appended = (newest.appended - before.appended) / max(newest.at - before.at, EARLIEST_S)
        factor = min(max(urgency * taken / appended, DOWN), UP) if appended else 1.0
        if calm:
            factor = max(factor, urgency)
        known = self.level or busiest
        level = max(self._least, factor * (min(known, busiest) if factor < 1 else known))
        much = ROOM * max(busiest, self._least)
        return None if calm and level >= much else min(level, much)
