"""Owns `tocengine run`: the supervised engine on the embedded default, or single roles."""

import asyncio
import os
import sys
from pathlib import Path

import structlog
import typer

from tocengine.admin import engine_app
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, load
from tocengine.config import Config
from tocengine.deployment import Role, prepare_checkpoint_dir, role_socket
from tocengine.embedded import EmbeddedPostgres
from tocengine.errors import ConfigurationError, TocError
from tocengine.process import run_until_drained
from tocengine.supervisor import role_command, run_supervisor
from tocengine.telemetry import configure_logging, origin_of
from tocengine.web import WebServer

SUPERVISED = {"ingest": (Role.INGEST,), "route-deliver": (Role.ROUTE, Role.DELIVER)}
"""Two engine processes, so that two cores work: one answers senders, the other routes and delivers."""


DEFECT = 70  # the exit status of an error that nobody raised on purpose


def run(
    config: Path = ConfigOption,
    role: list[Role] = typer.Option([], "--role", help="Run this role only; may be given more than once."),
    supervised: str = typer.Option("", hidden=True, help="The name under which a supervisor runs this process."),
) -> None:
    """Run the engine until SIGTERM; a second signal ends it at once, losing nothing acknowledged."""
    settings = load(config)
    configure_logging(
        settings.engine.log_level, engine=settings.engine.name, role=",".join(role) if role else "supervisor"
    )
    if role and not supervised and not settings.postgres.dsn:
        output.fail("--role needs [postgres] dsn; on the embedded default `tocengine run` starts all roles", 2)
    try:
        if not supervised and (not role or Role.ROUTE in role):
            prepare_checkpoint_dir(settings)
        status = _run_roles(settings, role, supervised) if role else _supervise(settings, config)
    except Exception as error:
        reason = _reason(error)
        if reason is None:  # a defect: its text and trace may quote a message, so only its place is said
            structlog.get_logger().critical("defect", **origin_of(_first(error)))
            raise typer.Exit(DEFECT) from None
        output.fail(str(reason), reason.exit_code)
    raise typer.Exit(status)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _reason(error: Exception) -> TocError | None:
    """What the engine raised on purpose, out of the groups that concurrent tasks wrap it in."""
    if isinstance(error, ExceptionGroup):
        return next((reason for each in error.exceptions if (reason := _reason(each))), None)
    return error if isinstance(error, TocError) else None


def _run_roles(config: Config, roles: list[Role], supervised: str) -> int:
    from tocengine.app import Engine  # all there is to run: a supervisor starts in half the time without it

    listen = role_socket(config, supervised) if supervised else config.admin.listen
    return run_until_drained(Engine(config, roles, listen).run)


def _make_private(folder: Path) -> None:
    """The folder of the roles' sockets. Raises ConfigurationError where it cannot be made, or is another user's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not mine:
        raise ConfigurationError(f"the folder {folder} belongs to another user")


def _supervise(config: Config, path: Path) -> int:
    server = EmbeddedPostgres(config.engine.data_dir) if not config.postgres.dsn else None
    sockets = {name: role_socket(config, name) for name in SUPERVISED}
    _make_private(next(iter(sockets.values())).parent)

    async def serve_admin() -> None:
        admin = WebServer(engine_app(sockets), config.admin.listen)
        await admin.start()
        try:
            await asyncio.Event().wait()
        finally:
            await admin.stop()

    commands = [role_command(name, roles, path, sys.executable) for name, roles in SUPERVISED.items()]
    return run_supervisor(commands, server, serve_admin)
