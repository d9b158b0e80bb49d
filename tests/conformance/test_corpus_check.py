"""`tocengine check` over the public corpus: it has an answer to every message, and its findings quote nobody."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.corpus.files import hl7v2_files
from tocengine.commands.check import ANYBODY
from tocengine.conformance import Report, Severity, check_file
from tocengine.errors import RefusedError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.files import messages_in

STRIDE = 6
"""Every how many files one is checked: hl7apy takes up to 5 ms a segment, all of them would take minutes."""
FILES = hl7v2_files()[::STRIDE]
NOW = datetime.now(UTC)

pytestmark = [
    pytest.mark.skipif(not FILES, reason="the message corpus is not beside this checkout"),
    pytest.mark.timeout(300),
]


def test_every_message_of_the_corpus_gets_a_report_that_names_no_person() -> None:
    found: Counter[str] = Counter()
    for file in FILES:
        content = file.path.read_bytes()
        reports = list(check_file(file.path.name, content, ANYBODY, NOW))
        assert [report.number for report in reports] == list(range(1, len(reports) + 1)), file.path
        assert reports, file.path
        said = " ".join(_said(report) for report in reports).upper()
        quoted = [name for name in _names(content) if name in said]
        assert not quoted, file.path
        found["messages"] += len(reports)
        found["clean"] += sum(not report.findings for report in reports)
        found["errors"] += sum(report.count(Severity.ERROR) > 0 for report in reports)
    assert found["messages"] > 150
    assert 0 < found["errors"] < found["messages"]


def _said(report: Report) -> str:
    return " ".join(f"{each.rule} {each.location} {each.text}" for each in report.findings)


def _names(content: bytes) -> set[str]:
    """The family and given names of patients and their kin that are no words of a report."""
    names: set[str] = set()
    for body in messages_in(content) or [content]:
        try:
            message = hl7v2.parse(body)
        except RefusedError:
            continue
        for place in ("PID-5.1", "PID-5.2", "NK1-2.1", "NK1-2.2"):
            names.add(message.get(place).strip().upper())
    return {name for name in names if len(name) > 4 and name.isalpha()} - {"PATIENT", "UNKNOWN", "SEGMENT"}
