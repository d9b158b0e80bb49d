"""Owns whose message is next where feeds wait for one another. Pure: times are given.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over feeds: every message has a place on one line of virtual time, the
foremost is next, and each message puts the next one of its feed back by what it costs. So a feed that comes after a
silence waits for one message of each other feed at most, however many they have waiting, and large messages are paid
for, also by a feed that never has two of them waiting.

While there is a `level` no feed is served more often than that, except with messages that have waited long enough.
"""

from collections import Counter, deque
from collections.abc import Collection, Hashable
from typing import Final, Generic, TypeVar

import msgspec

from tocengine.model.ids import FeedName

UNIT_BYTES: Final = 16 * 1024
"""What costs one turn, however small it is: reading an ordinary message takes no less time for being short."""
BURST_S: Final = 0.5
"""For so long a feed that kept below the level may exceed it."""
TOGETHER_S: Final = 0.05
"""What a feed may send in this time goes together, so that holding back does not make a commit of each message."""


class Ticket(msgspec.Struct, eq=False, kw_only=True):
    """One message that waits. Those with the same `line` (a connection) are served in the order in which they came."""

    feed: FeedName
    size: int
    line: Hashable = None
    until: float = float("inf")
    """The time from which on it is not held back by the level."""
    counts: bool = True
    """Whether it is a message of its own: the level knows nothing of the others."""


Waiting = TypeVar("Waiting", bound=Ticket)


class _Feed(Generic[Waiting]):
    """`start` is where its first message stands in virtual time, `finish` where the next one after it may."""

    __slots__ = ("finish", "free_at", "held_until", "start", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.start = self.finish = 0
        self.free_at = 0.0  # when what it has had is worth no more than the level
        self.held_until = 0.0


class FairQueue(Generic[Waiting]):
    """Who waits, by feed. There are no more feeds than the configuration has."""

    def __init__(self) -> None:
        self._feeds: dict[FeedName, _Feed[Waiting]] = {}
        self._busy: dict[FeedName, _Feed[Waiting]] = {}  # those with messages that wait
        self._lines: dict[Hashable, deque[Waiting]] = {}  # what comes behind the one of its line that stands in a feed
        self._passed = 0  # how far virtual time has come
        self.level: float | None = None
        """Messages per second that no feed may exceed; None while there is no need."""
        self.served: Counter[FeedName] = Counter()
        """Messages by feed since whoever reads this last cleared it."""

    @property
    def empty(self) -> bool:
        """Nobody waits."""
        return not self._busy

    def waiting(self) -> Counter[FeedName]:
        """Messages that wait, by feed."""
        counted = Counter({name: len(feed.waiting) for name, feed in self._busy.items()})
        for behind in self._lines.values():
            counted.update(ticket.feed for ticket in behind)
        return counted

    def feeds(self) -> Collection[FeedName]:
        """All that have had a message."""
        return self._feeds.keys()

    def passes(self, feed: FeedName, size: int, now: float, *, counts: bool = True) -> bool:
        """Serves a message that need not wait: nobody does, and the level allows it. False: let it `enter`."""
        if self._busy:
            return False
        known = self._feed(feed)
        if self.level is not None and counts and known.held_until > now:
            return False
        known.start = max(known.finish, self._passed)
        self._charge(feed, known, size, now, counts)
        return True

    def enter(self, ticket: Waiting) -> None:
        """One more waits."""
        if ticket.line is not None:
            behind = self._lines.get(ticket.line)
            if behind is not None:
                behind.append(ticket)
                return
            self._lines[ticket.line] = deque()
        self._stand(ticket)

    def withdraw(self, ticket: Waiting) -> None:
        """It waits no longer, if it still did."""
        behind = self._lines.get(ticket.line) if ticket.line is not None else None
        if behind is not None and ticket in behind:
            behind.remove(ticket)
            return
        feed = self._busy.get(ticket.feed)
        if feed is not None and ticket in feed.waiting:
            feed.waiting.remove(ticket)
            self._step_up(ticket)
            if not feed.waiting:
                del self._busy[ticket.feed]

    def next(self, now: float) -> Waiting | None:
        """Serves the next one, if the level lets anyone."""
        chosen: _Feed[Waiting] | None = None
        for feed in self._busy.values():
            if self.level is not None and feed.held_until > now and _may_be_held(feed.waiting[0], now):
                feed.start = max(feed.start, self._passed)  # nobody saves up turns while held back
            elif chosen is None or feed.start < chosen.start:
                chosen = feed
        if chosen is None:
            return None
        ticket = chosen.waiting.popleft()
        self._charge(ticket.feed, chosen, ticket.size, now, ticket.counts)
        self._step_up(ticket)
        chosen.start = chosen.finish
        if not chosen.waiting:
            del self._busy[ticket.feed]
        return ticket

    def next_at(self, now: float) -> float | None:
        """When `next` will have one again; None where nobody waits."""
        if not self._busy:
            return None
        if self.level is None:
            return now
        return min(min(feed.waiting[0].until, feed.held_until) for feed in self._busy.values())

    def _stand(self, ticket: Waiting) -> None:
        feed = self._feed(ticket.feed)
        if not feed.waiting:
            feed.start = max(feed.finish, self._passed)
            self._busy[ticket.feed] = feed
        feed.waiting.append(ticket)

    def _step_up(self, gone: Waiting) -> None:
        """Whoever came behind it on its line stands in its feed now."""
        if gone.line is None:
            return
        behind = self._lines[gone.line]
        if behind:
            self._stand(behind.popleft())
        else:
            del self._lines[gone.line]

    def _feed(self, name: FeedName) -> _Feed[Waiting]:
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = _Feed()
        return feed

    def _charge(self, name: FeedName, feed: _Feed[Waiting], size: int, now: float, counts: bool) -> None:
        self._passed = max(self._passed, feed.start)
        feed.finish = feed.start + max(size, UNIT_BYTES)
        if not counts:
            return
        self.served[name] += 1
        if self.level is not None:
            following = max(feed.free_at, now) + 1 / self.level
            feed.free_at = min(following, now + 2 * BURST_S)  # what went through for its age is soon forgiven
            if feed.free_at - BURST_S > now:
                feed.held_until = feed.free_at - BURST_S + TOGETHER_S


def _may_be_held(ticket: Ticket, now: float) -> bool:
    return ticket.counts and ticket.until > now
