"""Owns `tocengine check`: the conformance report of files and folders, before anything is sent."""

from collections.abc import Iterator
from pathlib import Path

import typer

from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.messages import source_of
from tocengine.commands.session import ConfigOption, JsonOption, load
from tocengine.conformance import Report, Severity, check_file
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.profile import SendingFacility, Source, SourceProfile

ANYBODY = Source(
    feed=FeedName("check"),
    facility=SendingFacility(id=FacilityId("check"), name="this hospital"),
    profile=SourceProfile(),
)


def check(
    paths: list[Path] = typer.Argument(..., metavar="FILE|DIR...", help="HL7 v2: single, several in a file, batches."),
    feed: str = typer.Option("", help="Check as this feed of --config would read it; else the defaults of a profile."),
    strict: bool = typer.Option(False, "--strict", help="Exit with 1 on warnings too."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Whether messages hold what the standard and a notice ask for. Shows places, reasons and codes, no values."""
    source = source_of(load(config), feed) if feed or config.is_file() else ANYBODY
    now, messages = utc_now(), 0
    counts = dict.fromkeys(Severity, 0)
    for path in _files(paths):
        try:
            content = path.read_bytes()
        except OSError as error:
            output.fail(f"{path}: {error.strerror}", 2)
        for report in check_file(str(path), content, source, now):
            messages += 1
            for severity in Severity:
                counts[severity] += report.count(severity)
            _show(report, as_json)
    failed = counts[Severity.ERROR] > 0 or (strict and counts[Severity.WARNING] > 0)
    if not as_json:
        output.stdout.print(
            f"{messages} messages, {counts[Severity.ERROR]} errors, {counts[Severity.WARNING]} warnings."
        )
    raise typer.Exit(1 if failed else 0)


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            output.fail(f"{path}: no such file or folder", 2)
        found = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        if not found:
            output.fail(f"{path}: no file in it", 2)
        yield from found


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        output.document(report)
        return
    title = f"{report.file} #{report.number} {report.message_type} {report.version}".rstrip()
    if not report.findings:
        output.stdout.print(f"{title}: nothing to say", markup=False)
        return
    lines = ([each.severity.value, each.location, each.rule, each.text] for each in report.findings)
    output.stdout.print(title, markup=False, style="bold")
    output.stdout.print(output.table("", ("severity", "where", "rule", "what"), lines))
