"""Owns which events of a subscription were heard: the highest number, and those below it that are missing. Pure.

Numbers count from 1 at the start of a subscription, without gaps (Subscriptions R5 Backport 1.2); a notification can
be repeated, come late, or never.
"""

from collections.abc import Sequence

import msgspec

MAX_RANGES = 1000


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """`missing` are ranges (first, last) of numbers up to `highest` that never came, in order, without overlap."""

    highest: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    status: str = ""


class Heeded(msgspec.Struct, frozen=True):
    """What a notification changed: ranges that are found missing now, and whether nothing is missing any more."""

    heard: Heard
    newly_missing: tuple[tuple[int, int], ...] = ()
    complete: bool = False


def heed(heard: Heard | None, numbers: Sequence[int], total: int, status: str = "") -> Heeded:
    """After a notification with events `numbers`, sent when `total` events had happened.

    Of a subscription that was never heard of (None), what was before is not known to be missing: the engine may be
    new to it.
    """
    if heard is None:
        start = min(numbers) - 1 if numbers else total
        heard = Heard(highest=start)
    gaps = list(heard.missing)
    found: list[tuple[int, int]] = []
    highest = heard.highest
    for number in sorted({*numbers}):
        if number > highest:
            if number > highest + 1:
                found.append((highest + 1, number - 1))
            highest = number
        else:
            gaps = [piece for gap in gaps for piece in _without(gap, number)]
    if total > highest:  # a heartbeat tells of events that were not heard
        found.append((highest + 1, total))
        highest = total
    missing = _bounded(gaps + found)
    complete = bool(heard.missing) and not missing
    return Heeded(Heard(highest, missing, status or heard.status), tuple(found), complete)


def restart(total: int, status: str) -> Heard:
    """After a handshake: the subscription starts, or starts anew, at `total`."""
    return Heard(highest=total, status=status)


def _bounded(missing: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """At most `MAX_RANGES` ranges: the oldest become one that covers them, so that what is missing stays missing."""
    beyond = len(missing) - MAX_RANGES
    if beyond <= 0:
        return tuple(missing)
    return ((missing[0][0], missing[beyond][1]), *missing[beyond + 1 :])


def _without(gap: tuple[int, int], number: int) -> list[tuple[int, int]]:
    first, last = gap
    if not first <= number <= last:
        return [gap]
    return [piece for piece in ((first, number - 1), (number + 1, last)) if piece[0] <= piece[1]]
