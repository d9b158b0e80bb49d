"""No difference from other converters goes unexplained: `docs/mapping-differences.md` has a row for each fact class."""

import pytest

from tests.conformance.pair_files import PAIRS
from tests.conformance.pairs_report import differing, explained, report

pytestmark = pytest.mark.skipif(not PAIRS.is_dir(), reason="the corpus lies beside the repository")


def test_every_difference_from_other_converters_is_explained_and_counted() -> None:
    verdicts = report()
    assert dict(differing(verdicts)) == explained()
    assert sum(each.outcome == "agree" for each in verdicts) > 1_350
