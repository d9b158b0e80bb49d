"""The supervisor with stand-in roles: small programs that say what happens to them."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.services.memory import place
from tocengine.embedded import datadir, running_server
from tocengine.supervisor import FIRST_DELAY_S, LONGEST_DELAY_S, restart_delay

SUPERVISE = """
import sys
from pathlib import Path
from tocengine.embedded import EmbeddedPostgres
from tocengine.errors import TocError
from tocengine.supervisor import ChildCommand, run_supervisor

folder = Path(sys.argv[1])
server = EmbeddedPostgres(folder / "var") if sys.argv[2] == "database" else None
roles = [ChildCommand(name, (sys.executable, str(folder / "role.py"), str(folder), name)) for name in sys.argv[3:]]
try:
    sys.exit(run_supervisor(roles, server))
except TocError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
ROLE = """
import os, signal, sys, time
from pathlib import Path

folder, name = Path(sys.argv[1]), sys.argv[2]
with (folder / f"{name}.starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")

def drain(number, frame):
    (folder / f"{name}.drained").touch()
    if name != "stubborn":
        sys.exit(0)

signal.signal(signal.SIGTERM, drain)
if name == "refusing":
    sys.exit(2)
(folder / f"{name}.ready").write_text(str(os.getpid()))
while True:
    signal.pause()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tocengine-test-", dir=place()))
    folder.chmod(0o711)
    (folder / "role.py").write_text(ROLE)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, *roles: str, database: bool = False) -> None:
        self.folder = folder
        arguments = [str(folder), "database" if database else "none", *roles]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    async def pid_of(self, role: str, other_than: int = 0) -> int:
        file = self.folder / f"{role}.ready"

        def ready() -> bool:
            return file.exists() and file.read_text() not in ("", str(other_than))

        await self.until(ready, f"{role} is ready")
        return int(file.read_text())

    async def until(self, condition: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, f"not in {deadline_s} s: {what}"
            await asyncio.sleep(0.01)

    async def ended(self, deadline_s: float = 10.0) -> int:
        return await asyncio.to_thread(self.process.wait, deadline_s)

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(*pids: int) -> None:
    end = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "still there after 10 s"
        await asyncio.sleep(0.01)


def test_the_backoff_grows_to_its_limit() -> None:
    delays = [restart_delay(failures) for failures in range(1, 50)]
    assert delays[0] == FIRST_DELAY_S
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S


async def test_a_role_that_dies_is_started_again(folder: Path) -> None:
    engine = Supervised(folder, "ingest", "deliver")
    first, other = await engine.pid_of("ingest"), await engine.pid_of("deliver")
    os.kill(first, signal.SIGKILL)
    second = await engine.pid_of("ingest", other_than=first)
    assert alive(second)
    assert alive(other)
    engine.process.terminate()
    assert await engine.ended() == 0, engine.said()
    assert (folder / "ingest.drained").exists()
    assert (folder / "deliver.drained").exists()
    assert not alive(second)


async def test_kill_9_of_the_supervisor_takes_its_children_along(folder: Path) -> None:
    engine = Supervised(folder, "ingest", database=True)
    role = await engine.pid_of("ingest")
    database = datadir.server_pid(folder / "var/postgres/data")
    assert database is not None
    engine.process.kill()
    await engine.ended()
    await gone(role, database)


async def test_kill_9_of_the_database_brings_it_back_at_the_same_address(folder: Path) -> None:
    engine = Supervised(folder, "ingest", database=True)
    role = await engine.pid_of("ingest")
    dsn = running_server(folder / "var")
    assert dsn is not None
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table kept as select 1 as number")
    before = datadir.server_pid(folder / "var/postgres/data")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    began = time.monotonic()

    def back() -> bool:
        return running_server(folder / "var") is not None and datadir.server_pid(folder / "var/postgres/data") != before

    await engine.until(back, "the database is back", 10)
    assert time.monotonic() - began < 5
    connection = await asyncpg.connect(dsn)  # the same address as before
    assert await connection.fetchval("select number from kept") == 1
    assert await connection.fetchval("select count(*) from schema_migration") > 0
    await connection.close()
    assert alive(role)
    engine.process.terminate()
    assert await engine.ended() == 0, engine.said()
    assert datadir.server_pid(folder / "var/postgres/data") is None


async def test_a_role_that_does_not_drain_is_killed_in_time(folder: Path) -> None:
    engine = Supervised(folder, "stubborn", "ingest")
    role = await engine.pid_of("stubborn")
    await engine.pid_of("ingest")
    began = time.monotonic()
    engine.process.send_signal(signal.SIGINT)
    assert await engine.ended(12) == 1, engine.said()
    assert time.monotonic() - began < 10
    assert not alive(role)
    assert (folder / "ingest.drained").exists()


async def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    engine = Supervised(folder, "stubborn", database=True)
    role = await engine.pid_of("stubborn")
    database = datadir.server_pid(folder / "var/postgres/data")
    assert database is not None
    engine.process.terminate()
    await engine.until((folder / "stubborn.drained").exists, "the drain began")
    began = time.monotonic()
    engine.process.terminate()
    assert await engine.ended() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1
    await gone(role, database)


async def test_a_role_that_refuses_its_configuration_ends_the_engine(folder: Path) -> None:
    engine = Supervised(folder, "refusing", "ingest")
    assert await engine.ended() == 2, engine.said()
    assert len((folder / "refusing.starts").read_text().splitlines()) == 1


async def test_a_second_engine_on_the_same_data_is_refused(folder: Path) -> None:
    engine = Supervised(folder, "ingest", database=True)
    role = await engine.pid_of("ingest")
    second = Supervised(folder, "deliver", database=True)
    assert await second.ended() == 2
    assert f"in use by process {engine.process.pid}" in second.said()
    assert alive(role)
    engine.process.terminate()
    assert await engine.ended() == 0, engine.said()
