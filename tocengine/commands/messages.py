"""Owns the command that says what the engine makes of a message, and how commands read messages from files."""

from pathlib import Path

import msgspec
import typer

from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, load
from tocengine.config import Config
from tocengine.config_file import sources
from tocengine.formats.hl7v2.files import messages_in
from tocengine.model.profile import Source
from tocengine.normalize.explain import Element, Explanation
from tocengine.normalize.explain import explain as explain_message


def explain(
    file: Path = typer.Argument(..., metavar="FILE", help="One HL7 v2 message."),
    feed: str = typer.Option("", help="Read it as this feed would; needed where several are configured."),
    number: int = typer.Option(1, help="Which message of the file."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """What the engine makes of a message, segment to field, without sending anything. Shows patient data."""
    source = source_of(load(config), feed)
    bodies = bodies_of(file)
    if not 1 <= number <= len(bodies):
        output.fail(f"{file} has {len(bodies)} messages; there is no number {number}", 2)
    if len(bodies) > 1:
        output.stderr.print(f"Message {number} of {len(bodies)} in {file} (--number for another one).", markup=False)
    found = explain_message(bodies[number - 1], source, utc_now())
    if as_json:
        output.document(
            {
                "trigger": found.trigger,
                "handled": found.handled,
                "elements": found.elements,
                "flags": found.flags,
                "unused": found.unused,
                "problem": found.problem,
                "fhir": [msgspec.json.decode(record.fhir) for record in found.records],
            }
        )
    else:
        _show(found, source)
    if found.problem:
        raise typer.Exit(1)


def source_of(config: Config, feed: str) -> Source:
    """What is known of the named feed, or of the only one of HL7 v2. Ends the command where that is not one."""
    known = sources(config)
    of_hl7v2 = [each.name for each in config.feeds if each.protocol != "fhir"]
    wanted = [name for name in of_hl7v2 if name == feed] if feed else of_hl7v2
    if len(wanted) != 1:
        what = f"no feed {feed!r} of HL7 v2" if feed else "--feed is needed"
        output.fail(f"{what}; configured: {', '.join(of_hl7v2) or 'none'}", 2)
    return known[wanted[0]]


def _show(found: Explanation, source: Source) -> None:
    if found.problem:
        problem = found.problem
        output.stdout.print(f"Set aside: {problem.text} ({problem.reason}) at {problem.location or '-'}", markup=False)
        return
    handled = "" if found.handled else ", stored and marked not handled yet"
    output.stdout.print(f"ADT {found.trigger} on feed {source.feed}{handled}", markup=False)
    lines = ([each.path, each.value, ", ".join(each.fields), _rows(each)] for each in found.elements)
    output.stdout.print(output.table("", ("element", "value", "from", "table row"), lines))
    for flag in found.flags:
        output.stdout.print(f"flag {flag.path}: {', '.join(flag.fields)}", markup=False)
    if found.unused:
        output.stdout.print(f"not used: {', '.join(found.unused)}", markup=False)


def _rows(element: Element) -> str:
    return ", ".join(f"{row.table}[{row.code}]{'' if row.found else ' none'}" for row in element.rows)


def bodies_of(file: Path) -> list[bytes]:
    """The messages in a file. Ends the command where there is none."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        output.fail(f"{file}: {error.strerror}", 2)
    found = messages_in(raw)
    if not found:
        output.fail(f"{file}: no HL7 v2 message (no MSH segment) in it", 2)
    return found
