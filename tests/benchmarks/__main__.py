"""Owns `make bench`: stages in one process, then the whole engine; tables for people, one JSON line last."""

import asyncio
import os
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tests.benchmarks import engine, fhir_bundles, stages
from tests.benchmarks.timing import Row

console = Console(highlight=False)


def main(
    only_stages: Annotated[bool, typer.Option("--stages", help="Only the stages.")] = False,
    only_engine: Annotated[bool, typer.Option("--engine", help="Only the whole engine.")] = False,
    kafka: Annotated[bool, typer.Option(help="On Kafka, a process per role, instead of the embedded default.")] = False,
    messages: Annotated[int, typer.Option(help="Discharges to send, one notice each.")] = 3000,
    senders: Annotated[int, typer.Option(help="Stop-and-wait MLLP connections.")] = 16,
    rate: Annotated[float, typer.Option(help="Offered messages per second; 0 is as fast as answered.")] = 0.0,
    size: Annotated[str, typer.Option(help="2 KB or 9 KB.")] = "2 KB",
    told_every: Annotated[int, typer.Option(help="One discharge in so many leads to a notice; 12 is realistic.")] = 1,
    stored: Annotated[int, typer.Option(help="Messages in the database before the run.")] = 0,
    subscriptions: Annotated[int, typer.Option(help="Facilities in the directory.")] = 10,
    panel_rows: Annotated[int, typer.Option(help="Patients on panels.")] = 0,
) -> None:
    """Measure what a message costs."""
    load = os.getloadavg()[0]
    console.print(f"{os.cpu_count()} cores, load average {load:.1f} before the run")
    if not only_engine:
        for name, octets in stages.SIZES.items():
            _show_stages(f"CPU per {name} A03, microseconds", stages.measure(octets))
        _show_stages("A FHIR discharge of nine resources (4 KB), microseconds", fhir_bundles.measure_bundles())
        _show_stages("Parse and read 25 fields of a 2 KB A03, microseconds", stages.measure_parsers())
    if not only_stages:
        figures, processes = asyncio.run(
            engine.measure(
                engine.Shape(
                    messages=messages,
                    connections=senders,
                    rate=rate,
                    size=stages.SIZES[size],
                    told_every=told_every,
                    kafka=kafka,
                    stored=stored,
                    subscriptions=subscriptions,
                    panel_rows=panel_rows,
                )
            )
        )
        _show_figures("Kafka" if kafka else "embedded default", figures, processes)
        print(msgspec.json.encode(figures).decode())


def _show_stages(title: str, rows: list[Row]) -> None:
    table = Table("stage", "best", "median", title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(row.stage, f"{row.best_us:.1f}", f"{row.median_us:.1f}")
    console.print(table)


def _show_figures(name: str, figures: engine.Figures, processes: dict[str, float]) -> None:
    table = Table("figure", "value", title=f"The whole engine, {name}", title_justify="left", box=None)
    for field in figures.__struct_fields__:
        table.add_row(field, f"{getattr(figures, field):,}")
    for process, milliseconds in processes.items():
        table.add_row(f"CPU ms per message, {process}", f"{milliseconds:.2f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
