"""Owns an endpoint's standing: active, paused, disabled, or left alone for a while (circuit breaker). Pure.

A receiver that is down costs one probe at growing distances, however many lanes wait for it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from tocengine.model.notice import Failure, Outcome


class EndpointStatus(StrEnum):
    """Whether an endpoint may be used at all."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"  # 401, 403, unusable secret or address; resumed by a person
    DISABLED = "DISABLED"  # 410


class EndpointStanding(msgspec.Struct, frozen=True, kw_only=True):
    """`failures` counts consecutive failed attempts; nothing but one probe is sent before `not_before`."""

    status: EndpointStatus = EndpointStatus.ACTIVE
    not_before: datetime | None = None
    failures: int = 0
    reason: str = ""


FRESH = EndpointStanding()
"""An endpoint nothing is known against."""


def after_attempt(
    standing: EndpointStanding,
    outcome: Outcome,
    now: datetime,
    *,
    probe: bool,
    threshold: int,
    delay_s: Callable[[int], float],
) -> EndpointStanding:
    """The standing after one more outcome; `delay_s(n)` is the wait after the n-th failure beyond the threshold.

    Any answer of the application, a refusal of the one notice too, shows that the receiver is there. What
    was already under way when the breaker opened neither opens it further nor closes it.
    """
    waiting = standing.not_before is not None and now < standing.not_before and not probe
    match outcome.failure:
        case Failure.PAUSE if standing.status is EndpointStatus.ACTIVE:
            return msgspec.structs.replace(standing, status=EndpointStatus.PAUSED, reason=outcome.detail)
        case Failure.DISABLE:
            return msgspec.structs.replace(standing, status=EndpointStatus.DISABLED, reason=outcome.detail)
        case Failure.TRANSIENT | Failure.AMBIGUOUS:
            return _failed(standing, outcome, now, waiting=waiting, threshold=threshold, delay_s=delay_s)
        case _:
            not_before = standing.not_before if waiting else None
            return msgspec.structs.replace(standing, failures=0, not_before=not_before)


def _failed(
    standing: EndpointStanding,
    outcome: Outcome,
    now: datetime,
    *,
    waiting: bool,
    threshold: int,
    delay_s: Callable[[int], float],
) -> EndpointStanding:
    failures = standing.failures if waiting else standing.failures + 1
    not_before = standing.not_before if waiting else None
    if not waiting and failures >= threshold:
        not_before = now + timedelta(seconds=delay_s(failures - threshold + 1))
    if outcome.retry_after_s is not None:
        asked = now + timedelta(seconds=outcome.retry_after_s)
        not_before = asked if not_before is None else max(not_before, asked)
    return msgspec.structs.replace(standing, failures=failures, not_before=not_before)
