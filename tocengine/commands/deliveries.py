"""Owns the commands around deliveries: endpoints and dead letters."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.credentials import resolve_secret
from tocengine.delivery import dead_letters as letters
from tocengine.delivery import endpoints as stored
from tocengine.delivery.channels.base import HttpPoster
from tocengine.delivery.networks import NetworkGuard
from tocengine.errors import ConfigurationError
from tocengine.model.directory import Endpoint
from tocengine.model.notice import Outcome
from tocengine.postgres import Pool
from tocengine.routing.postgres import LiveDirectory

endpoints = typer.Typer(no_args_is_help=True, help="Where recipients are reached, and whether they are.")
dead_letters = typer.Typer(no_args_is_help=True, help="Notices that will not be sent any more by themselves.")


async def _directory(pool: Pool) -> LiveDirectory:
    directory = LiveDirectory(pool, 0)
    await directory.refresh()
    return directory


async def _endpoint(pool: Pool, endpoint_id: str) -> Endpoint:
    for recipient in (await _directory(pool)).current.recipients.values():
        for endpoint in recipient.endpoints:
            if endpoint.id == endpoint_id:
                return endpoint
    raise ConfigurationError(f"no endpoint {endpoint_id!r} is in the directory", hint="tocengine endpoints list")


@endpoints.command("list")
def list_endpoints(config: Path = ConfigOption, as_json: bool = JsonOption) -> None:
    """Every endpoint of the directory with its state."""

    async def work() -> list[dict[str, object]]:
        async with connected(load(config)) as pool:
            recipients = (await _directory(pool)).current.recipients.values()
            async with pool.acquire() as connection:
                return [msgspec.structs.asdict(line) for line in await stored.list_endpoints(connection, recipients)]

    output.rows(run(work()), as_json=as_json, title="Endpoints", empty="The directory has no endpoints.")


@endpoints.command("test")
def probe_endpoint(endpoint_id: str, config: Path = ConfigOption) -> None:
    """Ask an endpoint whether it would take a notice; sends no patient data."""
    settings = load(config)

    async def work() -> Outcome:
        async with connected(settings) as pool:
            endpoint = await _endpoint(pool, endpoint_id)
            async with HttpPoster(NetworkGuard(settings.delivery.allowed_networks)) as poster:
                return await stored.probe(poster, endpoint, resolve_secret, utc_now())

    outcome = run(work())
    if outcome.failure is None:
        output.stdout.print(f"{endpoint_id} answers (HTTP {outcome.status}).", markup=False)
    else:
        output.fail(f"{endpoint_id}: {outcome.failure} {outcome.detail}", 1)


@endpoints.command("pause")
def pause(endpoint_id: str, config: Path = ConfigOption) -> None:
    """Hold everything for an endpoint until it is resumed."""
    _change(endpoint_id, config, stored.pause)


@endpoints.command("resume")
def resume(endpoint_id: str, config: Path = ConfigOption) -> None:
    """Let a paused or disabled endpoint go on; what waits is sent in order."""
    _change(endpoint_id, config, stored.resume)


def _change(endpoint_id: str, config: Path, change: Callable[..., Awaitable[object]]) -> None:
    async def work() -> None:
        async with connected(load(config)) as pool:
            await _endpoint(pool, endpoint_id)
            async with pool.acquire() as connection, connection.transaction():
                await change(connection, PostgresAuditTrail(), endpoint_id, user(), utc_now())

    run(work())
    output.stdout.print(f"{endpoint_id}: {change.__name__}d.", markup=False)


@dead_letters.command("list")
def list_dead_letters(
    recipient: str = typer.Option("", help="Only this recipient, such as facility:sunnyside."),
    limit: int = typer.Option(100, min=1, help="At most this many."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Notices that were given up, with the reason."""

    async def work() -> list[dict[str, object]]:
        async with connected(load(config)) as pool, pool.acquire() as connection:
            found = await letters.list_dead_letters(connection, recipient_id=recipient or None, limit=limit)
            return [msgspec.structs.asdict(letter) for letter in found]

    output.rows(run(work()), as_json=as_json, title="Dead letters", empty="No dead letters.")


@dead_letters.command("replay")
def replay(
    notice_ids: list[UUID] = typer.Argument(..., metavar="NOTICE_ID..."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Send given-up notices again, under the same notice ids. Exit status 1 if one of them is not."""
    settings = load(config)

    async def work() -> letters.Replay:
        async with connected(settings) as pool, pool.acquire() as connection, connection.transaction():
            max_age = timedelta(hours=settings.delivery.max_age_h)
            return await letters.replay(connection, PostgresAuditTrail(), notice_ids, user(), utc_now(), max_age)

    done = run(work())
    if as_json:
        output.document(done)
    else:
        for ids, what in (
            (done.replayed, "queued again"),
            (done.overtaken, "not sent: something newer was decided about the same fact"),
            (done.missing, "no dead letter (tocengine dead-letters list)"),
        ):
            for notice_id in ids:
                output.stdout.print(f"{notice_id}: {what}", markup=False)
    raise typer.Exit(1 if done.overtaken or done.missing else 0)
