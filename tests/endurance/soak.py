"""Owns the soak: load for minutes or hours while parts are killed at random, then the proof that nothing came of it.

Every figure on the way goes to a log of JSON lines, so that a soak that was stopped has told what it saw.
"""

import asyncio
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from tests.acceptance.load import Load, Tally, arrived
from tests.acceptance.setting import Embedded, Setting
from tests.endurance.partners import FailingReceivers
from tocengine.simulation.load import usage

SAMPLE_S = 10.0
QUIET_S = 180.0
"""How long what is under way at the end may take to arrive: longer than the longest back-off met in a soak."""
PATIENCE_S = 180.0
"""How long a start, or the return after a kill, may take before the soak ends: on a busy machine it is the machine."""
LIMIT_MB = 300.0
GROWTH, SLACK_MB = 1.25, 16.0
"""Memory is flat where the last third's median is below the middle third's times GROWTH, or within SLACK_MB of it."""

Kill = Callable[[], Awaitable[None]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do for how long. `rate` is offered messages per second over all connections."""

    minutes: float
    rate: float = 40.0
    connections: int = 16
    kill_every_s: float = 90.0
    seed: int = 1


class Report(msgspec.Struct, kw_only=True):
    """What a soak came to. By what was killed: the longest silence around it in seconds, of acknowledgments (`back_s`)
    and of notices (`told_again_s`)."""

    minutes: float
    acknowledged: int
    notices: int
    receiver_failures: int
    kills: dict[str, int]
    back_s: dict[str, float]
    told_again_s: dict[str, float]
    lost: int
    duplicated: int
    disordered: int
    repeated: int
    memory_mb: dict[str, tuple[float, float, float]]  # median of the middle and of the last third, and the most
    lag: float
    open_notices: float
    audit_intact: bool
    cpu_s_per_1000: float

    def defects(self) -> list[str]:
        """What was promised and did not hold; empty after a good soak."""
        found = [
            f"{count} {name}"
            for name, count in (
                ("lost", self.lost),
                ("told twice", self.duplicated),
                ("out of order", self.disordered),
                ("records not routed", self.lag),
                ("notices still open", self.open_notices),
            )
            if count
        ]
        for role, (middle, last, most) in self.memory_mb.items():
            if most > LIMIT_MB:
                found.append(f"{role} took {most:.0f} MB")
            if last > middle * GROWTH and last > middle + SLACK_MB:
                found.append(f"{role} grew from {middle:.0f} to {last:.0f} MB")
        return found if self.audit_intact else [*found, "the audit chain is broken"]


class Soak:
    """One soak of a started engine."""

    def __init__(
        self, setting: Setting, receivers: FailingReceivers, kills: Mapping[str, Kill], plan: Plan, log: Path
    ) -> None:
        self._setting, self._receivers, self._kills, self._plan, self._log = setting, receivers, kills, plan, log
        self._chance = random.Random(plan.seed)
        self._counts: Counter[str] = Counter()
        self._back: dict[str, float] = defaultdict(float)
        self._told_again: dict[str, float] = defaultdict(float)
        self._memory: dict[str, list[float]] = defaultdict(list)
        self._cpu: dict[int, float] = {}  # of every process of the engine seen, when last seen
        self._began = time.monotonic()

    async def run(self) -> Report:
        """Loads and kills for the plan's minutes, lets everything arrive, and counts."""
        plan = self._plan
        ends = self._began + plan.minutes * 60
        pace_s = plan.connections / plan.rate
        async with Load(self._setting.ports.mllp, connections=plan.connections, pace_s=pace_s) as load:
            sampling = asyncio.create_task(self._sample_until(ends, load))
            while (left_s := ends - time.monotonic()) > 0:
                await asyncio.sleep(min(left_s, plan.kill_every_s * self._chance.uniform(0.5, 1.5)))
                if ends - time.monotonic() > 5:
                    await self._kill(load)
            await sampling
        tally = await arrived(load.expected, self._receivers, QUIET_S)
        return await self._report(load, tally)

    async def _kill(self, load: Load) -> None:
        target = self._chance.choice(sorted(self._kills))
        self._note(killed=target)
        self._counts[target] += 1
        for silence in (load.silence, self._receivers.silence):
            silence.longest_s = 0.0
        await self._kills[target]()
        killed = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            await load.silence.broken(killed)
            await self._receivers.silence.broken(killed)
        self._back[target] = max(self._back[target], load.silence.longest_s)
        self._told_again[target] = max(self._told_again[target], self._receivers.silence.longest_s)

    async def _sample_until(self, ends: float, load: Load) -> None:
        while time.monotonic() < ends:
            await asyncio.sleep(min(SAMPLE_S, max(0.0, ends - time.monotonic())))
            self._sample(load)

    def _sample(self, load: Load) -> None:
        memory = {}
        for pid, role in engine_processes(self._setting).items():
            try:
                self._cpu[pid] = usage.tree_cpu_s(pid) if role == "postgres" else usage.own_cpu_s(pid)
                memory[role] = round(usage.tree_mb(pid) if role == "postgres" else usage.resident_mb(pid), 1)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it was killed a moment ago
        for role, megabytes in memory.items():
            self._memory[role].append(megabytes)
        self._note(
            acknowledged=load.acknowledged,
            expected=len(load.expected),
            arrived=len(self._receivers.arrivals),
            memory_mb=memory,
        )

    def _note(self, **figures: object) -> None:
        line = {"seconds": round(time.monotonic() - self._began, 1), **figures}
        with self._log.open("ab") as log:
            log.write(msgspec.json.encode(line) + b"\n")

    async def _report(self, load: Load, tally: Tally) -> Report:
        (verified,) = await self._setting.engine.ask("audit", "verify")
        lag, notices = await self._left()
        report = Report(
            minutes=self._plan.minutes,
            acknowledged=load.acknowledged,
            notices=len(load.expected),
            receiver_failures=self._receivers.failures,
            kills=dict(self._counts),
            back_s=_rounded(self._back),
            told_again_s=_rounded(self._told_again),
            lost=tally.lost,
            duplicated=tally.duplicated,
            disordered=tally.disordered,
            repeated=tally.repeated,
            memory_mb={role: _thirds(samples) for role, samples in self._memory.items() if role != "postgres"},
            lag=lag,
            open_notices=notices,
            audit_intact=verified["intact"] is True,
            cpu_s_per_1000=round(sum(self._cpu.values()) / max(1, load.acknowledged) * 1000, 2),
        )
        self._note(report=report)
        return report

    async def _left(self) -> tuple[float, float]:
        """Records not routed and notices not ended, once the gauges have caught up or QUIET_S is over."""
        deadline = time.monotonic() + QUIET_S
        while True:
            text = await _metrics(self._setting)
            lag, notices = _sum(text, "tocengine_routing_lag_records"), _sum(text, "tocengine_notices_open")
            if not lag + notices or time.monotonic() > deadline:
                return lag, notices
            await asyncio.sleep(1)


def engine_processes(setting: Setting) -> Mapping[int, str]:
    """The engine's processes with their roles, "supervisor" and "postgres" (the head of its tree)."""
    found = {}
    for process in setting.processes.values():
        for pid in (process.pid, *usage.children(process.pid)):
            words = usage.arguments(pid)
            if words and Path(words[0]).name == "postgres":
                found[pid] = "postgres"
            else:
                found[pid] = usage.roles(words) or "supervisor"
    return found


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in seconds.items()}


