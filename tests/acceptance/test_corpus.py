"""Every file of the public corpus through the running engine: answered, kept, and the engine none the worse."""

from pathlib import Path

import pytest

from tests.corpus.files import fhir_files, hl7v2_files
from tests.corpus.running import send_corpus

HL7V2, FHIR = hl7v2_files(), fhir_files()


@pytest.mark.timeout(300)
@pytest.mark.skipif(not HL7V2, reason="the message corpus is not beside this checkout")
async def test_every_file_gets_its_answer_and_the_engine_goes_on(folder: Path) -> None:
    run = await send_corpus(folder, HL7V2, FHIR)
    assert {source: outcome.unanswered for source, outcome in run.outcomes.items() if outcome.unanswered} == {}
    answers = set().union(*(outcome.answers for outcome in run.outcomes.values()))
    assert answers <= {"AA", "AE", "AR", "CA", "CE", "CR", "batch refused", "200", "202", "400", "422"}
    assert sum(outcome.dispositions["TRACKED"] for outcome in run.outcomes.values()) > 400
    assert run.intact
    assert run.exit_status == 0
