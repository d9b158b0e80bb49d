"""Owns the command line: which commands there are. Each is written in `commands/` and read when it is asked for."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from tocengine.build import described

COMMANDS = {
    "run": "run:run",
    "demo": "demo:demo",
    "bench": "bench:bench",
    "init": "setup:init",
    "config": "setup:config_commands",
    "apply": "setup:apply",
    "check": "check:check",
    "explain": "messages:explain",
    "send": "send:send",
    "trace": "inspect:trace",
    "status": "inspect:status",
    "encounter": "encounters:encounter",
    "work-items": "inspect:work_items",
    "quarantine": "quarantine:quarantine",
    "codes": "codes:codes",
    "replay": "replay:replay",
    "dead-letters": "deliveries:dead_letters",
    "endpoints": "deliveries:endpoints",
    "clients": "clients:clients",
    "audit": "audit:audit",
}
"""Module and name of each command, in the order of the help. What a command needs is loaded only for that one:
all together take a second, and `trace` shall answer at once."""


class Commands(TyperGroup):
    """The commands of the table. What click calls a context and a command has no public type in typer."""

    def __init__(self, **attributes: Any) -> None:
        names: Any = dict.fromkeys(COMMANDS)  # for the help and for suggestions; `get_command` loads what stands there
        super().__init__(**(attributes | {"commands": names}))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, loaded; None for a name that the table does not have."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"tocengine.commands.{module}"), name)
        if isinstance(found, typer.Typer):
            group = typer.main.get_group(found)
            group.name = cmd_name
            return group
        alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)


app = typer.Typer(
    name="tocengine",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a trace may show values of variables, and those may be PHI
    help="Transitions of care: hospital ADT in, delivered and audited notices to post-acute facilities out.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(described())
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and build."
    ),
) -> None:
    """Options of the program itself."""


def main() -> None:
    """The entry point of the program."""
    app()
