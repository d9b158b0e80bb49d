"""Owns `tocengine demo`: the command line around `simulation.demo`."""

import asyncio

import typer

from tocengine.commands import output
from tocengine.simulation.demo import Demo


def demo(
    visits: int = typer.Option(132, help="How many visits the hospital's day has."),
    seed: int = typer.Option(7, help="Another seed gives other people."),
    keep: bool = typer.Option(False, "--keep", help="Leave the engine and the receivers running until Ctrl-C."),
) -> None:
    """Run a hospital's day through the engine: from message to delivered, audited notice."""
    passed = asyncio.run(Demo(visits=visits, seed=seed, keep=keep, console=output.stdout).run())
    raise typer.Exit(0 if passed else 1)
