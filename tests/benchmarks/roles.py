"""Owns the benchmark of one role at a time: what a message costs where the other roles are silent and batches full.

The log is filled through the feed's listener, then routing works it off alone, then delivery. The role runs in this
process, so that a profiler attached to it sees nothing else; how a machine that does other things spreads its time
over the roles does not matter.
"""

import asyncio
import gc
import logging
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
import uvloop

from tocengine.app import Engine
from tocengine.config import Config
from tocengine.config_file import load_config
from tocengine.deployment import Role
from tocengine.embedded import EmbeddedPostgres
from tocengine.postgres import Pool, create_pool
from tocengine.process import COLLECT_AFTER
from tocengine.simulation.configuration import Ports, write_settings
from tocengine.simulation.load import recipients, usage
from tocengine.simulation.load.peers import Peers
from tocengine.simulation.load.senders import Order
from tocengine.simulation.load.target import postgres_here, routed, target_of
from tocengine.simulation.load.visits import Mix

CONNECTIONS = 16
FEED = "stj-adt"


class Cost(msgspec.Struct, frozen=True):
    """CPU microseconds per message of a role alone, and how many it did in a second."""

    role: str
    engine_us: float
    postgres_us: float
    per_s: float


class _Alone:
    """An engine whose roles run one at a time, here."""

    def __init__(self, config: Config, path: Path, pool: Pool, peers: Peers, postgres: int) -> None:
        self.pool, self.peers = pool, peers
        self._config, self._target, self._postgres = config, target_of(config, path), postgres
        self._admin = f"127.0.0.1:{Ports.free().admin}"

    async def cost(self, role: Role, messages: int, done: Callable[[], Awaitable[object]]) -> Cost:
        """Runs `role` until `done`, and once more for what starting and stopping it costs."""
        engine, postgres, seconds = await self._used(role, done)
        idle_engine, idle_postgres, _ = await self._used(role, done)
        share = 1e6 / messages
        return Cost(role, (engine - idle_engine) * share, (postgres - idle_postgres) * share, messages / seconds)

    async def _used(self, role: Role, done: Callable[[], Awaitable[object]]) -> tuple[float, float, float]:
        began, own, others = time.monotonic(), time.process_time(), usage.tree_cpu_s(self._postgres)
        drain = asyncio.Event()
        running = asyncio.create_task(Engine(self._config, [role], self._admin).run(drain))
        while not await done() and not running.done():  # noqa: ASYNC110 - done() asks the database
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
        drain.set()
        await running
        return time.process_time() - own, usage.tree_cpu_s(self._postgres) - others, seconds

    def sending(self, messages: int, *, discharges: bool) -> Callable[[], Awaitable[object]]:
        """Sends once the listener is there; true when all are answered."""
        order = Order(
            host=self._target.host,
            port=self._target.port,
            first=0,
            last=messages,
            discharges=discharges,
            connections=CONNECTIONS,
            rate=0.0,
        )
        sent = False

        async def done() -> bool:
            nonlocal sent
            if not sent:
                while not await _listens(order.host, order.port):  # noqa: ASYNC110 - another task opens it
                    await asyncio.sleep(0.05)
                await self.peers.send(order)
            sent = True
            return sent

        return done

    def routing(self, messages: int) -> Callable[[], Awaitable[object]]:
        """True when so many messages are folded."""

        async def done() -> bool:
            return await routed(self.pool, FEED) >= messages

        return done

    async def delivered(self) -> bool:
        """Whether every notice has ended."""
        return not await self.pool.fetchval("select exists (select from notice where ended_at is null)")


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def _alone(messages: int, mix: Mix) -> AsyncIterator[_Alone]:
    with tempfile.TemporaryDirectory(prefix="tocengine-roles-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "postgres")
        dsn = await server.start()
        keys = {key: folder / key for key in ("patient_hash", "audit_signing")}
        for file in keys.values():
            file.write_text(secrets.token_hex(32))
        lines = "\n".join(f'{key} = "file:{file}"' for key, file in keys.items())
        never_held_back = "[intake]\nlag_limit_s = 0\n"  # while ingest is alone, nothing is routed
        extra = f'[postgres]\ndsn = "{dsn}"\n[keys]\n{lines}\n{never_held_back}'
        path = write_settings(folder, Ports.free(), extra)
        pool = await create_pool(dsn, 2, application_name="tocengine-bench")
        try:
            postgres = await postgres_here(pool)
            assert postgres is not None
            with Peers(messages, mix) as peers:
                yield _Alone(load_config(path), path, pool, peers, postgres)
        finally:
            await pool.close()
            await server.stop()


async def _measure(messages: int, mix: Mix) -> list[Cost]:
    async with _alone(messages, mix) as engine:
        await engine.cost(Role.INGEST, messages, engine.sending(messages, discharges=False))  # migrates, too
        await recipients.add(engine.pool, recipients.all_of(engine.peers.port, engine.peers.secret), datetime.now(UTC))
        await engine.cost(Role.ROUTE, messages, engine.routing(messages))
        return [
            await engine.cost(Role.INGEST, messages, engine.sending(messages, discharges=True)),
            await engine.cost(Role.ROUTE, messages, engine.routing(2 * messages)),
            await engine.cost(Role.DELIVER, messages, engine.delivered),
        ]


def measure(messages: int, mix: Mix) -> list[Cost]:
    """The roles of the embedded default on their way through `messages` discharges of visits that are open."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.set_threshold(*COLLECT_AFTER)
    return uvloop.run(_measure(messages, mix))
