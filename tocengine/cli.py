"""Owns the command line: which commands there are. Each is written in `commands/`."""

import typer

from tocengine import __version__
from tocengine.commands import deliveries, inspect, messages, output, setup
from tocengine.commands.audit import audit
from tocengine.commands.bench import bench
from tocengine.commands.check import check
from tocengine.commands.clients import clients
from tocengine.commands.codes import codes
from tocengine.commands.demo import demo
from tocengine.commands.encounters import encounter
from tocengine.commands.quarantine import quarantine
from tocengine.commands.replay import replay
from tocengine.commands.run import run

app = typer.Typer(
    name="tocengine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a trace may show values of variables, and those may be PHI
    help="Transitions of care: hospital ADT in, delivered and audited notices to post-acute facilities out.",
)

app.command()(run)
app.command()(demo)
app.command()(bench)
app.command()(setup.init)
app.add_typer(setup.config_commands, name="config")
app.command()(setup.apply)
app.command()(check)
app.command()(messages.explain)
app.command()(messages.send)
app.command()(inspect.trace)
app.command()(inspect.status)
app.add_typer(encounter, name="encounter")
app.add_typer(inspect.work_items, name="work-items")
app.add_typer(quarantine, name="quarantine")
app.add_typer(codes, name="codes")
app.command()(replay)
app.add_typer(deliveries.dead_letters, name="dead-letters")
app.add_typer(deliveries.endpoints, name="endpoints")
app.add_typer(clients, name="clients")
app.add_typer(audit, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        output.stdout.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of the program itself."""


def main() -> None:
    """The entry point."""
    app()
