"""Every ADT message of the corpus is normalized or refused with a reason and a place; what comes out is valid."""

import re
from collections import Counter
from itertools import pairwise

import orjson
import pytest

from tests.fixtures.adt import SHARED, received, source
from tocengine.errors import RefusedError
from tocengine.formats.fhir.checks import Finding, check_bundle
from tocengine.formats.fhir.schema import validator
from tocengine.normalize.normalizer import HL7v2Normalizer

CORPUS = SHARED / "corpus"
_HEADER = re.compile(rb"(?:\A|[\r\n\x0b])(MSH[^\w\s])")
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus lies beside the repository")


def _bodies() -> list[tuple[str, bytes]]:
    """The messages of all v2 files; a file with several is cut at each MSH."""
    found = []
    for folder in ("hl7v2", "pairs"):
        for file in sorted((CORPUS / folder).rglob("*")):
            if not file.is_file() or file.suffix.lower() in (".json", ".yml", ".md", ".csv", ".fhir"):
                continue
            body = file.read_bytes()
            if b"MSH" not in body or len(body) > 500_000:
                continue
            starts = [match.start(1) for match in _HEADER.finditer(body)]
            for start, end in pairwise([*starts, len(body)]):
                found.append((f"{file.relative_to(CORPUS)}@{start}", body[start:end].rstrip(b"\x1c\r\n")))
    return found


def test_every_adt_message_is_normalized_or_refused_with_a_place() -> None:
    normalizer = HL7v2Normalizer(source())
    schema = validator()
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[str, list[Finding], list[str]]] = []
    for name, body in _bodies():
        try:
            records = normalizer.normalize(received(body))
        except RefusedError as error:
            if not (error.problem.reason and error.problem.location):
                wrong.append((name, [], ["refused without reason or place"]))
            outcomes[error.problem.reason] += 1
            continue
        for record in records:
            outcomes["handled" if record.summary.handled else "not handled yet"] += 1
            bundle = orjson.loads(bytes(record.fhir))
            findings = check_bundle(bundle)
            problems = [error.message for error in schema.iter_errors(bundle)]
            if findings or problems:
                wrong.append((name, findings[:3], problems[:2]))
    assert wrong == []
    assert outcomes["handled"] > 100, outcomes
