"""Owns the command that has a stretch of the log normalized again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.reprocessing import prepared, request, settled, show, watched
from tocengine.commands.session import ConfigOption, JsonOption, load, run
from tocengine.config import Config
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.reprocessing.postgres import Cause, Request, Result, Tally
from tocengine.reprocessing.replay import Stretch
from tocengine.reprocessing.replay import replay as replay_stretch
from tocengine.reprocessing.workshop import Workshop

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def replay(
    since: str = typer.Option(..., help="A time, such as 2026-03-01T00:00-05:00, or how long ago: 90m, 24h, 7d."),
    until: str = typer.Option("", help="The same; without it, now."),
    feed: str = typer.Option("", help="Only this feed."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would change, and change nothing."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Normalize received messages again, as profiles and maps are now; only what differs from what was told goes out.

    Safe to interrupt and to run again.
    """
    settings, now = load(config), utc_now()
    stretch = Stretch(since=_moment(since, now), until=_moment(until, now) if until else now, feed=feed)
    if feed and feed not in [each.name for each in settings.feeds]:
        output.fail(f"no feed {feed!r}; configured: {', '.join(each.name for each in settings.feeds)}", 2)
    if stretch.since >= stretch.until:
        output.fail("--since is not before --until", 2)
    tally, result = run(_replay(settings, stretch, dry_run=dry_run, quiet=as_json))
    if as_json:
        output.document({"dry_run": dry_run, "messages": tally, "result": result})
    else:
        show(tally, result)


async def _replay(config: Config, stretch: Stretch, *, dry_run: bool, quiet: bool) -> tuple[Tally, Result | None]:
    made = request(Cause.REPLAY)
    async with prepared(config) as shop:
        with watched(stretch.since, stretch.until, quiet=quiet) as told:
            flow = shop.publisher.flow
            if not dry_run:
                await _on_record(shop, made, stretch, None)
            tally = await replay_stretch(
                shop.scanner, shop.reprocessor, stretch, made, flow, told, shop.ignores, dry_run=dry_run
            )
        if dry_run:
            return tally, None
        await _on_record(shop, made, stretch, tally)
        return tally, await settled(shop, made)


async def _on_record(shop: Workshop, made: Request, stretch: Stretch, tally: Tally | None) -> None:
    """That it began, and what it came to: who finds only the former knows that it was interrupted."""
    detail: dict[str, object] = {
        "run": str(made.run_id),
        "since": stretch.since.isoformat(),
        "until": stretch.until.isoformat(),
        "feed": stretch.feed,
    }
    if tally is not None:
        detail |= {"messages": tally.messages, "changed": tally.changed, "unreadable": tally.unreadable}
    record = AuditRecord(action=AuditAction.MESSAGES_REPLAYED, at=utc_now(), actor=made.by, detail=detail)
    async with shop.pool.acquire() as connection, connection.transaction():
        await PostgresAuditTrail().record(connection, [record])


def _moment(text: str, now: datetime) -> datetime:
    """A time, or how long before `now`. Exit status 2 for what is neither."""
    try:
        if text[-1:] in UNITS and text[:-1].isdigit():
            return now - timedelta(**{UNITS[text[-1]]: int(text[:-1])})
        found = datetime.fromisoformat(text).astimezone(UTC)
        if not EARLIEST <= found <= LATEST:
            raise ValueError(text)
    except (ValueError, OverflowError):
        output.fail(f"{text!r} is no time; such as 2026-03-01T00:00-05:00, 90m, 24h, 7d", 2)
    return found
