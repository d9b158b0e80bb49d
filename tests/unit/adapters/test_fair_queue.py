"""Who is next: bounded waiting, shares by bytes, order of a line, and the level that holds feeds back."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tocengine.adapters.fair_queue import BURST_S, UNIT_BYTES, FairQueue, Ticket
from tocengine.model.ids import FeedName

FLOOD, QUIET = FeedName("flood"), FeedName("quiet")
SMALL = 2000
FEEDS = [FeedName(name) for name in "abcde"]


def _ticket(feed: FeedName, size: int = SMALL, line: object = None, until: float = float("inf")) -> Ticket:
    return Ticket(feed=feed, size=size, line=line, until=until)


def _served(queue: FairQueue[Ticket], count: int, now: float = 0.0) -> list[FeedName]:
    return [ticket.feed for _ in range(count) if (ticket := queue.next(now)) is not None]


def _fill(queue: FairQueue[Ticket], feed: FeedName, count: int, size: int = SMALL, until: float = float("inf")) -> None:
    for _ in range(count):
        queue.enter(_ticket(feed, size, until=until))


def test_a_quiet_feed_waits_for_one_message_of_each_other_feed() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    for feed in FEEDS:
        _fill(queue, feed, 64)
    _served(queue, 7)
    queue.enter(_ticket(QUIET))
    assert QUIET in _served(queue, len(FEEDS) + 1)


def test_feeds_that_send_all_they_can_get_equal_turns() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    _fill(queue, FLOOD, 100)
    _fill(queue, QUIET, 100)
    assert Counter(_served(queue, 50)) == {FLOOD: 25, QUIET: 25}


def test_large_messages_are_paid_for() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    _fill(queue, FLOOD, 100, size=4 * UNIT_BYTES)
    _fill(queue, QUIET, 100)
    assert Counter(_served(queue, 50)) == {FLOOD: 10, QUIET: 40}


def test_large_messages_are_paid_for_by_a_feed_that_stops_and_waits() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    _fill(queue, QUIET, 100)
    served: list[FeedName] = []
    queue.enter(_ticket(FLOOD, 4 * UNIT_BYTES))
    while len(served) < 50:
        served += _served(queue, 1)
        if served[-1] == FLOOD:
            queue.enter(_ticket(FLOOD, 4 * UNIT_BYTES))
    assert served.count(FLOOD) <= 11


def test_who_comes_while_nobody_waits_passes() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    assert queue.passes(FLOOD, SMALL, 0.0)
    assert queue.empty
    queue.enter(_ticket(FLOOD))
    assert not queue.passes(QUIET, SMALL, 0.0)


def test_what_waits_is_counted_by_feed() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    for feed, line in ((FLOOD, 1), (FLOOD, 1), (QUIET, 1), (QUIET, 2)):
        queue.enter(_ticket(feed, line=line))
    assert queue.waiting() == {FLOOD: 2, QUIET: 2}


def test_no_feed_exceeds_the_level_by_more_than_its_burst() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    queue.level = 20.0
    _fill(queue, FLOOD, 1000)
    served = [now / 100 for now in range(500) if queue.next(now / 100)]
    assert 20 * 5 <= len(served) <= 20 * (5 + BURST_S) + 1
    assert queue.next_at(5.0) is not None


def test_the_level_does_not_hold_back_whoever_is_below_it() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    queue.level = 20.0
    _fill(queue, FLOOD, 1000)
    waited = 0
    for step in range(1, 500):
        if step % 10 == 0:
            queue.enter(_ticket(QUIET))
            waited += not any(feed == QUIET for feed in _served(queue, 2, step / 100))
        else:
            queue.next(step / 100)
    assert waited == 0


def test_what_has_waited_long_enough_goes_whatever_the_level() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    queue.level = 1.0
    _fill(queue, FLOOD, 100, until=3.0)
    held = len(_served(queue, 100, 0.0))
    assert held <= 2
    assert queue.next_at(0.1) is not None
    assert len(_served(queue, 100, 3.0)) == 100 - held


def test_what_was_held_back_does_not_go_before_everybody_else_then() -> None:
    queue: FairQueue[Ticket] = FairQueue()
    queue.level = 1.0
    _fill(queue, FLOOD, 100, until=3.0)
    for step in range(200):
        queue.enter(_ticket(FEEDS[step % 5]))
        queue.next(step / 100)
    queue.level = None
    _fill(queue, QUIET, 3)
    assert QUIET in _served(queue, 2 + len(FEEDS), 3.0)


@st.composite
def _arrivals(draw: st.DrawFn) -> list[tuple[FeedName, int, int | None]]:
    """Feed, size and line."""
    one = st.tuples(st.sampled_from(FEEDS), st.integers(1, 5 * UNIT_BYTES), st.one_of(st.none(), st.integers(0, 3)))
    return draw(st.lists(one, max_size=60))


@given(_arrivals(), st.lists(st.booleans(), max_size=150), st.one_of(st.none(), st.floats(1, 50)))
def test_everybody_is_served_once_and_a_line_in_its_order(
    arrivals: list[tuple[FeedName, int, int | None]], choices: list[bool], level: float | None
) -> None:
    queue: FairQueue[Ticket] = FairQueue()
    queue.level = level
    came: list[Ticket] = []
    went: list[Ticket] = []
    coming, now = iter(arrivals), 0.0
    for comes in [*choices, *(True for _ in arrivals)]:
        now += 0.01
        if comes and (arrival := next(coming, None)) is not None:
            came.append(_ticket(*arrival, until=now + 3))
            queue.enter(came[-1])
        elif (ticket := queue.next(now)) is not None:
            went.append(ticket)
    while not queue.empty:
        at = queue.next_at(now)
        assert at is not None
        assert at <= now + 3
        now = max(now, at) + 1e-6
        if (ticket := queue.next(now)) is not None:
            went.append(ticket)
    assert sorted(map(id, went)) == sorted(map(id, came))
    for line in {ticket.line for ticket in came} - {None}:
        assert [id(each) for each in went if each.line == line] == [id(each) for each in came if each.line == line]
    assert queue.next_at(now) is None


@given(_arrivals(), st.data())
def test_no_feed_waits_for_more_than_one_message_of_each_other_one(
    arrivals: list[tuple[FeedName, int, int | None]], data: st.DataObject
) -> None:
    """Whatever came before: a feed with nothing waiting, and nothing owed for large messages, is served by then."""
    queue: FairQueue[Ticket] = FairQueue()
    for feed, size, _ in arrivals:
        queue.enter(_ticket(feed, size))
        if data.draw(st.booleans()):
            queue.next(0.0)
    queue.enter(_ticket(QUIET))
    others = {feed for feed, count in queue.waiting().items() if count} - {QUIET}
    before = _served(queue, len(arrivals) + 1)
    before = before[: before.index(QUIET)]
    assert len(before) <= len(others)
    assert max(Counter(before).values(), default=0) <= 1


@given(_arrivals(), st.sets(st.integers(0, 59)))
def test_who_withdraws_is_not_served_and_holds_nobody_up(
    arrivals: list[tuple[FeedName, int, int | None]], leaving: set[int]
) -> None:
    queue: FairQueue[Ticket] = FairQueue()
    came = [_ticket(*arrival) for arrival in arrivals]
    for ticket in came:
        queue.enter(ticket)
    for number in leaving:
        if number < len(came):
            queue.withdraw(came[number])
    left = [id(ticket) for number, ticket in enumerate(came) if number not in leaving]
    went: list[int] = []
    while (served := queue.next(0.0)) is not None:
        went.append(id(served))
    assert sorted(went) == sorted(left)
    assert queue.empty
    assert not queue.waiting()
