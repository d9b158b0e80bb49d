"""Owns `make bench`: stages in one process, then the whole engine; tables for people, one JSON line last."""

import asyncio
import os
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tests.benchmarks import bystanders, engine, fhir_bundles, roles, stages
from tests.benchmarks.timing import Row
from tocengine.simulation.load.bench import Shape
from tocengine.simulation.load.figures import figures_table
from tocengine.simulation.load.visits import SIZES, Mix

console = Console(highlight=False)


def main(
    only_stages: Annotated[bool, typer.Option("--stages", help="Only the stages.")] = False,
    only_engine: Annotated[bool, typer.Option("--engine", help="Only the whole engine.")] = False,
    only_roles: Annotated[bool, typer.Option("--roles", help="Only ingest, route and deliver, one at a time.")] = False,
    silent: Annotated[
        int, typer.Option(help="Only what so many silent and half-open connections cost other senders; 0 is not.")
    ] = 0,
    kafka: Annotated[bool, typer.Option(help="On Kafka, a process per role, instead of the embedded default.")] = False,
    messages: Annotated[int, typer.Option(help="Discharges to send, one notice each.")] = 3000,
    senders: Annotated[int, typer.Option(help="Stop-and-wait MLLP connections.")] = 16,
    rate: Annotated[float, typer.Option(help="Offered messages per second; 0 is as fast as answered.")] = 0.0,
    size: Annotated[str, typer.Option(help="2 KB or 9 KB.")] = "2 KB",
    told_every: Annotated[int, typer.Option(help="One discharge in so many leads to a notice; 12 is realistic.")] = 1,
    early_every: Annotated[int, typer.Option(help="One in so many comes before its admission; 0: none.")] = 0,
    bundles: Annotated[bool, typer.Option("--fhir", help="Discharges are FHIR Bundles.")] = False,
    stored: Annotated[int, typer.Option(help="Messages in the database before the run.")] = 0,
    subscriptions: Annotated[int, typer.Option(help="Facilities in the directory.")] = 10,
    panel_rows: Annotated[int, typer.Option(help="Patients on panels.")] = 0,
) -> None:
    """Measure what a message costs."""
    load = os.getloadavg()[0]
    console.print(f"{os.cpu_count()} cores, load average {load:.1f} before the run")
    if silent:
        beside = asyncio.run(bystanders.measure(silent))
        console.print(figures_table(f"Answers beside {silent} silent and half-open connections", beside))
        print(msgspec.json.encode(beside).decode())
        return
    if only_roles:
        _show_roles(roles.measure(messages, Mix(size=SIZES[size], told_every=told_every)))
        return
    if not only_engine:
        for name, octets in SIZES.items():
            _show_stages(f"CPU per {name} A03, microseconds", stages.measure(octets))
        _show_stages("A FHIR discharge of nine resources (4 KB), microseconds", fhir_bundles.measure_bundles())
        _show_stages("Parse and read 25 fields of a 2 KB A03, microseconds", stages.measure_parsers())
    if not only_stages:
        mix = Mix(size=SIZES[size], told_every=told_every, early_every=early_every)
        figures, processes = asyncio.run(
            engine.measure(
                Shape(messages=messages, connections=senders, rate=rate, mix=mix),
                engine.Before(stored=stored, subscriptions=subscriptions, panel_rows=panel_rows),
                kafka=kafka,
                bundles=bundles,
            )
        )
        name = "Kafka" if kafka else "embedded default"
        console.print(figures_table(f"The whole engine, {name}", figures, processes))
        print(msgspec.json.encode(figures).decode())


def _show_roles(costs: list[roles.Cost]) -> None:
    table = Table("role alone", "engine, us", "PostgreSQL, us", "per second", title_justify="left", box=None)
    for cost in costs:
        table.add_row(cost.role, f"{cost.engine_us:,.0f}", f"{cost.postgres_us:,.0f}", f"{cost.per_s:,.0f}")
    console.print(table)


def _show_stages(title: str, rows: list[Row]) -> None:
    table = Table("stage", "best", "median", title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(row.stage, f"{row.best_us:.1f}", f"{row.median_us:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
