"""The backoff curve and Retry-After."""

from datetime import UTC, datetime

import pytest

from tocengine.config import BackoffSettings
from tocengine.delivery.retry import Backoff, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_the_curve_doubles_up_to_its_limit() -> None:
    backoff = Backoff(BackoffSettings(first_s=1, factor=2, max_s=300, jitter=0.2))
    assert [backoff.delay_s(n, 0.0) for n in (1, 2, 3, 9, 10, 5000)] == [1, 2, 4, 256, 300, 300]


def test_jitter_is_a_share_of_the_delay() -> None:
    backoff = Backoff(BackoffSettings(first_s=10, factor=2, max_s=300, jitter=0.2))
    assert (backoff.delay_s(1, -1.0), backoff.delay_s(1, 1.0)) == (8.0, 12.0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("-3", None),
        ("999999999999999", 3600.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("²", None),
        ("tomorrow", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds
