"""The page in docs is drawn from the matrix that runs."""

from pathlib import Path

from tocengine.encounters.diagram import diagram, page
from tocengine.encounters.matrix import MATRIX, Action

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_in_docs_is_the_matrix_that_runs() -> None:
    assert (DOCS / "encounters.md").read_text("utf-8") == page()


def test_every_moving_cell_is_an_arrow() -> None:
    drawn = diagram()
    still = {Action.KEEP, Action.EXPECT, Action.UNEXPECT, Action.UNDERLYING}
    for state, row in MATRIX.items():
        moving = [step for step, cell in row.items() if cell.action not in still]
        arrows = "\n".join(line for line in drawn.splitlines() if line.startswith(f"    {state.value} -->"))
        assert all(step.value in arrows for step in moving), state
