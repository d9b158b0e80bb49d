"""Owns the turns in which feeds have their messages prepared: a few at a time, and in between the loop reads what came.

Preparing a message occupies the process for about a millisecond, so many that arrive together would keep everybody
else waiting for all of them. Who asks while nobody waits goes on at once.
"""

import asyncio
from collections.abc import Hashable
from functools import lru_cache
from typing import Final

from tocengine.adapters.fair_queue import FairQueue, Ticket
from tocengine.model.ids import FeedName
from tocengine.telemetry import Metrics

AT_ONCE: Final = 2
"""Messages between two looks at the sockets: so many stand before who comes anew, and so many may share a commit."""


_ROUNDS: Final = 3
"""Of the loop, from one turn to the next: in the first one the turn is used and sockets are read, in the second one
whoever takes what they brought begins, and in the third one it is in the queue."""


class _Waiting(Ticket):
    granted: asyncio.Future[None]


class Turns:
    """One for all feeds of a process. A turn lasts until its owner awaits anything else."""

    def __init__(self, longest_wait_s: float = 3.0, metrics: Metrics | None = None) -> None:
        """`longest_wait_s`: what a message may be held back by the level; turns as such are not bounded in time."""
        self._longest_wait_s = longest_wait_s
        self._wait_seconds = lru_cache(maxsize=1024)(metrics.intake_wait.labels) if metrics else None
        self.queue: FairQueue[_Waiting] = FairQueue()
        self._taken = False  # somebody has the turn, and `_next` will be called
        self._timer: asyncio.TimerHandle | None = None

    def until(self) -> float:
        """When a message that comes now has been held back for long enough; `take` is given it for all of a batch."""
        return asyncio.get_running_loop().time() + self._longest_wait_s

    async def take(
        self, feed: FeedName, size: int, line: Hashable = None, *, until: float | None = None, counts: bool = True
    ) -> None:
        """Returns when a message of `size` bytes is to be prepared, now and without awaiting anything.

        Calls with the same `line` return in the order in which they were made. What does not count is another part of
        a message that does: it takes its turn and is not held back.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._taken and self.queue.passes(feed, size, now, counts=counts):
            self._taken = True
            loop.call_soon(self._come_back, _ROUNDS)
            return
        waiting = _Waiting(
            feed=feed,
            size=size,
            line=line,
            until=now + self._longest_wait_s if until is None else until,
            counts=counts,
            granted=loop.create_future(),
        )
        self.queue.enter(waiting)
        if not self._taken:  # whoever waits is held back: is this one, too?
            self._next()
        try:
            await waiting.granted
        except asyncio.CancelledError:
            self.queue.withdraw(waiting)
            raise
        if self._wait_seconds is not None:
            self._wait_seconds(feed).observe(loop.time() - now)

    def set_level(self, level: float | None) -> None:
        """What a feed may send from now on, in messages per second; None is all it can."""
        self.queue.level = level
        if not self._taken:
            self._next()

    def _come_back(self, rounds: int) -> None:
        if rounds > 1:
            asyncio.get_running_loop().call_soon(self._come_back, rounds - 1)
        else:
            self._next()

    def _next(self) -> None:
        """Gives turns to the next few, and comes back when they have been used."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._taken = False
        for _ in range(AT_ONCE):
            granted = self.queue.next(now)
            if granted is None:
                break
            self._taken = True
            if not granted.granted.done():  # cancelled, and not yet withdrawn
                granted.granted.set_result(None)
        if self._taken:
            loop.call_soon(self._come_back, _ROUNDS)
        elif (at := self.queue.next_at(now)) is not None:
            self._timer = loop.call_at(max(at, now + 0.001), self._next)
