"""Lanes under any sequence of outcomes: order kept, nothing lost, nothing told twice unless an answer was lost."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery_setting import make_notice, make_recipient, make_snapshot, webhook
from tocengine.delivery.breaker import FRESH, EndpointStanding, EndpointStatus
from tocengine.delivery.breaker import after_attempt as endpoint_after
from tocengine.delivery.freshness import Ended, Head, Ready, Waiting, check
from tocengine.delivery.lifecycle import after_attempt
from tocengine.model.notice import Failure, NoticeState, Outcome

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AGE = timedelta(hours=2)
RECIPIENT = make_recipient(webhook("https://a.example.org/n", "first"), webhook("https://b.example.org/n", "second"))
SNAPSHOT = make_snapshot()

taken = st.builds(Outcome, delivered=st.booleans())
failures = st.builds(
    Outcome,
    failure=st.sampled_from(Failure),
    delivered=st.just(False),
    reached=st.booleans(),
    retry_after_s=st.none() | st.floats(0, 300),
)
steps = st.lists(st.tuples(taken | failures, st.booleans()), max_size=60)


class Lane:
    """A lane of notices, a clock, and a receiver that remembers what it may hold."""

    def __init__(self, count: int) -> None:
        self.now = START
        self.heads = [
            Head(
                notice=make_notice(SNAPSHOT, created_at=START),
                endpoint=0,
                attempts=0,
                possibly_told=False,
                expires_at=START + AGE,
            )
            for _ in range(count)
        ]
        self.waiting = list(range(count))
        self.ended: dict[int, NoticeState] = {}
        self.endpoints: dict[str, EndpointStanding] = {}
        self.arrivals: list[int] = []
        self.lost_answers: set[int] = set()

    def step(self, outcome: Outcome, taken_in_silence: bool) -> None:
        """The worker looks at the lane and, if it may, sends its head; then time goes on to what it says."""
        place = self.waiting[0]
        head = self.heads[place]
        match found := check(head, RECIPIENT, self.endpoints, self.now, AGE):
            case Ended():
                self._end(place, found.state)
            case Waiting():
                self._pass_time(found.endpoint_id)
            case Ready():
                self._send(place, head, found, outcome, taken_in_silence)

    def _send(self, place: int, head: Head, ready: Ready, outcome: Outcome, silent: bool) -> None:
        if outcome.failure is None:
            self.arrivals.append(place)
        elif outcome.reached and silent:
            self.arrivals.append(place)
            self.lost_answers.add(place)
        verdict = after_attempt(ready.standing, outcome, self.now, 5.0, AGE)
        name = ready.endpoint.id
        self.endpoints[name] = endpoint_after(
            self.endpoints.get(name, FRESH),
            outcome,
            self.now,
            probe=False,
            threshold=3,
            delay_s=lambda count: 10.0 * count,
        )
        if place in self.lost_answers:
            assert verdict.possibly_told, "what may have arrived must be known as such"
        if verdict.ended:
            self._end(place, verdict.state)
            return
        self.heads[place] = Head(
            notice=head.notice,
            endpoint=verdict.endpoint,
            attempts=ready.standing.attempt,
            possibly_told=verdict.possibly_told,
            expires_at=verdict.expires_at,
        )
        assert verdict.due_at is None or verdict.due_at >= self.now
        self.now = verdict.due_at or self.now

    def _end(self, place: int, state: NoticeState) -> None:
        self.ended[place] = state
        self.waiting.remove(place)

    def _pass_time(self, endpoint_id: str) -> None:
        known = self.endpoints[endpoint_id]
        if known.status is EndpointStatus.PAUSED:
            self.endpoints[endpoint_id] = FRESH  # a person resumes it
        elif known.not_before is not None:
            assert known.not_before > self.now
            self.now = known.not_before


@given(count=st.integers(1, 5), script=steps)
@settings(deadline=None)
def test_a_lane_keeps_its_promises(count: int, script: list[tuple[Outcome, bool]]) -> None:
    lane = Lane(count)
    for outcome, silent in script:
        if lane.waiting:
            lane.step(outcome, silent)
    for _ in range(20 * count):  # the receiver takes everything from here on
        if lane.waiting:
            lane.step(Outcome(), False)
    assert not lane.waiting, "every notice ends"
    assert all(first <= second for first, second in pairwise(lane.arrivals)), "in order"
    for place, state in lane.ended.items():
        times = lane.arrivals.count(place)
        if state in (NoticeState.DELIVERED, NoticeState.SENT):
            assert times >= 1
        assert times <= 1 or place in lane.lost_answers, "twice only where the answer was lost"
        if state is NoticeState.FAILED and times:
            assert place in lane.lost_answers
