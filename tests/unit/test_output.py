"""Tables show what a sender wrote as it is."""

import io

from rich.console import Console

from tocengine.commands.output import table


def test_a_cell_is_no_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(table("Messages", ("control_id",), [["[/red] [bold]9[/]"]]))
    assert "[/red] [bold]9[/]" in console.file.getvalue()  # type: ignore[attr-defined]
