"""Owns what is remembered of texts that senders repeat: bounded by their number, and by their length, which is theirs
to choose. A memory of long texts would fill a process with a few thousand messages.

These bounds have neither setting nor metric: nobody notices when one is reached. What is forgotten is found again in
some microseconds, and all of them full of texts of the greatest length are some 100 MB (by estimate).
"""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, TypeVarTuple

Said = TypeVarTuple("Said")
Found = TypeVar("Found")

LONGEST = 256
"""Characters of a text that is remembered; no code, name or number of the field comes near it."""


def length(said: object) -> int:
    """Characters of a text or of a key (`domain`, `value`), both of which senders choose; 0 of anything else."""
    if isinstance(said, str | bytes):
        return len(said)
    domain, value = getattr(said, "domain", None), getattr(said, "value", None)
    return len(domain) + len(value) if isinstance(domain, str) and isinstance(value, str) else 0


def remembered(maxsize: int) -> Callable[[Callable[[*Said], Found]], Callable[[*Said], Found]]:
    """Keeps what a pure function gave, never None, for up to `maxsize` arguments, then begins anew.

    What has a long text among them is not kept.
    """

    def keeping(function: Callable[[*Said], Found]) -> Callable[[*Said], Found]:
        kept: dict[tuple[*Said], Found] = {}

        def learned(said: tuple[*Said]) -> Found:
            found = function(*said)
            if max(map(length, said), default=0) <= LONGEST:
                if len(kept) >= maxsize:
                    kept.clear()
                kept[said] = found
            return found

        @wraps(function)
        def asked(*said: *Said) -> Found:
            found = kept.get(said)  # what is there was short: a hit, which most are, measures nothing
            return learned(said) if found is None else found

        return asked

    return keeping
