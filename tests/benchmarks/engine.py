"""Owns the whole-engine benchmark: the real processes on loopback, from the first byte of a message to its notice.

Senders and receiver are processes of their own; what each part costs is read from /proc around the run.
"""

import asyncio
import base64
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import yaml

from tests.acceptance.setting import Setting, children, embedded, scaled_out
from tests.benchmarks import receiver, senders, usage
from tests.benchmarks.growth import fill
from tests.benchmarks.messages import FACILITIES, SMALL_BYTES, Visits, facility_alias
from tests.services.kafka import JavaKafka
from tocengine.config_file import load_config
from tocengine.embedded import EmbeddedPostgres, running_server
from tocengine.simulation.receivers import Receivers

SETTLE_S = 120.0  # how long notices may take to arrive after the last answer
PATTERNS = 200  # visits that are copied into the past
BROKER_FLAGS = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC")


class Figures(msgspec.Struct, kw_only=True):
    """One run. CPU is in seconds per 1,000 messages; `cpu_s_per_1000` is engine and PostgreSQL together."""

    acks_per_s: float
    delivered_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    e2e_p99_ms: float
    cpu_s_per_1000: float
    postgres_cpu_s_per_1000: float
    kafka_cpu_s_per_1000: float
    rss_mb: float
    bytes_per_message: float
    lost: int
    duplicated: int
    reordered: int


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: the load, and what the engine holds when it begins."""

    messages: int = 3000
    connections: int = 16
    rate: float = 0.0  # offered messages per second; 0 is as fast as they are answered
    size: int = SMALL_BYTES
    told_every: int = 1  # one discharge in so many is told to somebody
    kafka: bool = False
    stored: int = 0  # messages in the database before
    subscriptions: int = FACILITIES  # facilities in the directory
    panel_rows: int = 0


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds so far, by part; the engine's by process."""

    engine: dict[str, float]
    postgres: float
    kafka: float


