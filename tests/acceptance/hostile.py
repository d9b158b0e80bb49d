"""Owns the hostile senders of tests and benchmarks, which say nothing or stop in mid-frame, and whom they meet: the
engine, and an ordinary sender beside them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.setting import Embedded, children, embedded
from tocengine.formats.mllp import FrameReader, frame
from tocengine.simulation.adt import AdtWriter, Visit
from tocengine.simulation.day import ATTENDING, PATEL
from tocengine.simulation.engine import EngineProcess
from tocengine.simulation.people import Population
from tocengine.simulation.receivers import Receivers

FEED = "TOCENGINE__FEEDS__0__"
OPENINGS = (b"", b"\x0b", b"\x0bMSH|^~\\&|ADTOUT|STJ|", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00")
"""What one says before it falls silent: nothing, a start, half a header, another protocol, half a handshake."""


@asynccontextmanager
async def silent(port: int, count: int, addresses: int = 1) -> AsyncIterator[list[socket.socket]]:
    """`count` connections that fall silent after one of `OPENINGS`, from so many loopback addresses (127.0.1.x)."""
    held: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for number in range(count):
            made = socket.socket()
            made.setblocking(False)
            made.bind((f"127.0.1.{1 + number % addresses}", 0))
            await loop.sock_connect(made, ("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):  # one too many is closed at once
                await loop.sock_sendall(made, OPENINGS[number % len(OPENINGS)])
            held.append(made)
        yield held
    finally:
        for made in held:
            made.close()


async def latencies(port: int, bodies: Sequence[bytes]) -> list[float]:
    """Seconds from a message's last byte to its answer, one sender that stops and waits. Every answer is AA."""
    reader, sender = await asyncio.open_connection("127.0.0.1", port)
    loop, found = asyncio.get_running_loop(), []
    for body in bodies:
        began = loop.time()
        sender.write(frame(body))
        answer = await first_answer(reader)
        found.append(loop.time() - began)
        assert b"\rMSA|AA|" in answer, answer
    sender.close()
    return found


async def first_answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer; empty where the engine closes instead."""
    frames = FrameReader(1_000_000)
    async with asyncio.timeout(30):
        while data := await reader.read(65_536):
            for item in frames.receive(data):
                return getattr(item, "payload", b"")
    return b""


@asynccontextmanager
async def running(folder: Path, receivers: Receivers, secret: bytes, **limits: object) -> AsyncIterator[Embedded]:
    """The engine on the embedded default with these settings of its MLLP feed."""
    setting = embedded(folder, receivers, secret)
    environment = {FEED + name.upper(): str(value) for name, value in limits.items()}
    path = folder / "tocengine.toml"
    setting.processes["engine"] = EngineProcess(path, setting.ports.admin, environment=environment)
    await setting.engine.start(deadline_s=90)
    try:
        yield setting
    finally:
        await setting.stop()


class Hospital:
    """A sender of ordinary messages."""

    def __init__(self) -> None:
        self._writer = AdtWriter("ADTOUT", "STJ", "STJ", prefix="H")
        self._population, self._number = Population(11), 0

    def messages(self, count: int) -> list[bytes]:
        """The next `count` admissions, each of a visit of its own."""
        now, made = datetime.now(UTC).replace(microsecond=0), []
        for _ in range(count):
            self._number += 1
            visit = Visit(
                number=f"H{self._number:05}",
                person=self._population.person(PATEL),
                patient_class="I",
                unit="3N:4",
                attending=ATTENDING[0],
                admitted_at=now,
            )
            made.append(self._writer.message("A01", visit, now, now))
        return made


async def metric(setting: Embedded, name: str, **labels: str) -> float:
    """The sum of what the engine's metric `name` says under these labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{setting.engine.admin}/metrics") as response:
        text = await response.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def ingest_pid(setting: Embedded) -> int:
    """The process that answers senders."""
    (pid,) = [pid for pid, command in children(setting.engine.pid).items() if "ingest" in command]
    return pid
