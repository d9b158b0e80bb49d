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

## Movements that are named

A hospital may name its movements (IHE PAM, segment ZBE). Then a cancel means the one it names and no other:

| message | acts on | and |
|---|---|---|
| A11, A27, A38 | the arrival it names | takes back what stands on it too, as always |
| A13, A52, A25 | the discharge, leave or plan it names | does nothing if that is another than the one in force |
| A12 | the bed move it names | where later moves follow, the patient stays where they led |
| Z99, `CANCEL` | whatever it names | takes out that alone; a discharge of a visit that never began goes with it |
| Z99, `UPDATE` | whatever it names | gives it the time in ZBE-2 or EVN-6, an arrival its class, a move its place |

What stood above a movement that a Z99 takes out, or gives another class, counts as if that had never been stated, or
had been stated so: each later movement is put on again by the matrix. A discharge then ends what it ends now, a leave
from an ED visit is none, and an admission upon what is an admission already passes its fact on to that.
Of a Z99 that names an earlier movement nothing else counts for the visit as it is now, and a movement stated for the
record (ZBE-5) moves nobody. A message that names a movement nobody stated changes nothing and opens a work item; should
the original come later, all is folded anew. What was stated without a name is found by the times given and by what came
last.
"""


if __name__ == "__main__":
    sys.stdout.write(page())
