"""Owns what is remembered of texts that senders repeat: bounded by their number, and by their length, which is theirs
to choose. A memory of long texts would fill a process with a few thousand messages.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

from tocengine.model.identity import PatientKey, VisitKey

Said = TypeVarTuple("Said")
Found = TypeVar("Found")

LONGEST = 256
"""Characters of a text that is remembered; no code, name or number of the field comes near it."""


def length(said: object) -> int:
    """Characters of a text or of a key, both of which senders choose; 0 of anything else."""
    if isinstance(said, str | bytes):
        return len(said)
    return len(said.domain) + len(said.value) if isinstance(said, PatientKey | VisitKey) else 0


def remembered(maxsize: int) -> Callable[[Callable[[*Said], Found]], Callable[[*Said], Found]]:
    """Keeps what a pure function gave for the last `maxsize` arguments; what has a long text among them is not kept."""

    def keeping(function: Callable[[*Said], Found]) -> Callable[[*Said], Found]:
        kept = lru_cache(maxsize)(function)

        @wraps(function)
        def asked(*said: *Said) -> Found:
            for each in said:
                if length(each) > LONGEST:
                    return function(*said)
            return kept(*said)

        return asked

    return keeping