def _thirds(samples: Sequence[float]) -> tuple[float, float, float]:
    third = max(1, len(samples) // 3)
    return statistics.median(samples[third : 2 * third] or samples), statistics.median(samples[-third:]), max(samples)


async def _metrics(setting: Setting) -> str:
    pages = []
    async with aiohttp.ClientSession() as session:
        for process in setting.processes.values():
            async with session.get(f"{process.admin}/metrics") as response:
                pages.append(await response.text())
    return "\n".join(pages)


def _sum(text: str, name: str) -> float:
    return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)))


@asynccontextmanager
async def soaking(
    setting: Setting, receivers: FailingReceivers, kills: Mapping[str, Kill], plan: Plan, log: Path
) -> AsyncIterator[Soak]:
    """The engine started with its directory applied; stopped at the end whatever happened."""
    await setting.apply()
    try:
        await setting.start(PATIENCE_S)
        yield Soak(setting, receivers, kills, plan, log)
    finally:
        await setting.stop()


def embedded_kills(setting: Embedded) -> Mapping[str, Kill]:
    """What can be killed on the embedded default: each role process, and PostgreSQL. The supervisor mends it."""

    def killer(target: str) -> Kill:
        async def kill() -> None:
            setting.kill(target)

        return kill

    return {target: killer(target) for target in ("ingest", "deliver", "postgres")}
