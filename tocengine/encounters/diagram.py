"""Owns the picture of the state matrix: a Mermaid state diagram drawn from the table itself. Pure."""

import sys

from tocengine.encounters.matrix import MATRIX, Action, Cell
from tocengine.model.encounter import EncounterState

BACK = {
    Action.CANCEL: "PRIOR",
    Action.CANCEL_CLOSE: "PRIOR",
    Action.RETURN: "PRIOR",
    Action.REOPEN: "PRIOR",
    Action.IMPLY: "BY_CLASS",
    Action.REVERSE: "BY_CLASS",
}
"""Where an action leads whose state after is no single one."""
NOTES = {
    "PRIOR": "the state before the movement that is taken back",
    "BY_CLASS": "the state the message's patient class says",
}


def diagram() -> str:
    """Every cell that moves an encounter, one arrow per pair of states with its steps and the facts they raise."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in MATRIX.items():
        for step, cell in row.items():
            after = _after(cell)
            if after is not None:
                label = f"{step.value} / {cell.fact.value}" if cell.fact else step.value
                arrows.setdefault((state.value, after), []).append(label)
    lines = ["stateDiagram-v2", f"    [*] --> {EncounterState.NONE.value}"]
    lines += [f"    {name} : {text}" for name, text in NOTES.items()]
    lines += [f"    {before} --> {after} : {'<br/>'.join(labels)}" for (before, after), labels in arrows.items()]
    return "\n".join(lines)


def _after(cell: Cell) -> str | None:
    if cell.action is Action.CLOSE:
        return EncounterState.DISCHARGED.value
    if cell.action in BACK:
        return BACK[cell.action]
    return cell.state.value if cell.state is not None else None


def page() -> str:
    """``docs/encounters.md``."""
    return f"""# Encounters: states and what moves them

Drawn from `tocengine/encounters/matrix.py` by `python -m tocengine.encounters.diagram > docs/encounters.md`; a test
fails when the two differ. A step that has no arrow keeps the state: the message is stored, and what it says is laid
over what is known.
An arrow's label is the step and, after the slash, the fact it raises. What each recipient is told follows from the
difference between the facts that stand and those it was told.

```mermaid
{diagram()}
```
"""


if __name__ == "__main__":
    sys.stdout.write(page())
