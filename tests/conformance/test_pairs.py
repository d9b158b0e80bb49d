"""No difference from other converters goes unexplained: `docs/mapping-differences.md` has a row for each fact class."""

import re

import pytest

from tests.conformance.pair_files import PAIRS
from tests.conformance.pairs_report import Verdict, against, differing, explained, report

_JUSTIFIED = re.compile(r"here, (with domain \d[\d., and]*|with the official map|with FHIR|they differ apart)")
"""Why the engine may stand alone against the published map or several converters."""


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    if not PAIRS.is_dir():
        pytest.skip("the corpus lies beside the repository")
    return report()


def test_every_difference_from_other_converters_is_explained_and_counted(verdicts: list[Verdict]) -> None:
    rows = explained()
    assert dict(differing(verdicts)) == {fact: row.pairs for fact, row in rows.items()}
    assert against(verdicts) == {fact: row.against for fact, row in rows.items()}
    assert sum(each.outcome == "agree" for each in verdicts) > 1_400


def test_the_map_or_two_converters_are_contradicted_only_with_a_better_authority(verdicts: list[Verdict]) -> None:
    rows = explained()
    contested = {fact: row.right for fact, row in rows.items() if row.contested}
    assert {fact: right for fact, right in contested.items() if not _JUSTIFIED.fullmatch(right)} == {}
    assert not {fact for fact, row in rows.items() if row.right in ("open", "the other")}
    assert len(contested) > 20
