"""Owns the life of one embedded PostgreSQL: a direct child of the engine, reached through a private unix socket.

While `EmbeddedPostgres` holds the lock of a data directory nobody else starts a server on it; the lock is the
kernel's (flock) and so falls with the process, however that ends.
"""

import asyncio
import fcntl
import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg
import structlog

from tocengine.child import ended
from tocengine.embedded import datadir
from tocengine.embedded.account import Account, can, choose_account, give, spawn
from tocengine.embedded.binaries import ENVIRONMENT, Binaries, choose_binaries
from tocengine.embedded.settings import server_settings
from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.postgres import unavailable_errors

DATABASE = "tocengine"
SOCKET_FILE = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 107  # sockaddr_un.sun_path, unix(7)
LOG_LIMIT_BYTES = 10 * 1024 * 1024
ELSEWHERE = Path("/var/lib/tocengine")  # for data that root keeps where no other account can go
_POLL_S = 0.01
_QUIT_S = 0.3
_CONNECT_S = 10.0

log = structlog.get_logger()


class EmbeddedPostgres:
    """A PostgreSQL server on ``DATA_DIR/postgres``.

    Not `durable` (fsync off) is for unit tests alone. Start it on the main thread: the server ends with the
    thread that started it.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.durable = durable
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = settings or {}
        self._lock: int | None = None
        self._home = data_dir / "postgres"
        self._account: Account | None = None
        self._binaries: Binaries | None = None
        self._sockets = Path()
        self._log_start = 0

    @property
    def dsn(self) -> str:
        """How to reach the server once it was started; the same after every restart."""
        return connection_url(self._sockets, datadir.password(self.data_dir / "postgres" / "password"))

    def acquire(self) -> bool:
        """Takes the lock of the data directory; False when another process holds it. Raises ConfigurationError."""
        if self._lock is not None:
            return True
        try:
            if not self.data_dir.is_dir():
                self.data_dir.mkdir(parents=True)
                self.data_dir.chmod(0o711)
            descriptor = os.open(lock_file(self.data_dir), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(f"the data directory {self.data_dir}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock = descriptor
        return True

    async def start(self, timeout_s: float = 120.0) -> str:
        """Starts the server, waits until it takes connections (crash recovery included) and returns the DSN.

        Raises ConfigurationError for a second start and UnavailableError for everything else, with the reason.
        """
        if not self.acquire():
            raise ConfigurationError(
                f"the data directory {self.data_dir} is in use by process {lock_holder(self.data_dir)}",
                hint="the engine is already running there; stop it, or set another engine.data_dir",
            )
        try:
            self._prepare()
            return await self.restart(timeout_s)
        except BaseException:
            await self.stop()
            raise

    async def restart(self, timeout_s: float = 120.0) -> str:
        """Starts the server again after it ended, or waits for one that still recovers. Raises UnavailableError."""
        if self.process is None or self.process.poll() is not None:
            await self._spawn()
        await self._wait_until_ready(timeout_s)
        await self._ensure_database()
        return self.dsn

    async def _spawn(self) -> None:
        data = self._home / "data"
        await self._wait_for_orphan(data)
        datadir.clear_stale_locks(data, self._sockets / f"{SOCKET_FILE}.lock")
        assert self._account is not None
        assert self._binaries is not None
        self._make_socket_folder(self._account)
        options = {**server_settings(self._binaries, self._sockets, durable=self.durable), **self._settings}
        command: list[str | Path] = [self._binaries.postgres, "-D", data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with _open_log(self._home / "server.log").open("ab") as file:
            self._log_start = file.tell()
            self.process = spawn(self._account, command, file, ENVIRONMENT)

    async def wait(self) -> int:
        """Returns the exit status when the server ends."""
        assert self.process is not None
        return await ended(self.process)

    async def stop(self, patience_s: float = 5.0) -> None:
        """Shuts the server down and gives the lock back: fast, after `patience_s` at once (the next start recovers)."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(ended(process), patience_s)
            except TimeoutError:
                process.send_signal(signal.SIGQUIT)
                try:
                    await asyncio.wait_for(ended(process), _QUIT_S)
                except TimeoutError:  # it is frozen, and reads no signal but this one
                    process.kill()
                    await ended(process)
        if self._sockets.name.startswith("tocengine-") and self._sockets.is_dir():
            for entry in self._sockets.iterdir():
                entry.unlink()
            self._sockets.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare(self) -> None:
        """Account, place, programs, data and socket folder: everything that is decided once."""
        data_path = self._home / "data"
        account = choose_account(data_path)
        self._home = _reachable_home(self.data_dir / "postgres", account)
        data = self._home / "data"
        major = datadir.data_major(data)
        binaries = choose_binaries(account, self._home / "programs", major)
        secret = datadir.password(self._home / "password")
        if major is None:
            log.info("creating the database", seconds=2)
            datadir.create(data, binaries, account, secret, durable=self.durable)
        self._account, self._binaries = account, binaries
        self._sockets = _socket_folder(self._home, account)

    def _make_socket_folder(self, account: Account) -> None:
        try:
            self._sockets.mkdir(mode=0o700)
            give(account, self._sockets)
        except FileExistsError:
            pass

    async def _wait_for_orphan(self, data: Path) -> None:
        """The server of an engine that was killed is shutting down: give it the time."""
        deadline = asyncio.get_running_loop().time() + 15.0
        while (pid := datadir.server_pid(data)) is not None:
            if asyncio.get_running_loop().time() > deadline:
                raise UnavailableError(
                    f"a PostgreSQL that this engine did not start (process {pid}) is using {data}: stop it first"
                )
            await asyncio.sleep(_POLL_S)

    async def _wait_until_ready(self, timeout_s: float) -> None:
        assert self.process is not None
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            file = datadir.read_server_file(self._home / "data")
            if file is not None and file.pid == self.process.pid and file.ready:
                return
            status = self.process.poll()
            if status is not None or asyncio.get_running_loop().time() > deadline:
                said = _tail(self._home / "server.log", self._log_start)
                what = f"ended with status {status}" if status is not None else f"not ready in {timeout_s:g} s"
                raise UnavailableError(f"PostgreSQL {what}: {said}")
            await asyncio.sleep(_POLL_S)

    async def _ensure_database(self) -> None:
        """Makes the database on the first start; a crash between initdb and here is made good at the next one."""
        with unavailable_errors():  # it may die again at any moment
            try:
                connection = await asyncpg.connect(self.dsn, timeout=_CONNECT_S)
            except asyncpg.InvalidCatalogNameError:
                connection = await asyncpg.connect(self.dsn, database="postgres", timeout=_CONNECT_S)
                await connection.execute(f"create database {DATABASE}")
            except asyncpg.InvalidPasswordError as error:
                raise UnavailableError(
                    f"the password in {self._home}/password is not the one of the data directory beside it"
                ) from error
            await connection.close()


