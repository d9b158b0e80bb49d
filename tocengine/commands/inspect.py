"""Owns the commands that answer "where is it, what became of it, is anything stuck"."""

from pathlib import Path
from uuid import UUID

import msgspec
import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.inspection.status import Status
from tocengine.inspection.status import status as read_status
from tocengine.inspection.trace import Trace, timeline
from tocengine.inspection.trace import trace as read_trace
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import WorkItemId
from tocengine.work_items.postgres import PostgresWorkItems

work_items = typer.Typer(no_args_is_help=True, help="What only a person can put right.")


def status(config: Path = ConfigOption, as_json: bool = JsonOption) -> None:
    """Counts by stage: received, set aside, transitions, notices, attempts, open work."""

    async def read() -> Status:
        async with connected(load(config)) as pool:
            return await read_status(pool)

    found = run(read())
    if as_json:
        output.document(found)
        return
    for part in ("messages", "quarantine", "transitions", "notices", "unsent", "attempts"):
        output.rows(getattr(found, part), as_json=False, title=part.capitalize(), empty=f"No {part}.")
    output.stdout.print(
        f"Not yet published: {found.outbox}. Open work items: {found.work_items}. "
        f"Endpoints stopped: {found.endpoints_stopped}. "
        f"Oldest open notice: {output.shown(found.oldest_open_notice) or 'none'}."
    )


def trace(
    wanted: str = typer.Argument(..., metavar="ID", help="A message id, a notice id, or FEED:CONTROL_ID."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """One message's whole way: received, answered, transitions, notices, attempts, audit rows."""

    async def read() -> Trace:
        async with connected(load(config)) as pool:
            return await read_trace(pool, wanted)

    found = run(read())
    if as_json:
        output.document(found)
    elif found.found:
        lines = ([output.shown(when), stage, what] for when, stage, what in timeline(found))
        output.stdout.print(output.table(f"Message {_id_of(found)}", ("when", "stage", "what"), lines))
        output.stdout.print(f"{len(found.audit)} audit rows: {', '.join(str(row['audit_id']) for row in found.audit)}")
    if not found.found:
        output.fail(f"nothing is known of {wanted!r}: no message id, notice id or FEED:CONTROL_ID", 1)


def _id_of(found: Trace) -> object:
    return (found.messages or found.quarantine)[0]["message_id"]


@work_items.command("list")
def list_work_items(
    limit: int = typer.Option(100, min=1, help="At most this many."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """The open work items, oldest first."""

    async def read() -> list[dict[str, object]]:
        async with connected(load(config)) as pool, pool.acquire() as connection:
            found = await PostgresWorkItems().open_items(connection, limit=limit)
            return [{"work_item_id": number, **msgspec.structs.asdict(item)} for number, item in found]

    output.rows(run(read()), as_json=as_json, title="Open work items", empty="No open work items.")


@work_items.command("close")
def close_work_item(
    work_item_id: UUID,
    resolution: str = typer.Option(..., "--resolution", help="What was done; no patient data."),
    config: Path = ConfigOption,
) -> None:
    """Close a work item, saying what was done."""

    async def close() -> int:
        async with connected(load(config)) as pool, pool.acquire() as connection, connection.transaction():
            now = utc_now()
            closed = await PostgresWorkItems().close(connection, [WorkItemId(work_item_id)], user(), resolution, now)
            detail: dict[str, object] = {"work_item_id": str(work_item_id)}
            if closed:
                record = AuditRecord(action=AuditAction.WORK_ITEM_CLOSED, at=now, actor=user(), detail=detail)
                await PostgresAuditTrail().record(connection, [record])
            return closed

    if not run(close()):
        output.fail(f"no open work item {work_item_id} (tocengine work-items list)", 1)
    output.stdout.print(f"{work_item_id}: closed.")
