"""Owns the page that says what the engine makes of the public message corpus, a row for each source."""

from collections import Counter

from tests.corpus.running import Outcome, Run

HEAD = """# The public message corpus

What became of each file of the public test messages when it was sent to a running engine with the default profile:
HL7 v2 over MLLP, one connection a file; FHIR over HTTP. Made by `make corpus`. `tests/acceptance/test_corpus.py` sends
the same and fails where a frame does not get exactly one answer, its own, in its turn.

* **answers**: AA and CA say stored (read, or set aside with a reason), AE and AR say refused and why. A sender that
  asks for no answer gets none.
* **tracked**: different ADT messages the engine acts on; the same bytes again are answered and change nothing.
  **stored only**: ADT triggers that mean nothing here.
* **quarantined**: accepted or refused, kept with their bytes, the reason and its place.

Most of the public test messages are no ADT (orders, results, acknowledgments): a feed for ADT refuses them with AR,
and keeps them.

| source | files | messages | answers | tracked | stored only | quarantined, by reason |
|---|---|---|---|---|---|---|
"""


def render(run: Run) -> str:
    """The page, in Markdown."""
    rows = [_row(source, outcome) for source, outcome in sorted(run.outcomes.items())]
    total = Outcome()
    for outcome in run.outcomes.values():
        total.files += outcome.files
        total.frames += outcome.frames
        for name in ("answers", "dispositions", "reasons"):
            getattr(total, name).update(getattr(outcome, name))
        total.unanswered += outcome.unanswered
    unanswered = (
        f"\nFiles with a frame that did not get exactly its one answer: {', '.join(total.unanswered) or 'none'}.\n"
    )
    return HEAD + "".join(rows) + _row("**all**", total) + unanswered


def _row(source: str, outcome: Outcome) -> str:
    cells = (
        source,
        str(outcome.files),
        str(outcome.frames),
        _counts(outcome.answers),
        str(outcome.dispositions["TRACKED"]),
        str(outcome.dispositions["NOT_HANDLED"]),
        _counts(outcome.reasons),
    )
    return f"| {' | '.join(cells)} |\n"


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])))