class Rig:
    """A started engine with where its parts run."""

    def __init__(self, setting: Setting, dsn: str, postgres_pid: int, broker_pid: int) -> None:
        self.setting, self.dsn = setting, dsn
        self._postgres, self._broker = postgres_pid, broker_pid

    def usage(self) -> Usage:
        """What has been used so far. PostgreSQL is counted by its process tree, ended backends included."""
        return Usage(
            engine={_name(pid): usage.own_cpu_s(pid) for pid in self.engine_pids()},
            postgres=usage.tree_cpu_s(self._postgres),
            kafka=usage.tree_cpu_s(self._broker) if self._broker else 0.0,
        )

    def engine_pids(self) -> list[int]:
        """The engine's own processes: the roles, and the supervisor where there is one."""
        pids = [process.pid for process in self.setting.processes.values()]
        return pids + [child for pid in pids for child in children(pid) if child != self._postgres]

    async def stored_bytes(self) -> int:
        """The size of the database."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return int(await connection.fetchval("select pg_database_size(current_database())"))
        finally:
            await connection.close()


@asynccontextmanager
async def rig(kafka: bool, port: int, secret: bytes, subscriptions: int = FACILITIES) -> AsyncIterator[Rig]:
    """The engine on the embedded default, or a process per role on Kafka (one broker), with fsync on."""
    with tempfile.TemporaryDirectory(prefix="tocengine-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        partners = Receivers(secret, port=port)  # not started: it only says where the partners are
        broker = JavaKafka(1, jvm_flags=BROKER_FLAGS) if kafka else None
        server = EmbeddedPostgres(folder / "shared") if kafka else None
        setting: Setting
        if broker and server:
            setting = scaled_out(folder, partners, secret, await server.start(), broker.bootstrap, 1)
        else:
            setting = embedded(folder, partners, secret)
        _write_directory(folder / "directory.yaml", port, secret, subscriptions)
        try:
            status, out, error = await setting.engine.call("apply", "-f", str(folder / "directory.yaml"))
            assert status == 0, out + error
            await setting.start()
            dsn = server.dsn if server else running_server(load_config(folder / "tocengine.toml").engine.data_dir)
            assert dsn
            owner = os.getpid() if server else setting.engine.pid
            (postgres,) = [pid for pid, line in children(owner).items() if Path(line[0]).name == "postgres"]
            yield Rig(setting, dsn, postgres, broker.pid(0) if broker else 0)
        finally:
            await setting.stop()
            if server:
                await server.stop()
            if broker:
                broker.stop()


def _name(pid: int) -> str:
    """The roles a process has; the supervisor has none."""
    return usage.roles(usage.arguments(pid)) or "supervisor"


def _write_directory(path: Path, port: int, secret: bytes, subscriptions: int) -> None:
    signing = "whsec_" + base64.b64encode(secret).decode()
    facilities = [
        {
            "id": f"snf-{index:02d}",
            "name": f"Skilled Nursing {index:02d}",
            "type": "SNF",
            "aliases": [facility_alias(index)],
            "endpoints": [
                {
                    "id": f"snf-{index:02d}-hook",
                    "channel": "webhook",
                    "url": f"http://127.0.0.1:{port}/webhook/snf-{index:02d}",
                    "secret": signing,
                }
            ],
            "subscription": {"level": "FULL"},
        }
        for index in range(subscriptions)
    ]
    path.write_text(yaml.safe_dump({"version": 1, "facilities": facilities}, sort_keys=False))


class Peers:
    """The senders' and the receiver's processes."""

    def __init__(self, visits: int, size: int, told_every: int = 1) -> None:
        self.secret = secrets.token_bytes(24)
        spawn = multiprocessing.get_context("spawn")
        self._book, far = spawn.Pipe()
        self._receiver = spawn.Process(target=receiver.serve, args=(far, visits, self.secret), daemon=True)
        self._receiver.start()
        self.port: int = self._book.recv()
        self._orders, far_orders = spawn.Pipe()
        self._senders = spawn.Process(
            target=senders.serve, args=(far_orders, Visits(size, told_every=told_every)), daemon=True
        )
        self._senders.start()

    async def send(self, order: senders.Order) -> senders.Sent:
        """Raises RuntimeError where the engine did not answer."""
        self._orders.send(order)
        sent = await asyncio.to_thread(self._orders.recv)
        if isinstance(sent, str):
            raise RuntimeError(sent)
        assert isinstance(sent, senders.Sent)
        return sent

    def receiver_cpu_s(self) -> float:
        """What the receiver has used so far."""
        assert self._receiver.pid is not None
        return usage.own_cpu_s(self._receiver.pid)

    async def taken(self) -> int:
        """Visits that a notice has arrived of."""
        self._book.send("taken")
        return int(await asyncio.to_thread(self._book.recv))

    async def received(self) -> receiver.Received:
        """Everything the receiver knows."""
        self._book.send("all")
        received = await asyncio.to_thread(self._book.recv)
        assert isinstance(received, receiver.Received)
        return received

    def close(self) -> None:
        """Ends both."""
        for process in (self._senders, self._receiver):
            process.terminate()
            process.join()


async def measure(shape: Shape) -> tuple[Figures, dict[str, float]]:
    """Loads the admissions and what shall be stored before the clock starts, then sends the discharges.

    Returns the figures and the CPU milliseconds per message of each process: the engine's, and the load's own.
    """
    before_it = PATTERNS if shape.stored else 0
    peers = Peers(shape.messages + before_it, shape.size, shape.told_every)
    try:
        async with rig(shape.kafka, peers.port, peers.secret, shape.subscriptions) as engine:
            await _prepare(engine, peers, shape, before_it)
            return await _measure(engine, peers, shape, before_it)
    finally:
        peers.close()


async def _prepare(engine: Rig, peers: Peers, shape: Shape, before_it: int) -> None:
    """Every admission is folded; with a past to be stored, some visits run their whole course to be copied."""
    whole = shape.messages + before_it
    order = senders.Order(port=engine.setting.ports.mllp, first=0, last=whole, connections=shape.connections)
    await peers.send(msgspec.structs.replace(order, discharges=False))
    await _routed(engine, whole)
    if before_it:
        await peers.send(msgspec.structs.replace(order, first=shape.messages))
        await _delivered(peers, _told(shape, shape.messages, whole))
        await _routed(engine, whole + before_it)
    await fill(engine.dsn, shape.stored, shape.panel_rows)


async def _measure(engine: Rig, peers: Peers, shape: Shape, before_it: int) -> tuple[Figures, dict[str, float]]:
    stored, before, receiving = await engine.stored_bytes(), engine.usage(), peers.receiver_cpu_s()
    sent = await peers.send(
        senders.Order(
            port=engine.setting.ports.mllp,
            first=0,
            last=shape.messages,
            connections=shape.connections,
            rate=shape.rate,
        )
    )
    whole = shape.messages + before_it
    await _delivered(peers, _told(shape, 0, whole))
    await _routed(engine, 2 * whole)
    after, grown = engine.usage(), await engine.stored_bytes() - stored
    memory = max(usage.peak_mb(pid) for pid in engine.engine_pids())
    figures = _figures(shape, sent, await peers.received(), before, after, memory, grown)
    spent = {name: after.engine[name] - used for name, used in before.engine.items()}
    spent |= {"the senders": sent.cpu_s, "the receiver": peers.receiver_cpu_s() - receiving}
    return figures, {name: round(seconds / shape.messages * 1000, 2) for name, seconds in spent.items()}


def _told(shape: Shape, first: int, last: int) -> int:
    """How many of the visits `first` to `last` (exclusive) lead to a notice."""
    return sum(number % shape.told_every == 0 for number in range(first, last))


async def _routed(engine: Rig, messages: int) -> None:
    """Returns when so many messages are folded: what is measured must not share the cores with what is not."""
    deadline = time.monotonic() + SETTLE_S
    connection = await asyncpg.connect(engine.dsn)
    try:
        while await connection.fetchval("select count(*) from message_seen where feed = 'stj-adt'") < messages:
            if time.monotonic() > deadline:
                raise RuntimeError("the messages were not routed in time")
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def _delivered(peers: Peers, messages: int) -> None:
    deadline = time.monotonic() + SETTLE_S
    while await peers.taken() < messages and time.monotonic() < deadline:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(0.1)


def _figures(
    shape: Shape,
    sent: senders.Sent,
    received: receiver.Received,
    before: Usage,
    after: Usage,
    memory: float,
    grown: int,
) -> Figures:
    start, messages = min(sent.due), shape.messages
    acks = sorted((end - due) * 1000 for due, end in zip(sent.due, sent.answered, strict=True))
    arrivals = [(number, at) for number, at in enumerate(received.arrived[:messages]) if at]
    whole = sorted((at - sent.due[number]) * 1000 for number, at in arrivals)
    engine = sum(after.engine.values()) - sum(before.engine.values())
    postgres = after.postgres - before.postgres
    return Figures(
        acks_per_s=round(messages / (max(sent.answered) - start), 1),
        delivered_per_s=round(len(arrivals) / (max(at for _, at in arrivals) - start), 1),
        ack_p50_ms=round(statistics.median(acks), 1),
        ack_p99_ms=round(acks[int(len(acks) * 0.99)], 1),
        e2e_p99_ms=round(whole[int(len(whole) * 0.99)], 1),
        cpu_s_per_1000=round((engine + postgres) / messages * 1000, 3),
        postgres_cpu_s_per_1000=round(postgres / messages * 1000, 3),
        kafka_cpu_s_per_1000=round((after.kafka - before.kafka) / messages * 1000, 3),
        rss_mb=round(memory, 1),
        bytes_per_message=round(grown / messages, 1),
        lost=_told(shape, 0, messages) - len(arrivals),
        duplicated=received.duplicated,
        reordered=received.reordered,
    )
