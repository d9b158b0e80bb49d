"""Owns what the demo prints in the end: what happened, counted from the engine's own records and the receivers'."""

import orjson
from rich.console import Console
from rich.table import Table

from tocengine.simulation.day import Day
from tocengine.simulation.findings import Findings
from tocengine.simulation.receivers import Receivers


def print_report(console: Console, day: Day, receivers: Receivers, findings: Findings) -> None:
    """The whole report, ending with one line that says whether the proof holds."""
    status = findings.status
    answers = ", ".join(f"{code} {count}" for code, count in sorted(findings.answers.items()))
    console.print(
        f"\n[bold]Accepted[/] {len(day.posts)} messages in {findings.seconds:.1f} s ({answers}); "
        f"{day.repeated} sent twice, {day.quarantined} set aside with its reason."
    )
    console.print()
    console.print(_table("Transitions", ("kind", "status", "count"), status["transitions"]))
    console.print()
    console.print(_table("Notices", ("recipient_id", "state", "count"), status["notices"]))
    console.print()
    console.print(_table("Not sent, and why", ("reason", "count"), status["unsent"]))
    retried = sum(1 for count in receivers.attempts.values() if count > 1)
    console.print(f"\n[bold]Retries[/] {retried} notices were refused once with 503 and arrived later.\n")
    _print_one_notice(console, receivers)
    _print_verdict(console, day, findings)


def _table(title: str, columns: tuple[str, ...], found: object) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim", title_style="bold")
    for column in columns:
        made.add_column(column.replace("_id", ""), justify="right" if column == "count" else "left")
    assert isinstance(found, list)
    for row in found:
        made.add_row(*(str(row[column]) for column in columns))
    return made


def _print_one_notice(console: Console, receivers: Receivers) -> None:
    shown = next(
        (
            notice_id
            for notice, notice_id in receivers.arrivals
            if notice.recipient == "sunnyside" and "DISCHARGE" in notice.kind
        ),
        None,
    )
    if shown:
        console.print("[bold]One notice as Sunnyside Rehab received it[/] (invented patient)")
        console.print_json(orjson.dumps(orjson.loads(receivers.bodies[shown])).decode())


def _print_verdict(console: Console, day: Day, findings: Findings) -> None:
    wanted = len(day.expected)
    audit = findings.audit
    console.print(
        f"\n[bold]Audit[/] {'verifies' if audit.get('intact') else 'DOES NOT VERIFY'}: {audit.get('records')} records "
        f"in {audit.get('blocks')} blocks, {audit.get('checkpoints')} signed checkpoints."
    )
    for title, found in (
        ("missing", findings.missing),
        ("repeated", findings.repeated),
        ("unexpected", findings.unexpected),
    ):
        for notice in found[:10]:
            console.print(f"[red]{title}[/]: {notice.recipient} {notice.visit} {notice.kind} {notice.status}")
    if findings.passed:
        console.print(f"[bold green]All {wanted} expected notices arrived exactly once, and nothing else did.[/]")
    else:
        console.print(
            f"[bold red]Of {wanted} expected notices {len(findings.missing)} are missing, {len(findings.repeated)} came"
            f" twice; {len(findings.unexpected)} came that nobody expected.[/]"
        )
