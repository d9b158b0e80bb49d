"""Owns when to try again: the backoff curve, and what a receiver's Retry-After asks for. Pure."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState, Retrying, wait_exponential

from tocengine.config import BackoffSettings

LONGEST_RETRY_AFTER_S = 3600.0
"""A receiver may ask for an hour's rest at most; what it asks for beyond that is a mistake or mischief."""

_NO_RETRYING = Retrying()


class Backoff:
    """The exponential curve of ``[delivery] backoff``, with the jitter passed in."""

    def __init__(self, settings: BackoffSettings) -> None:
        self._wait = wait_exponential(multiplier=settings.first_s, exp_base=settings.factor, max=settings.max_s)
        self._share = settings.jitter

    def delay_s(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1); `jitter` is in [-1, 1]."""
        state = RetryCallState(_NO_RETRYING, fn=None, args=(), kwargs={})
        state.attempt_number = max(1, attempt)
        return max(0.0, self._wait(state) * (1 + self._share * jitter))


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds a Retry-After header asks for (RFC 9110 section 10.2.3: seconds or an HTTP date).

    None where there is none or it cannot be read; never negative, never more than an hour.
    """
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
