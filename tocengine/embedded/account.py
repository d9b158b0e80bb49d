"""Owns under which account the server runs.

PostgreSQL refuses to run as root. Started by root, the engine drops to an account that already exists; it
never creates one and never changes the mode of a directory that is not its own.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from tocengine.child import die_with_parent
from tocengine.errors import ConfigurationError, UnavailableError

CANDIDATES = ("tocengine", "postgres", "nobody")


class Account(msgspec.Struct, frozen=True):
    """The user the server runs as. `drop` is set when that is not the user the engine runs as."""

    uid: int
    gid: int
    name: str
    drop: bool


def choose_account(data: Path) -> Account:
    """The owner of existing data, else the current user, else (as root) the first candidate that exists.

    Raises ConfigurationError when the data belong to someone the engine cannot become.
    """
    uid = os.geteuid()
    owner = data.stat().st_uid if data.exists() else None
    if uid != 0:
        if owner not in (None, uid):
            raise ConfigurationError(
                f"the data directory {data} belongs to user {_name(owner)}",
                hint=f"run the engine as {_name(owner)} or as root, or set engine.data_dir to another folder",
            )
        return Account(uid, os.getegid(), _name(uid), drop=False)
    if owner:
        return Account(owner, data.stat().st_gid, _name(owner), drop=True)
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, name, drop=True)
    raise ConfigurationError(
        f"PostgreSQL does not run as root and none of the accounts {', '.join(CANDIDATES)} exists",
        hint="run the engine as an ordinary user, or set postgres.dsn",
    )


def spawn(
    account: Account, command: Sequence[str | Path], log: IO[bytes] | int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Starts `command` as `account` in a session of its own (a terminal's Ctrl-C is not for it); PostgreSQL shuts
    down in an orderly way when the engine dies. Raises UnavailableError."""
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=dict(environment),
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGINT),
            user=account.uid if account.drop else None,
            group=account.gid if account.drop else None,
            extra_groups=[] if account.drop else None,
        )
    except OSError as error:
        raise UnavailableError(f"cannot start {command[0]} as {account.name}: {error.strerror}") from error


def run_as(
    account: Account, command: Sequence[str | Path], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a short command as `account` and returns what it said. Raises UnavailableError if it cannot start."""
    try:
        return subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=dict(environment),
            preexec_fn=die_with_parent(signal.SIGKILL),
            check=False,
            user=account.uid if account.drop else None,
            group=account.gid if account.drop else None,
            extra_groups=[] if account.drop else None,
        )
    except OSError as error:
        raise UnavailableError(f"cannot run {command[0]} as {account.name}: {error.strerror}") from error


def can(account: Account, test: str, path: Path) -> bool:
    """Whether `account` passes the shell test `test` (such as ``-x``) on `path`, with every folder above it."""
    if not account.drop:
        return os.access(path, {"-x": os.X_OK, "-r": os.R_OK, "-w": os.W_OK}[test])
    shell = shutil.which("sh") or "/bin/sh"
    return run_as(account, [shell, "-c", f'test {test} "$0"', path], {}).returncode == 0


def give(account: Account, path: Path) -> None:
    """Makes `account` the owner of `path`, where the engine is root."""
    if account.drop:
        os.chown(path, account.uid, account.gid)


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid).pw_name if uid is not None else "nobody"
    except KeyError:
        return str(uid)
