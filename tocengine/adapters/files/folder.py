"""Owns a watched directory: what in it is ready, whose it is, and where a file goes when it is done.

A file stays where its sender put it until all of it is durable; only then is it renamed. Whoever works on it holds a
lock that ends with the process, so that a crash leaves the file to be picked up again, and two processes never work on
one file at a time.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from tocengine.config import FileDropSettings
from tocengine.errors import ConfigurationError

PROCESSED: Final = "processed"
FAILED: Final = "failed"
ACKNOWLEDGED: Final = "acks"
UNFINISHED: Final = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".ack")
"""Endings of names under which a sender is still writing, or we answer."""

_LONGEST, _LONGEST_STEM = 240, 200  # bytes of a name; file systems end at 255, and a number and ".tmp" may follow


class Claimed(msgspec.Struct):
    """A file in our hands. `body` holds at most one byte more than the limit; `too_large` where there was more."""

    path: Path
    descriptor: int
    body: bytes
    too_large: bool = False


class DropFolder:
    """One directory. Every call may block on the file system."""

    def __init__(self, directory: Path, settings: FileDropSettings) -> None:
        self._directory, self._settings = directory, settings

    def prepare(self) -> None:
        """Makes the folders that are missing. Raises ConfigurationError where files cannot be moved in them."""
        wanted = [self._directory, self._directory / PROCESSED, self._directory / FAILED]
        if self._settings.write_acks:
            wanted.append(self._directory / ACKNOWLEDGED)
        for folder in wanted:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigurationError(f"the folder {folder} cannot be made", hint=error.strerror or "") from error
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise ConfigurationError(f"files cannot be read and moved in the folder {folder}")

    def ready(self, now: float) -> list[Path]:
        """The files to take, by name; `now` is in seconds since the epoch.

        Left alone are names that say "not finished", and whatever changed within the last `settle_s`. What counts is
        when the file system saw it change: a sender may set the time of the last write to anything.
        """
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED):
                    continue
                try:
                    known = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # another process was faster
                    continue
                if stat.S_ISREG(known.st_mode) and abs(now - known.st_ctime) >= self._settings.settle_s:
                    found.append(self._directory / entry.name)
        return sorted(found)

    def claim(self, path: Path) -> Claimed | None:
        """Opens, locks and reads a file. None where another process has it, or had it. Raises OSError."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), path.lstat()):  # moved between opening and locking
                os.close(descriptor)
                return None
            limit = self._settings.max_bytes
            body = _read(descriptor, limit + 1)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, FileNotFoundError) or error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return None
            raise
        return Claimed(path, descriptor, body[:limit], len(body) > limit)

    def release(self, claimed: Claimed) -> None:
        """Leaves the file where it is, for the next look."""
        os.close(claimed.descriptor)

    def finish(self, claimed: Claimed, *, failed: bool, answers: Iterable[bytes]) -> None:
        """Writes the acknowledgments where they are wanted or the file failed, then moves it. Raises OSError."""
        try:
            target = self._directory / (FAILED if failed else PROCESSED)
            written = b"".join(answers)
            if written and (failed or self._settings.write_acks):
                folder = target if failed else self._directory / ACKNOWLEDGED
                _write(_free(folder / f"{claimed.path.name}.ack"), written)
            claimed.path.rename(_free(target / claimed.path.name))
        finally:
            os.close(claimed.descriptor)

    def sweep(self, now: float) -> None:
        """Removes what was processed longer than `keep_days` ago; what failed stays for a person."""
        oldest = now - self._settings.keep_days * 86_400
        for folder in (PROCESSED, ACKNOWLEDGED):
            place = self._directory / folder
            for entry in place.iterdir() if place.is_dir() else ():
                if entry.lstat().st_ctime < oldest:  # the move into the folder, not the sender's last write
                    entry.unlink(missing_ok=True)


def _read(descriptor: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.read(descriptor, min(most, 1024 * 1024))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _write(path: Path, content: bytes) -> None:
    """Under a name that says "not finished" first: whoever waits for it never sees a half."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def _free(path: Path) -> Path:
    """`path`, or a name beside it that is not taken: senders use names again."""
    stem = (
        path.stem.encode()[:_LONGEST_STEM].decode(errors="ignore") if len(path.name.encode()) > _LONGEST else path.stem
    )
    found, number = path.with_name(f"{stem}{path.suffix}"), 0
    while found.exists():
        number += 1
        found = path.with_name(f"{stem}.{number}{path.suffix}")
    return found
