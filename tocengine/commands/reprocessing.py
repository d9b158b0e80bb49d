"""Owns what the commands share that have messages normalized again: how they begin, wait, and say what came of it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from uuid import uuid4

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import attached, user
from tocengine.config import Config
from tocengine.reprocessing.postgres import Cause, Request, Result, Tally, result_of
from tocengine.reprocessing.replay import Progress as Told
from tocengine.reprocessing.workshop import Workshop, workshop
from tocengine.work_items.postgres import PostgresWorkItems


@asynccontextmanager
async def prepared(config: Config) -> AsyncIterator[Workshop]:
    """Everything to normalize messages again with, on the running engine's database or one started for the command."""
    async with (
        attached(config) as (pool, dsn),
        workshop(config, pool, dsn, PostgresAuditTrail(), PostgresWorkItems()) as shop,
    ):
        yield shop


def request(cause: Cause) -> Request:
    """A new run, in the name of whoever runs the command."""
    return Request(run_id=uuid4(), cause=cause, by=user(), at=utc_now())


async def settled(shop: Workshop, run: Request) -> Result:
    """What came of a run, once its events are published and, where an engine routes, routed."""
    await shop.publisher.finish()
    await shop.publisher.tracked(run)
    return await result_of(shop.pool, run)


@contextmanager
def watched(since: datetime, until: datetime, *, quiet: bool) -> Iterator[Told]:
    """A bar on standard error that moves with the time of what was read; nothing with `quiet` or off a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=output.stderr, transient=True, disable=quiet or not output.stderr.is_terminal
    ) as bar:
        task = bar.add_task("normalizing", total=max((until - since).total_seconds(), 1.0))

        def told(tally: Tally, at: datetime) -> None:
            text = f"{tally.messages} messages, {tally.changed} changed"
            bar.update(task, completed=(at - since).total_seconds(), description=text)

        yield told


def show(tally: Tally, result: Result | None) -> None:
    """For a person."""
    output.stdout.print(
        f"{tally.messages} messages: {tally.changed} changed ({tally.events} events), {tally.unchanged} unchanged,"
        f" {tally.unreadable} not readable (what they say stays), {tally.ignored} of ignored types,"
        f" {tally.missing} no longer in the log."
    )
    if result is None:
        return
    for name in ("transitions", "notices", "untold"):
        output.rows(getattr(result, name), as_json=False, title=name.capitalize(), empty=f"No {name}.")
    if result.untracked:
        output.stdout.print(f"{result.untracked} events wait in the log until an engine routes them.")
