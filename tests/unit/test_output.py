"""Tables show what a sender wrote as it is."""

import io

from rich.console import Console

from tocengine.commands.output import harmless, table


def test_a_cell_is_no_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(table("Messages", ("control_id",), [["[/red] [bold]9[/]"]]))
    assert "[/red] [bold]9[/]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_obeys_nothing_that_a_sender_wrote() -> None:
    assert harmless("a\x1b[31mb\x9bc\n\td\u00e9") == "a\ufffd[31mb\ufffdc\n\td\u00e9"
