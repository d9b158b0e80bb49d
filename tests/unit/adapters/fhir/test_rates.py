"""A sender may burst, then goes at its rate; one never takes from another."""

from hypothesis import given
from hypothesis import strategies as st

from tocengine.adapters.fhir.rates import RateLimiter


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(per_minute=60, burst=3)
    assert [limiter.wait_s("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.wait_s("a", 0.0) == 1.0
    assert limiter.wait_s("b", 0.0) == 0.0
    assert limiter.wait_s("a", 1.0) == 0.0
    assert limiter.wait_s("a", 1.0) > 0


def test_a_client_may_have_a_rate_of_its_own() -> None:
    limiter = RateLimiter(per_minute=6000, burst=100)
    assert limiter.wait_s("a", 0.0, per_minute=1) == 0.0
    assert limiter.wait_s("a", 0.0, per_minute=1) == 60.0


def test_what_is_remembered_is_bounded() -> None:
    limiter = RateLimiter(per_minute=60, burst=1, max_senders=2)
    for sender in "abc":
        limiter.wait_s(sender, 0.0)
    assert limiter.wait_s("a", 0.0) == 0.0  # forgotten: better let in once more than grow for ever
    assert limiter.wait_s("c", 0.0) > 0


@given(st.lists(st.floats(0, 2), min_size=1, max_size=80), st.integers(1, 600), st.integers(1, 20))
def test_no_more_than_burst_and_rate_ever_pass(pauses: list[float], per_minute: int, burst: int) -> None:
    limiter, now, passed = RateLimiter(per_minute, burst), 0.0, 0
    for pause in pauses:
        now += pause
        passed += limiter.wait_s("a", now) == 0.0
    assert passed <= burst + now * per_minute / 60 + 1e-6
