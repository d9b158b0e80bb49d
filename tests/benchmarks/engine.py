"""Owns the whole-engine benchmark: the real processes on loopback, started for a run, and what they hold before it."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.acceptance.setting import Setting, embedded, scaled_out
from tests.benchmarks.growth import fill
from tests.services.kafka import JavaKafka
from tocengine.config_file import load_config
from tocengine.embedded import EmbeddedPostgres, running_server
from tocengine.postgres import Pool, create_pool
from tocengine.simulation.load import recipients
from tocengine.simulation.load.bench import Shape, bench
from tocengine.simulation.load.figures import Figures
from tocengine.simulation.load.target import Target, target_of
from tocengine.simulation.load.visits import FACILITIES
from tocengine.simulation.receivers import Receivers

PATTERNS = 200  # visits that are copied into the past
BROKER_FLAGS = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC")
START_S = 120.0  # for a new data directory, on a machine that does other things too
SETTINGS = {"TOCENGINE__HTTP__REQUESTS_PER_MINUTE": "1000000"}  # one client plays all of them


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine holds when a run begins."""

    stored: int = 0  # messages
    subscriptions: int = FACILITIES  # facilities in the directory
    panel_rows: int = 0


class Rig(msgspec.Struct, frozen=True):
    """A started engine, its database, and its broker where it has one."""

    setting: Setting
    pool: Pool
    broker: int | None

    def target(self, *, bundles: bool = False) -> Target:
        """The feed to send to."""
        path = self.setting.folder / "tocengine.toml"
        return target_of(load_config(path), path, bundles=bundles)


@asynccontextmanager
async def rig(kafka: bool = False, extra: str = "") -> AsyncIterator[Rig]:
    """The engine on the embedded default, or a process per role on Kafka (one broker), with fsync on."""
    with tempfile.TemporaryDirectory(prefix="tocengine-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        partners = Receivers(b"")  # not started: a load brings its own
        broker = JavaKafka(1, jvm_flags=BROKER_FLAGS) if kafka else None
        server = EmbeddedPostgres(folder / "shared") if kafka else None
        setting: Setting
        if broker and server:
            setting = scaled_out(folder, partners, b"", await server.start(), broker.bootstrap, 1, extra)
        else:
            setting = embedded(folder, partners, b"", extra, SETTINGS)
        try:
            await setting.start(START_S)
            dsn = server.dsn if server else running_server(load_config(folder / "tocengine.toml").engine.data_dir)
            assert dsn
            pool = await create_pool(dsn, 4, application_name="tocengine-bench")
            try:
                yield Rig(setting, pool, broker.pid(0) if broker else None)
            finally:
                await pool.close()
        finally:
            await setting.stop()
            if server:
                await server.stop()
            if broker:
                broker.stop()


async def measure(
    shape: Shape, before: Before | None = None, *, kafka: bool = False, bundles: bool = False
) -> tuple[Figures, dict[str, float]]:
    """One run on an engine of its own: the figures, and CPU milliseconds per message of each process.

    With a past to be stored, some visits run their whole course to be copied.
    """
    held = before or Before()
    patterns = PATTERNS if held.stored else 0
    async with (
        rig(kafka) as engine,
        bench(engine.pool, engine.target(bundles=bundles), shape, visits=patterns, broker=engine.broker) as load,
    ):
        others = (recipients.facility(index, 9, b"nobody") for index in range(FACILITIES, held.subscriptions))
        await recipients.add(engine.pool, tuple(others), datetime.now(UTC))
        if patterns:  # before anybody who is measured comes: a copy has the patient of its pattern
            await load.admit(0, patterns)
            await load.discharge(0, patterns)
            await fill(engine.pool, held.stored, 0)
        whole = patterns + shape.messages
        await load.admit(patterns, whole)
        await fill(engine.pool, 0, held.panel_rows)
        return await load.measure(patterns, whole)
