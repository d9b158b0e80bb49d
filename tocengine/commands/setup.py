"""Owns the commands that set an engine up: starter files, configuration check, directory."""

from pathlib import Path

import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.config_file import domains_by_name
from tocengine.errors import ConfigurationError, TocError
from tocengine.model.directory import OPT_OUT, RecipientKind
from tocengine.routing.apply import Plan, plan, plan_panel
from tocengine.routing.apply import apply as apply_plan
from tocengine.routing.directory_file import load_directory_file, recipient_id
from tocengine.routing.panels import load_panel_csv
from tocengine.starter import write_starter

config_commands = typer.Typer(no_args_is_help=True, help="The configuration file.")


def init(folder: Path = typer.Argument(..., metavar="DIR")) -> None:
    """Write a commented tocengine.toml and directory.yaml that run as they are."""
    try:
        for path in write_starter(folder):
            output.stdout.print(f"wrote {path}")
    except TocError as error:
        output.fail(str(error), error.exit_code)
    output.stdout.print(f"next, in {folder}: `tocengine apply -f directory.yaml`, then `tocengine run`", markup=False)


@config_commands.command("check")
def check_config(config: Path = ConfigOption) -> None:
    """Read the configuration and say whether the engine would start with it."""
    settings = load(config)
    feeds = ", ".join(feed.name for feed in settings.feeds) or "none"
    output.stdout.print(f"{config} is usable. Feeds: {feeds}. Event log: {settings.event_log.kind}.")


def apply(
    file: Path = typer.Option(..., "-f", "--file", help="directory.yaml, or a panel as CSV."),
    panel_of: str = typer.Option("", "--panel-of", help="Whose panel a CSV is: facility:ID or practitioner:ID."),
    plan_only: bool = typer.Option(False, "--plan", help="Show what would change; change nothing."),
    prune: bool = typer.Option(False, "--prune", help="Retire what is in force and not in the file."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Bring the directory to what a file says. Idempotent; history is kept."""
    settings = load(config)
    domains = {alias: domain.name for alias, domain in domains_by_name(settings).items()}

    async def work() -> Plan:
        async with connected(settings) as pool, pool.acquire() as connection:
            if file.suffix.lower() == ".csv":
                kind, _, own_id = panel_of.partition(":")
                if kind not in tuple(RecipientKind) or not own_id:
                    raise ConfigurationError("a CSV needs --panel-of", hint="such as --panel-of facility:sunnyside")
                owner = recipient_id(RecipientKind(kind), own_id)
                planned = await plan_panel(connection, load_panel_csv(file, owner, domains), prune)
            else:
                planned = await plan(connection, load_directory_file(file, domains), prune)
            if plan_only:
                return planned
            return await apply_plan(connection, planned, user(), utc_now(), PostgresAuditTrail())

    done = run(work())
    if as_json:
        output.document({"applied": not plan_only, "changes": done.changes, "panels": done.panels})
        return
    _show_plan(done, plan_only)


def _show_plan(done: Plan, plan_only: bool) -> None:
    for change in done.changes:
        fields = f" ({', '.join(change.fields)})" if change.fields else ""
        output.stdout.print(f"{change.action.value:<7} {change.recipient_id} {change.name}{fields}", markup=False)
    for panel in done.panels:
        counts = f"{panel.added} added, {panel.changed} changed"
        if panel.missing:
            counts += (
                f", {panel.missing} {'retired' if panel.prune else 'not in the file and kept: --prune retires them'}"
            )
        if panel.recipient_id.startswith(OPT_OUT):
            whom = panel.recipient_id.removeprefix(OPT_OUT) or "anybody"
            output.stdout.print(f"opt-out from telling {whom}: {counts}", markup=False)
        else:
            output.stdout.print(f"panel   {panel.recipient_id}: {counts}", markup=False)
    if not done.changes and not any(panel.added or panel.changed for panel in done.panels):
        output.stdout.print("Nothing to change.")
    elif plan_only:
        output.stdout.print("Nothing was changed: --plan.")
