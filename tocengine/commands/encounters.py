"""Owns the commands about encounters."""

from pathlib import Path
from uuid import UUID

import typer

from tocengine.app import utc_now
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.encounters.postgres_story import Row, Story, find_visits, read_story
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import EncounterId

encounter = typer.Typer(no_args_is_help=True, help="What is known of a visit, and how it came to be known.")


@encounter.command("show")
def show(
    visit: str = typer.Argument(..., metavar="VISIT", help="The visit number, as the hospital sends it."),
    domain: str = typer.Option("", "--domain", help="Its assigning authority, where several have this number."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """The timeline of one visit: messages, states, what was told and what was not, and why. Leaves an audit record."""

    async def read() -> tuple[list[Row], Story | None]:
        async with connected(load(config)) as pool, pool.acquire() as connection, connection.transaction():
            found = await find_visits(connection, visit, domain)
            if len(found) != 1:
                return found, None
            encounter_id = found[0]["encounter_id"]
            assert isinstance(encounter_id, UUID)
            viewed = AuditRecord(
                action=AuditAction.RECORD_VIEWED,
                at=utc_now(),
                actor=user(),
                encounter_id=EncounterId(encounter_id),
                detail={"command": "encounter show"},
            )
            await PostgresAuditTrail().record(connection, [viewed])
            return found, await read_story(connection, found[0])

    found, story = run(read())
    if not found:
        output.fail("no visit has this number", 1)
    if story is None:
        names = ", ".join(str(row["domain"]) for row in found)
        output.fail(f"several authorities have a visit of this number: {names}; name one with --domain", 2)
    if as_json:
        output.document(story)
        return
    _print(story)


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
