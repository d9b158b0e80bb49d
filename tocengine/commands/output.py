"""Owns how commands print: tables for people, one JSON object a line with ``--json``, errors on standard error."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 1000  # nothing wraps in a file or a pipe
stdout = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def document(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")


def rows(found: Sequence[Mapping[str, object]], *, as_json: bool, title: str, empty: str) -> None:
    """`found` as a table, or as JSON lines."""
    if as_json:
        for row in found:
            document(row)
    elif not found:
        stdout.print(empty)
    else:
        stdout.print(table(title, list(found[0]), ([shown(row[name]) for name in found[0]] for row in found)))


def table(title: str, columns: Iterable[str], lines: Iterable[Sequence[str]]) -> Table:
    """A plain table."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", title_style="bold")
    for column in columns:
        made.add_column(column.replace("_", " "), overflow="fold")
    for line in lines:
        made.add_row(*(Text(harmless(cell)) for cell in line))  # as it is: what a sender wrote is no markup
    return made


def shown(value: object) -> str:
    """A value as a table cell."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def harmless(text: str) -> str:
    """`text` without what a terminal would obey: control characters become U+FFFD, line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def fail(text: str, exit_status: int) -> NoReturn:
    """Prints the reason on standard error and ends the command."""
    stderr.print(f"tocengine: {text}", style="red", markup=False)
    raise typer.Exit(exit_status)
