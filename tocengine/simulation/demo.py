"""Owns the demo: a hospital's day through the real engine, and the proof that every notice arrived exactly once.

It starts the engine as its users do (`tocengine run` on the embedded default), plays the partners, sends the day over
real connections shift by shift, and compares what arrived with what the script says must arrive.
"""

import asyncio
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tocengine.simulation.configuration import Ports, write_directory, write_settings
from tocengine.simulation.day import SHIFTS, Day, DayWriter
from tocengine.simulation.engine import EngineProcess
from tocengine.simulation.findings import Findings
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.report import print_report
from tocengine.simulation.senders import send_shift

SETTLE_S = 20.0  # how long a shift's notices may take to arrive


@dataclass
class Demo:
    """One run of the demo, in a folder of its own that is removed afterwards unless `keep`."""

    visits: int
    seed: int
    keep: bool
    console: Console

    async def run(self) -> bool:
        """Returns whether the proof holds."""
        folder = _folder()
        try:
            return await self._run_in(folder)
        finally:
            if not self.keep:
                shutil.rmtree(folder, ignore_errors=True)

    async def _run_in(self, folder: Path) -> bool:
        start = datetime.now(ZoneInfo("America/New_York")).replace(microsecond=0) - timedelta(hours=9)
        day = DayWriter(self.seed, start).write(self.visits)
        ports, secret = Ports.free(), secrets.token_bytes(24)
        async with Receivers(secret, fail_every=20) as receivers:
            engine = EngineProcess(write_settings(folder, ports), ports.admin)
            directory = write_directory(folder, receivers.port, secret, day.panels)
            try:
                await self._start(engine, directory)
                findings = await self._play(day, ports, receivers)
                (findings.status,) = await engine.ask("status")
                (findings.audit,) = await engine.ask("audit", "verify")
                print_report(self.console, day, receivers, findings)
                if self.keep:
                    await self._stay(ports, folder)
            finally:
                await engine.stop()
        return findings.passed

    async def _start(self, engine: EngineProcess, directory: Path) -> None:
        """Partners first, so that the first message of the day finds them."""
        status, out, error = await engine.call("apply", "-f", str(directory))
        if status:
            raise RuntimeError(f"the directory was not applied: {error or out}")
        self.console.print("Directory applied: 3 facilities, 2 practitioners, the panels of 2 facilities.")
        began = time.monotonic()
        await engine.start()
        self.console.print(f"Engine ready in {time.monotonic() - began:.1f} s: PostgreSQL, ingest, route and deliver.")

    async def _play(self, day: Day, ports: Ports, receivers: Receivers) -> Findings:
        findings = Findings()
        began = time.monotonic()
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            for shift, name in enumerate(SHIFTS):
                posts = [post for post in day.posts if post.shift == shift]
                sending = progress.add_task(f"{name}: messages answered", total=len(posts))
                findings.answers += await send_shift(
                    posts, ports.mllp, ports.http, partial(_advance, progress, sending)
                )
                expected = day.expected_until(shift)
                arriving = progress.add_task(f"{name}: notices so far", total=len(expected))
                await _settle(len(expected), receivers, partial(_show, progress, arriving))
        findings.seconds = time.monotonic() - began
        wanted, accepted = Counter(day.expected_until(len(SHIFTS))), receivers.accepted
        findings.missing = sorted((wanted - accepted).elements())
        surplus = accepted - wanted
        findings.repeated = sorted(notice for notice in surplus if notice in wanted)
        findings.unexpected = sorted(notice for notice in surplus if notice not in wanted)
        return findings

    async def _stay(self, ports: Ports, folder: Path) -> None:
        self.console.print(
            f"\nLeft running until Ctrl-C: MLLP 127.0.0.1:{ports.mllp}, FHIR http://127.0.0.1:{ports.http}/fhir, "
            f"metrics http://127.0.0.1:{ports.admin}/metrics, files in {folder}"
        )
        await asyncio.Event().wait()


def _folder() -> Path:
    """A new one that PostgreSQL can pass through: started as root, it runs as another user."""
    folder = Path(tempfile.mkdtemp(prefix="tocengine-demo-"))
    folder.chmod(0o711)
    return folder


async def _settle(expected: int, receivers: Receivers, show: Callable[[int], None]) -> None:
    """Returns when `expected` notices have arrived and none came after them for half a second, or the time is up."""
    deadline = time.monotonic() + SETTLE_S
    quiet_since, seen = time.monotonic(), -1
    while time.monotonic() < deadline:
        if len(receivers.arrivals) != seen:
            seen, quiet_since = len(receivers.arrivals), time.monotonic()
            show(min(seen, expected))
        if seen >= expected and time.monotonic() - quiet_since > 0.5:
            return
        await asyncio.sleep(0.02)


def _advance(progress: Progress, task: TaskID, _code: str) -> None:
    progress.advance(task)


def _show(progress: Progress, task: TaskID, count: int) -> None:
    progress.update(task, completed=count)
