"""Owns `make bench-growth`: what a message costs when much is stored, many are subscribed and panels are large.

Each size is measured beside the empty engine, minutes apart at most, because the machine's speed drifts: the ratio is
the figure. A size that does not fit the disk is skipped, and said to be.
"""

import asyncio
import shutil
import tempfile
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tests.benchmarks import engine
from tests.benchmarks.growth import BYTES_PER_MESSAGE
from tocengine.simulation.load.bench import Shape

SIZES = (
    # messages stored, facilities subscribed, patients on panels
    (0, 10, 0),
    (10_000, 10, 0),
    (200_000, 1_000, 0),
    (200_000, 1_000, 1_000_000),
    (2_000_000, 10_000, 1_000_000),
)
FREE_AFTER = 10 * 1024**3
"""Bytes of the disk that stay free."""
console = Console(highlight=False)


def main(
    messages: Annotated[int, typer.Option(help="Discharges to send at each size.")] = 2000,
    most: Annotated[int, typer.Option(help="Sizes with more messages stored are skipped.")] = 2_000_000,
) -> None:
    """Measure what a message costs as the engine grows."""
    table = Table("stored", "subscribed", "on panels", "CPU-s per 1,000", "of it PostgreSQL", "against empty", box=None)
    first = 0.0
    for stored, subscriptions, panel_rows in SIZES:
        sizes = [f"{stored:,}", f"{subscriptions:,}", f"{panel_rows:,}"]
        if stored > most or not _fits(stored):
            table.add_row(*sizes, "skipped: " + ("not asked for" if stored > most else "the disk is too small"))
            continue
        before = engine.Before(stored=stored, subscriptions=subscriptions, panel_rows=panel_rows)
        figures, _ = asyncio.run(engine.measure(Shape(messages=messages), before))
        first = first or figures.cpu_s_per_1000
        table.add_row(
            *sizes,
            f"{figures.cpu_s_per_1000:.2f}",
            f"{figures.postgres_cpu_s_per_1000:.2f}",
            f"{figures.cpu_s_per_1000 / first:.2f}",
        )
        console.print(msgspec.json.encode({"stored": stored, **msgspec.structs.asdict(figures)}).decode())
    console.print(table)


def _fits(stored: int) -> bool:
    return shutil.disk_usage(tempfile.gettempdir()).free - stored * BYTES_PER_MESSAGE * 2 > FREE_AFTER


if __name__ == "__main__":
    typer.run(main)
