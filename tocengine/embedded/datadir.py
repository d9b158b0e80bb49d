"""Owns the data directory: how it comes to be, whose it is, and which leftovers of a dead server may be cleared."""

import os
import secrets
import shutil
from pathlib import Path

import msgspec

from tocengine.embedded.account import Account, give, run_as
from tocengine.embedded.binaries import ENVIRONMENT, Binaries
from tocengine.errors import UnavailableError

SUPERUSER = "tocengine"
PID_FILE = "postmaster.pid"


class ServerFile(msgspec.Struct, frozen=True):
    """`postmaster.pid`: pid, data directory, start time, port, socket folder, address, shared memory, status
    (PostgreSQL, src/include/utils/pidfile.h)."""

    pid: int
    socket_folder: str
    ready: bool


def data_major(data: Path) -> int | None:
    """The major version that made `data`; None where there are none yet. Raises UnavailableError."""
    try:
        return int((data / "PG_VERSION").read_text().split(".")[0])
    except FileNotFoundError:
        if data.exists():
            raise UnavailableError(f"{data} is not a PostgreSQL data directory: it has no PG_VERSION") from None
        return None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{data}/PG_VERSION cannot be read") from error


def create(data: Path, binaries: Binaries, account: Account, password: str, *, durable: bool) -> None:
    """Makes a new cluster under a temporary name and renames it when it is whole. Raises UnavailableError."""
    unfinished = data.with_name(data.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    give(account, unfinished)
    secret = unfinished.with_name("initdb-password")
    write_private(secret, password)
    give(account, secret)
    command: list[str | Path] = [
        binaries.initdb,
        f"--pgdata={unfinished}",
        f"--username={SUPERUSER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",  # byte order: the same on every machine, whatever locales it has
        "--data-checksums",
        *([] if durable else ["--no-sync"]),
    ]
    try:
        done = run_as(account, command, ENVIRONMENT)
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise UnavailableError(f"initdb failed in {data.parent}: {done.stderr.strip()[-400:]}")
    unfinished.rename(data)
    _sync_folder(data.parent)


def password(path: Path) -> str:
    """The superuser's password: made once, kept in a file only the engine's user can read."""
    try:
        return path.read_text()
    except FileNotFoundError:
        write_private(path, secrets.token_urlsafe(32))
        return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Writes a 0600 file in one step: it is either whole or not there."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    _sync_folder(path.parent)


def read_server_file(data: Path) -> ServerFile | None:
    """What the running (or dead) server wrote; None where there is nothing or not yet enough."""
    try:
        lines = (data / PID_FILE).read_text().splitlines()
        status = lines[7].strip() if len(lines) > 7 else ""
        return ServerFile(int(lines[0]), lines[4], status == "ready")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def server_pid(data: Path) -> int | None:
    """The pid of a live server on `data`, whoever started it."""
    try:
        pid = abs(int((data / PID_FILE).read_text().split("\n", 1)[0]))
    except (FileNotFoundError, ValueError):
        return None
    return pid if _serves(pid, data) else None


def clear_stale_locks(data: Path, socket_lock: Path) -> None:
    """Removes lock files that name a process which is dead, a zombie, or not this server.

    PostgreSQL itself believes any live pid. What is left out here it checks anyway: backends that outlived
    their server still hold its shared memory, and a new server refuses to start until they are gone.
    Call only while holding the engine's own lock, and not while `server_pid` finds a server.
    """
    if server_pid(data) is None:
        (data / PID_FILE).unlink(missing_ok=True)
        socket_lock.unlink(missing_ok=True)
        socket_lock.with_name(socket_lock.name.removesuffix(".lock")).unlink(missing_ok=True)


def _serves(pid: int, data: Path) -> bool:
    """Whether `pid` is alive, no zombie, and a postgres whose working directory is `data`."""
    process = Path("/proc") / str(pid)
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state not in ("Z", "X") and (process / "cwd").samefile(data)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's process: it cannot be ours, data of others are refused before
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
