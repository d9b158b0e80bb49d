"""Owns what is fuzzed: one input through parser, framer, batch reader, acknowledgment and normalizer.

An exception other than the documented one is a finding, and so is a message that does not give back its bytes.
"""

import contextlib
from functools import lru_cache

from tests.fixtures.adt import RECEIVED, movement, received, source
from tocengine.errors import RefusedError, SyntaxRefusedError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2 import ack
from tocengine.formats.hl7v2.batch import read_batch
from tocengine.formats.hl7v2.files import messages_in
from tocengine.formats.mllp import Broken, Frame, FrameReader
from tocengine.model.message import Problem
from tocengine.normalize.normalizer import HL7v2Normalizer

SEEDS = (
    movement(
        "A03", {36: "03", 37: "SUNNY & CO\\T\\^20260301", 44: "20260225"}, "DG1|1||I50.9^Heart^I10|||F", "ZPI|a~b"
    ),
    movement("A17") + movement("A17")[movement("A17").index(b"PID") :],
    b"MSH|^~\\&#|A|B|C|D|20260301||ADT^A40|7|P|2.7|||AL|NE||ISO IR87~8859/1\rEVN||2026\rPID|||1~2\rMRG|3\r",
    b"FHS|^~\\&\rBHS|^~\\&\rMSH|^~\\&|A\rBTS|1\rFTS|1\r",
    b"\x0bMSH|^~\\&|A|B|||2026||ACK|1\rMSA|AA|1|ok\rERR||PID^1^3|101^x^HL70357|E\r\x1c\r\x0bMSH",
)
"""What the fuzzer starts from; invented."""
_PROBLEM = Problem(reason="fuzz", text="a|b^c", location="PID^1^3", code="101")


@lru_cache(maxsize=1)
def _normalizer() -> HL7v2Normalizer:
    return HL7v2Normalizer(source())


def run(data: bytes) -> None:
    """One input. Raises only what is a finding."""
    _parse(data)
    _answer(data)
    _frame(data)
    with contextlib.suppress(SyntaxRefusedError):
        read_batch(data)
    for message in messages_in(data):
        assert message in data
    with contextlib.suppress(RefusedError):
        assert _normalizer().normalize(received(data))


def _parse(data: bytes) -> None:
    try:
        message = hl7v2.parse(data)
    except SyntaxRefusedError:
        return
    assert message.to_bytes() == data
    for segment in message:
        for number in range(1, len(segment) + 2):
            for repetition in segment[number].repetitions:
                for component in range(1, len(repetition.components) + 2):
                    repetition.subcomponents(component)
                    repetition.component(component)
            assert segment.component(number, 1) == segment[number].component(1)


def _answer(data: bytes) -> None:
    sent = ack.read_sent(data)
    for verdict in ack.Verdict:
        code = ack.code_for(sent, verdict)
        answer = ack.build(sent, code or "AA", now=RECEIVED, control_id="1", problem=_PROBLEM)
        assert answer.endswith(b"\r")
        if not answer.isascii():
            continue  # in the sender's character set, which may be a lie
        assert ack.read_ack(answer).code == (code or "AA")
    with contextlib.suppress(SyntaxRefusedError):
        ack.read_ack(data)


def _frame(data: bytes) -> None:
    """The same bytes give the same items however they are split."""
    whole, split = FrameReader(4096), FrameReader(4096)
    middle = len(data) // 2
    items = whole.receive(data) + whole.end(Broken.CUT_OFF)
    assert split.receive(data[:middle]) + split.receive(data[middle:]) + split.end(Broken.CUT_OFF) == items
    assert sum(len(item.payload) for item in items if isinstance(item, Frame)) <= len(data)
