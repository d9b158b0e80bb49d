"""The page that says which test shows what names tests that exist, and leaves out no clause it lists by number."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([a-z0-9_/]+\.py): (\w+)`")


def defined(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


def test_every_test_that_is_named_exists() -> None:
    named = set(NAMED.findall(PAGE))
    assert len(named) > 60
    missing = [f"{file}: {name}" for file, name in named if name not in defined(ROOT / "tests" / file)]
    assert missing == []


def test_every_scenario_has_its_row_and_every_row_a_test_or_a_reason() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "shown by" not in line]
    _, _, scenarios = PAGE.partition("## Acceptance scenarios")
    listed = {
        int(n)
        for line in scenarios.splitlines()
        for n in re.findall(r"\b\d+\b", line.split("|")[1] if "|" in line else "")
    }
    assert listed == set(range(1, 30))
    assert [row for row in rows if not NAMED.search(row) and "not built" not in row] == []
