"""Every file of the public corpus through the running engine: answered, kept, and the engine none the worse."""

from pathlib import Path

import pytest

from tests.corpus.answers import faults
from tests.corpus.files import fhir_files, hl7v2_files
from tests.corpus.running import send_corpus
from tocengine.formats.mllp import frame

HL7V2, FHIR = hl7v2_files(), fhir_files()


ACK = "MSH|^~\\&|A|B|||2026||ACK|9|P|2.5.1\rMSA|{code}|{control}\r"
SENT = "MSH|^~\\&|A|B|||2026||ADT^A01|{control}|P|2.5.1|||{wish}\r"


def _stream(*texts: str) -> bytes:
    return b"".join(frame(text.encode()) for text in texts)


@pytest.mark.parametrize(
    ("answers", "faults_found"),
    [
        ([("AA", "1"), ("CR", "2")], 0),
        ([("AR", "1"), ("CA", "2")], 1),  # the second wants an answer to failure only
        ([("AA", "1")], 0),
        ([("CR", "2")], 1),
        ([("AA", "1"), ("AA", "1")], 1),
        ([("CR", "2"), ("AA", "1")], 2),
        ([("ZZ", "1")], 2),
        ([], 1),
    ],
)
def test_an_answer_too_few_too_many_or_out_of_turn_is_noticed(
    answers: list[tuple[str, str]], faults_found: int
) -> None:
    sent = _stream(SENT.format(control="1", wish=""), SENT.format(control="2", wish="ER"))
    answered = _stream(*(ACK.format(code=code, control=control) for code, control in answers))
    assert len(faults(sent, answered)) == faults_found


def test_a_batch_is_answered_by_one_batch() -> None:
    messages = [SENT.format(control=str(number), wish="") for number in range(3)]
    acks = [ACK.format(code="AR", control=str(number)) for number in range(3)]
    batch, answer = ("".join([f"BHS|^~\\&|A|B\r{''.join(each)}BTS|3\r"]) for each in (messages, acks))
    assert faults(_stream(batch), _stream(answer)) == []
    assert faults(_stream(batch), _stream(answer.replace(acks[1], ""))) != []
    assert faults(_stream(batch), _stream(*acks)) != []


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
