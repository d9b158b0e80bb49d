"""Owns how a stage is timed: CPU of the process per message, the best and the median of some rounds."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

ROUNDS = 9


class Row(msgspec.Struct):
    """Microseconds of CPU per message: the best round and the median one."""

    stage: str
    best_us: float
    median_us: float


def row(stage: str, work: Callable[[], Sequence[object]], rounds: int = ROUNDS) -> Row:
    """Times `work`, which does each message once; garbage is collected between the rounds."""
    work()
    spent = []
    gc.disable()
    try:
        for _ in range(rounds):
            began = time.process_time()
            count = len(work())
            spent.append((time.process_time() - began) / count * 1e6)
            gc.collect()
    finally:
        gc.enable()
    return Row(stage, round(min(spent), 1), round(statistics.median(spent), 1))