def connection_url(sockets: Path, password: str, database: str = DATABASE) -> str:
    """The libpq URL of a server listening in the folder `sockets`."""
    return f"postgresql://{datadir.SUPERUSER}:{quote(password, safe='')}@/{database}?host={quote(str(sockets))}"


def lock_file(data_dir: Path) -> Path:
    """Whose lock says that an engine (or a command) owns the embedded server."""
    return data_dir / "engine.lock"


def lock_holder(data_dir: Path) -> str:
    """The pid written by whoever took the lock last."""
    try:
        return lock_file(data_dir).read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _reachable_home(home: Path, account: Account) -> Path:
    """`home`, or where it leads to.

    Root may keep its data where no other account can go (/root). Modes of folders that are not ours stay as they
    are: the server's files then live in /var/lib/tocengine and `home` is a link to them.
    """
    try:
        if not home.exists():
            home.mkdir()
            home.chmod(0o711)
        home = home.resolve(strict=True)
        if can(account, "-x", home):
            return home
        if (home / "data").exists():
            raise UnavailableError(f"account {account.name} can no longer reach {home}: check the folders above it")
        ELSEWHERE.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=f"{home.parent.name}-", dir=ELSEWHERE))
        target.chmod(0o711)
        home.rmdir()
        home.symlink_to(target)
    except OSError as error:
        raise UnavailableError(f"cannot prepare {home}: {error.strerror}") from error
    log.warning("the server's account cannot reach the data directory", file=str(target), location=str(home))
    return target


def _socket_folder(home: Path, account: Account) -> Path:
    """A folder only `account` can enter: beside the data, or in the temporary folder where that path is too long."""
    beside = home / "socket"
    if len(os.fsencode(beside / SOCKET_FILE)) <= SOCKET_PATH_LIMIT:
        return beside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    for folder in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        short = folder / f"tocengine-{digest}"
        if len(os.fsencode(short / SOCKET_FILE)) <= SOCKET_PATH_LIMIT and can(account, "-x", folder):
            break
    else:
        raise UnavailableError(f"no folder for the server's socket: {tempfile.gettempdir()} is too long")
    if short.is_symlink() or (short.exists() and short.stat().st_uid != account.uid):
        return Path(tempfile.mkdtemp(prefix="tocengine-", dir=short.parent))  # someone sits on our name
    return short


def _open_log(path: Path) -> Path:
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    if not path.exists():
        path.touch(mode=0o600)
    return path


def _tail(path: Path, start: int) -> str:
    """What the server said since `start`; it logs no statements and no values (settings.py)."""
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read(20_000).decode(errors="replace").strip().splitlines()
    return " | ".join(lines[-4:]) or "it said nothing"
