"""Owns the commands around what was set aside: look, read again, or decide that it stays out."""

import base64
from pathlib import Path
from uuid import UUID

import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.reprocessing import prepared, request, settled
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.config import Config
from tocengine.conformance.diagnosis import diagnosis
from tocengine.model.ids import MessageId
from tocengine.reprocessing.postgres import SQL, Cause, Result
from tocengine.reprocessing.quarantine import Retried, listing
from tocengine.reprocessing.quarantine import show as show_row

quarantine = typer.Typer(no_args_is_help=True, help="What was stored but could not be normalized or tracked.")

FeedOption = typer.Option("", help="Only of this feed.")
ReasonOption = typer.Option("", help="Only with this reason, such as visit_key_missing.")


@quarantine.command("list")
def list_quarantine(
    feed: str = FeedOption,
    reason: str = ReasonOption,
    everything: bool = typer.Option(False, "--all", help="Also what was retried or discarded."),
    limit: int = typer.Option(100, min=1, help="At most this many."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """What is set aside and still open, newest first."""

    async def read() -> list[dict[str, object]]:
        async with connected(load(config)) as pool:
            return await listing(pool, feed or None, reason or None, None if everything else "OPEN", limit)

    found = run(read())
    if not as_json:
        shown = ("message_id", "stage", "feed", "control_id", "reason", "location", "answered", "received_at", "state")
        found = [{name: row[name] for name in shown} for row in found]
    output.rows(found, as_json=as_json, title="Quarantine", empty="Nothing is set aside.")


@quarantine.command("show")
def show(message_id: UUID, config: Path = ConfigOption, as_json: bool = JsonOption) -> None:
    """One message with its content, what was found wrong, and what became of it. Shows patient data; is on record."""

    async def read() -> dict[str, object] | None:
        async with connected(load(config)) as pool:
            return await show_row(pool, PostgresAuditTrail(), message_id, user(), utc_now())

    found = run(read())
    if found is None:
        output.fail(f"no message {message_id} was set aside (tocengine quarantine list)", 1)
    body = found.pop("body")
    assert isinstance(body, bytes)
    findings = diagnosis(str(found["content_type"]), body)
    if as_json:
        output.document({**found, "diagnosis": findings, "body": base64.b64encode(body).decode()})
        return
    lineage = found.pop("lineage")
    assert isinstance(lineage, list)
    output.stdout.print(output.table("", ("", ""), ([name, output.shown(value)] for name, value in found.items())))
    output.rows(lineage, as_json=False, title="Became", empty="It became no event.")
    for finding in findings:
        output.stdout.print(output.harmless(f"diagnosis: {finding}"), markup=False)
    text = body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    output.stdout.print(output.harmless(text), markup=False)


@quarantine.command("retry")
def retry(
    message_ids: list[UUID] = typer.Argument(None, metavar="[MESSAGE_ID...]"),
    feed: str = FeedOption,
    reason: str = ReasonOption,
    everything: bool = typer.Option(False, "--all", help="Everything that is open."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Read messages again, as their feed is configured now. Exit status 1 if one of them still cannot be read."""
    if not (message_ids or feed or reason or everything):
        output.fail("say which: MESSAGE_ID..., --feed, --reason or --all", 2)
    retried, result = run(_retry(load(config), message_ids or None, feed, reason))
    failed = [each for each in retried if each.problem is not None]
    if as_json:
        output.document({"retried": retried, "result": result})
    else:
        output.stdout.print(f"{len(retried) - len(failed)} read, {len(failed)} still not.")
        rows = [
            {
                "message_id": each.message_id,
                "feed": each.feed,
                "reason": each.problem.reason,
                "location": each.problem.location,
            }
            for each in failed
            if each.problem is not None
        ]
        if rows:
            output.rows(rows, as_json=False, title="Still set aside", empty="")
        for name in ("transitions", "notices"):
            output.rows(getattr(result, name), as_json=False, title=name.capitalize(), empty=f"No {name}.")
        if result.untracked:
            output.stdout.print(f"{result.untracked} events wait in the log until an engine routes them.")
    raise typer.Exit(1 if failed or not retried else 0)


async def _retry(
    config: Config, message_ids: list[UUID] | None, feed: str, reason: str
) -> tuple[list[Retried], Result]:
    made = request(Cause.QUARANTINE)
    async with prepared(config) as shop:
        rows = await shop.pool.fetch(SQL["quarantine_open"], message_ids, feed or None, reason or None)
        retried = await shop.quarantine.retry([MessageId(row["message_id"]) for row in rows], made)
        return retried, await settled(shop, made)


@quarantine.command("discard")
def discard(
    message_ids: list[UUID] = typer.Argument(..., metavar="MESSAGE_ID..."),
    reason: str = typer.Option(..., "--reason", help="Why they stay out; no patient data."),
    config: Path = ConfigOption,
) -> None:
    """Decide that messages stay out, also of a later replay. Exit status 1 if one of them is not open."""
    if not reason.strip():
        output.fail("--reason is empty", 2)

    async def work() -> int:
        async with prepared(load(config)) as shop:
            ids = [MessageId(message_id) for message_id in message_ids]
            return await shop.quarantine.discard(ids, reason.strip(), user(), utc_now())

    done = run(work())
    output.stdout.print(f"{done} discarded.")
    raise typer.Exit(0 if done == len(set(message_ids)) else 1)
