"""Owns the commands about encounters."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec
import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.encounters.postgres_story import Row, Story, find_visits, read_bundles, read_story
from tocengine.formats.fhir.kept_documents import contents, listed
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import EncounterId
from tocengine.ports import Transaction

encounter = typer.Typer(no_args_is_help=True, help="What is known of a visit, and how it came to be known.")


VisitArgument = typer.Argument(..., metavar="VISIT", help="The visit number, as the hospital sends it.")
DomainOption = typer.Option("", "--domain", help="Its assigning authority, where several have this number.")
AnyT = TypeVar("AnyT")


@encounter.command("show")
def show(
    visit: str = VisitArgument, domain: str = DomainOption, config: Path = ConfigOption, as_json: bool = JsonOption
) -> None:
    """The timeline of one visit: messages, states, what was told and what was not, and why. Leaves an audit record."""
    story = _of_visit(config, visit, domain, {"command": "encounter show"}, read_story)
    if as_json:
        output.document(story)
        return
    _print(story)


@encounter.command("documents")
def documents(
    visit: str = VisitArgument, domain: str = DomainOption, config: Path = ConfigOption, as_json: bool = JsonOption
) -> None:
    """The documents of one visit: those the engine keeps, and where else they are. Leaves an audit record."""
    bundles = _of_visit(config, visit, domain, {"command": "encounter documents"}, read_bundles)
    found = [{**msgspec.structs.asdict(each), "kept": bool(contents(bundles, each.id))} for each in listed(bundles)]
    output.rows(found, as_json=as_json, title="Documents", empty="The visit has no documents.")


@encounter.command("document")
def document(
    visit: str = VisitArgument,
    document_id: str = typer.Argument(..., help="As `encounter documents` and the notices give it."),
    domain: str = DomainOption,
    part: int = typer.Option(1, min=1, help="Which of its attachments, where it has several."),
    to: Path = typer.Option(..., "--output", "-o", metavar="FILE", help="Where to; an existing file is left alone."),
    config: Path = ConfigOption,
) -> None:
    """Write a document that the engine keeps into a file, as it came. Leaves an audit record."""
    detail: dict[str, object] = {"command": "encounter document", "document": document_id, "part": part}
    kept = contents(_of_visit(config, visit, domain, detail, read_bundles), document_id)
    if len(kept) < part:
        output.fail("the engine keeps no such document of this visit (tocengine encounter documents)", 1)
    try:
        with to.open("xb") as file:
            file.write(kept[part - 1].body)
    except OSError as error:
        output.fail(f"{to}: {error.strerror}", 2)
    output.stdout.print(f"{to}: {kept[part - 1].content_type}, {len(kept[part - 1].body)} bytes.", markup=False)


def _of_visit(
    config: Path,
    visit: str,
    domain: str,
    detail: dict[str, object],
    read: Callable[[Transaction, Row], Awaitable[AnyT]],
) -> AnyT:
    """What `read` finds of the one visit of this number; that somebody looked is on record. Else ends the command."""

    async def look() -> tuple[list[Row], list[AnyT]]:
        async with connected(load(config)) as pool, pool.acquire() as connection, connection.transaction():
            found = await find_visits(connection, visit, domain)
            if len(found) != 1:
                return found, []
            encounter_id = found[0]["encounter_id"]
            assert isinstance(encounter_id, UUID)
            viewed = AuditRecord(
                action=AuditAction.RECORD_VIEWED,
                at=utc_now(),
                actor=user(),
                encounter_id=EncounterId(encounter_id),
                detail=detail,
            )
            await PostgresAuditTrail().record(connection, [viewed])
            return found, [await read(connection, found[0])]

    found, seen = run(look())
    if not found:
        output.fail("no visit has this number (the number alone; --domain names its authority)", 1)
    if not seen:
        names = ", ".join(str(row["domain"]) for row in found)
        output.fail(f"several authorities have a visit of this number: {names}; name one with --domain", 2)
    return seen[0]


def _print(story: Story) -> None:
    opened, closed = output.shown(story.opened_at) or "-", output.shown(story.closed_at) or "-"
    print_line = output.stdout.print
    print_line(
        f"Visit {story.domain}|{story.visit_number} of patient {story.patient} at {story.facility}", markup=False
    )
    if story.merged:
        print_line(f"Merged into it: {', '.join(story.merged)}", markup=False)
    print_line(f"State {story.state}, opened {opened}, closed {closed}. Flags: {', '.join(story.flags) or 'none'}.")
    for fact in story.facts:
        print_line(f"Stands: {fact}", markup=False)
    lines = ([output.shown(m.at), m.what, f"{m.text} {' '.join(m.flags)}".rstrip()] for m in story.timeline)
    print_line(output.table("Timeline", ("when", "what", "said"), lines))
