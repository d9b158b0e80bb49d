"""Owns what processes cost, read from /proc: CPU time with that of ended children, and memory (proc(5))."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def everything() -> list[int]:
    """Every process there is now."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def program(pid: int) -> str:
    """What a process runs, by its short name."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def children(pid: int) -> list[int]:
    """The processes `pid` has started and that have not ended."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def arguments(pid: int) -> list[str]:
    """The command line of a process."""
    return [word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if word]


def own_cpu_s(pid: int) -> float:
    """CPU seconds of a process itself. Raises FileNotFoundError where it has ended."""
    fields = _stat(pid)
    return (fields[0] + fields[1]) * _TICK_S


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process, its children and theirs, with all that have ended and were waited for.

    Raises FileNotFoundError or ProcessLookupError where `pid` itself has ended. A child that ends meanwhile is counted
    once: its time moves to its parent when it is waited for, so the parent is read anew if its children have changed.
    """
    while True:
        try:
            before = children(pid)
            total = sum(_stat(pid)) * _TICK_S + sum(map(tree_cpu_s, before))
            if children(pid) == before:
                return total
        except (FileNotFoundError, ProcessLookupError):
            _stat(pid)  # raises if it is not a child that has ended


def parent(pid: int) -> int:
    """The process that started `pid`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _stat(pid: int) -> list[int]:
    """utime, stime, cutime and cstime, in ticks."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in after_name[11:15]]


def peak_mb(pid: int) -> float:
    """The most memory a process has had resident."""
    return _status(pid).get("VmHWM", 0) / 1024


def resident_mb(pid: int) -> float:
    """What a process has resident now."""
    return _status(pid).get("VmRSS", 0) / 1024


def roles(words: Sequence[str]) -> str:
    """The roles of an engine's process by its command line; "" for the supervisor."""
    return "+".join(role for word, role in itertools.pairwise(words) if word == "--role")


def tree_mb(pid: int) -> float:
    """Resident memory of a process and its children now: what is private of each, and what they share once."""
    rows = [_status(each) for each in (pid, *children(pid))]
    private = sum(row.get("RssAnon", 0) for row in rows)
    return (private + max(row.get("RssShmem", 0) for row in rows)) / 1024


def _status(pid: int) -> Mapping[str, int]:
    """The kB lines of /proc/PID/status; one that was killed and not waited for yet has none."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in _pairs(lines) if rest.endswith(" kB")}


def _pairs(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines]
