"""Owns how often a client may send: a bucket that fills with time and empties with requests. Pure: `now` is given."""

from collections import OrderedDict

MAX_SENDERS = 10_000


class RateLimiter:
    """One bucket per sender, of this process. The longest unseen one is forgotten where there are too many."""

    def __init__(self, per_minute: int, burst: int, max_senders: int = MAX_SENDERS) -> None:
        self._per_minute, self._burst, self._max = per_minute, burst, max_senders
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (requests left, as of)

    def wait_s(self, sender: str, now: float, per_minute: int | None = None) -> float:
        """0 where the request may go on, which it counts for; else the seconds after which one may."""
        rate = (per_minute or self._per_minute) / 60
        burst = min(self._burst, max(1, per_minute)) if per_minute else self._burst
        left, as_of = self._buckets.pop(sender, (float(burst), now))
        left = min(float(burst), left + max(0.0, now - as_of) * rate)
        allowed = left >= 1
        self._buckets[sender] = (left - 1 if allowed else left, now)
        if len(self._buckets) > self._max:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / rate
