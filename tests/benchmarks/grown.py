"""Owns `make bench-growth`: what a message costs when much is stored, many are subscribed and panels are large.

One engine grows from size to size, and the same load is measured at each: the ratio to the empty engine is the figure,
and the last row, an empty engine again, says how far the machine itself has drifted meanwhile. A size that does not fit
the disk is skipped, and said to be.
"""

import asyncio
import shutil
import tempfile
import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from tests.benchmarks import engine
from tests.benchmarks.growth import BYTES_PER_MESSAGE, fill
from tocengine.commands.output import stdout as console
from tocengine.simulation.load import recipients
from tocengine.simulation.load.bench import Bench, Shape, bench
from tocengine.simulation.load.figures import Figures
from tocengine.simulation.load.visits import FACILITIES


class Size(msgspec.Struct, frozen=True):
    """What the engine holds: messages, facilities in the directory, patients on panels."""

    stored: int
    subscribed: int
    panel_rows: int


SIZES = (
    Size(0, FACILITIES, 0),
    Size(10_000, FACILITIES, 0),
    Size(200_000, FACILITIES, 0),
    Size(200_000, 1_000, 0),
    Size(200_000, 10_000, 0),
    Size(200_000, 10_000, 1_000_000),
    Size(2_000_000, 10_000, 1_000_000),
)
FREE_AFTER = 10 * 1024**3
"""Bytes of the disk that stay free."""


def main(
    messages: Annotated[int, typer.Option(help="Discharges to send at each size.")] = 2000,
    most: Annotated[int, typer.Option(help="Sizes with more messages stored are skipped.")] = 2_000_000,
) -> None:
    """Measure what a message costs as the engine grows."""
    measured = asyncio.run(_grow(messages, most))
    first = measured[SIZES[0]]
    table = Table("stored", "subscribed", "on panels", "CPU-s per 1,000", "PostgreSQL", "against empty", box=None)
    for size in SIZES:
        figures = measured.get(size)
        sizes = [f"{size.stored:,}", f"{size.subscribed:,}", f"{size.panel_rows:,}"]
        table.add_row(*sizes, *(_row(figures, first) if figures else ("skipped: " + _why_not(size, most),)))
    again, _ = asyncio.run(engine.measure(Shape(messages=messages)))
    table.add_row("0, again", "10", "0", *_row(again, first))
    console.print(table)


async def _grow(messages: int, most: int) -> dict[Size, Figures]:
    shape = Shape(messages=messages)
    measured: dict[Size, Figures] = {}
    async with (
        engine.rig() as rig,
        bench(rig.pool, rig.target(), shape, visits=engine.PATTERNS + messages * len(SIZES)) as load,
    ):
        await load.admit(0, engine.PATTERNS)
        await load.discharge(0, engine.PATTERNS)  # what is copied
        held = SIZES[0]
        for index, size in enumerate(SIZES):
            if _why_not(size, most):
                continue
            began = time.monotonic()
            await _grow_to(rig, held, size)
            held = size
            first = engine.PATTERNS + index * messages
            measured[size] = await _measured(load, first, first + messages)
            line = {"size": size, "seconds": round(time.monotonic() - began), "figures": measured[size]}
            console.print(msgspec.json.encode(line).decode())
    return measured


async def _grow_to(rig: engine.Rig, held: Size, size: Size) -> None:
    """From what is held to `size`; nothing ever shrinks."""
    others = (recipients.facility(index, 9, b"nobody") for index in range(held.subscribed, size.subscribed))
    await recipients.add(rig.pool, tuple(others), datetime.now(UTC))
    if size.stored > held.stored or size.panel_rows > held.panel_rows:
        await fill(rig.pool, size.stored - held.stored, size.panel_rows - held.panel_rows)


async def _measured(load: Bench, first: int, last: int) -> Figures:
    await load.admit(first, last)
    figures, _ = await load.measure(first, last)
    return figures


def _row(figures: Figures, first: Figures) -> tuple[str, ...]:
    postgres, before = figures.postgres_cpu_s_per_1000 or 0.0, first.postgres_cpu_s_per_1000 or 1.0
    return (
        f"{figures.cpu_s_per_1000:.2f}",
        f"{postgres:.2f} ({postgres / before:.2f} times)",
        f"{figures.cpu_s_per_1000 / first.cpu_s_per_1000:.2f} times",
    )


def _why_not(size: Size, most: int) -> str:
    """Why a size is not measured; "" where it is."""
    if size.stored > most:
        return "not asked for"
    free = shutil.disk_usage(tempfile.gettempdir()).free
    return "the disk is too small" if free - size.stored * BYTES_PER_MESSAGE < FREE_AFTER else ""


if __name__ == "__main__":
    typer.run(main)
