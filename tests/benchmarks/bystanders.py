"""Owns what hostile connections cost the other senders of a feed: their time to an answer with and without them.

Rounds of both kinds take turns, so that the machine's drift falls on both.
"""

import asyncio
import itertools
import secrets
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.acceptance.hostile import Hospital, ingest_pid, latencies, metric, running, silent
from tests.acceptance.setting import Embedded
from tocengine.simulation.load.usage import own_cpu_s
from tocengine.simulation.receivers import Receivers

SENDERS = 4  # that stop and wait, together well below what the engine can take
PER_SENDER = 100  # messages of each in a round: over before a half-open frame times out


class Figures(msgspec.Struct, kw_only=True):
    """Milliseconds from a message's last byte to its answer: the medians over the rounds of each round's p50 and p99.

    `ratio` is the median of the ratios of the p99 of neighbouring rounds, with hostile connections by without;
    `noise` is the largest p99 without them by the smallest: what the machine does by itself. The CPU milliseconds of
    the process that answers, per message, tell both kinds apart on a machine that others use as well.
    """

    silent: int
    rounds: int
    messages: int
    p50_ms: float
    p99_ms: float
    p50_beside_ms: float
    p99_beside_ms: float
    ratio: float
    noise: float
    cpu_ms: float
    cpu_beside_ms: float


async def measure(count: int = 500, rounds: int = 9) -> Figures:
    """`count` connections that say nothing or stop in mid-frame, all let in. Raises AssertionError where one is not."""
    secret = secrets.token_bytes(24)
    hospital = Hospital()
    with tempfile.TemporaryDirectory(prefix="tocengine-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        limit = count + 100
        async with (
            Receivers(secret) as receivers,
            running(folder, receivers, secret, max_connections=limit, max_connections_per_address=limit) as setting,
        ):
            alone, beside = [], []
            for _ in range(rounds):
                await _round(setting, hospital)  # not counted: what the closing of so many leaves to do is done in it
                alone.append(await _round(setting, hospital))
                async with silent(setting.ports.mllp, count):
                    beside.append(await _round(setting, hospital))
                    assert await metric(setting, "tocengine_mllp_connections", feed="stj-adt") == count
    return _figures(count, alone, beside)


class _Round(msgspec.Struct, frozen=True):
    """Milliseconds: of each message to its answer, and of CPU for all of them."""

    latencies: list[float]
    cpu: float


async def _round(setting: Embedded, hospital: Hospital) -> _Round:
    pid = ingest_pid(setting)
    before = own_cpu_s(pid)
    found = await asyncio.gather(
        *(latencies(setting.ports.mllp, hospital.messages(PER_SENDER)) for _ in range(SENDERS))
    )
    spent = own_cpu_s(pid) - before
    return _Round([seconds * 1000 for seconds in itertools.chain(*found)], spent * 1000)


def _figures(count: int, alone: Sequence[_Round], beside: Sequence[_Round]) -> Figures:
    def median(rounds: Sequence[_Round], of: Callable[[list[float]], float]) -> float:
        return round(statistics.median(of(each.latencies) for each in rounds), 1)

    def cpu(rounds: Sequence[_Round]) -> float:
        return round(sum(each.cpu for each in rounds) / sum(len(each.latencies) for each in rounds), 2)

    apart = [_p99(each.latencies) for each in alone]
    near = [_p99(each.latencies) for each in beside]
    return Figures(
        silent=count,
        rounds=len(alone),
        messages=sum(len(each.latencies) for each in (*alone, *beside)),
        p50_ms=median(alone, statistics.median),
        p99_ms=median(alone, _p99),
        p50_beside_ms=median(beside, statistics.median),
        p99_beside_ms=median(beside, _p99),
        ratio=round(statistics.median(b / a for a, b in zip(apart, near, strict=True)), 2),
        noise=round(max(apart) / min(apart), 2),
        cpu_ms=cpu(alone),
        cpu_beside_ms=cpu(beside),
    )


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
