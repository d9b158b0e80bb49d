"""Owns where in a TOML file a key stands, which tomllib does not tell. Pure."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes from the root of the document."""


def places(text: str) -> Mapping[Path, int]:
    """The line (from 1) of every table, key and list element of `text`, which must be valid TOML.

    A statement is as many lines as it takes to parse; what an inline table or a list holds has its statement's line.
    """
    found: dict[Path, int] = {}
    lengths: dict[Path, int] = {}  # of arrays of tables
    prefix: Path = ()
    for number, statement in _statements(text):
        value = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            prefix = _header(value, lengths)
            for depth in range(1, len(prefix) + 1):
                found.setdefault(prefix[:depth], number)
        else:
            for path in _walk(value):
                found.setdefault(prefix + path, number)
    return found


def line_of(found: Mapping[Path, int], path: Path) -> int:
    """The line of `path` or of the nearest table around it; 0 where there is none."""
    for depth in range(len(path), 0, -1):
        if path[:depth] in found:
            return found[path[:depth]]
    return 0


def _statements(text: str) -> Iterator[tuple[int, str]]:
    start, lines = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start = number
        lines.append(line)
        statement = "\n".join(lines)
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        yield start, statement
        lines = []


def _header(value: object, lengths: dict[Path, int]) -> Path:
    """The path of ``[a.b]`` or ``[[a.b]]``; a table below an array of tables belongs to its last element."""
    path: Path = ()
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        path += (key,)
        if isinstance(value, list):
            lengths[path] = lengths.get(path, 0) + 1
            value = None
        if path in lengths:
            path += (lengths[path] - 1,)
    return path


def _walk(value: object, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*path, index))
