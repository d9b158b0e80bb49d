"""Every HL7 v2 file of the public corpus: read without a crash, losslessly, and most of it as messages."""

from pathlib import Path

import pytest

from tests.corpus.files import hl7v2_files
from tocengine.errors import SyntaxRefusedError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2 import ack
from tocengine.formats.hl7v2.datatypes import CX, PL, XCN, XPN
from tocengine.formats.hl7v2.files import messages_in
from tocengine.formats.mllp import Broken, FrameReader

FILES = [file.path for file in hl7v2_files()]

pytestmark = pytest.mark.skipif(not FILES, reason="the message corpus is not beside this checkout")


def _bodies(path: Path) -> list[bytes]:
    """The file as a whole, and each of its messages where it holds several or is framed."""
    whole = path.read_bytes()
    return [whole, *(body.strip(b"\x0b\x1c\r\n") for body in messages_in(whole))]


def test_every_file_is_read_or_refused() -> None:
    """Every field of every segment is read; the only error is the documented one."""
    parsed = refused = 0
    for path in FILES:
        for body in _bodies(path):
            sent = ack.read_sent(body)
            assert all(isinstance(ack.code_for(sent, verdict), str) for verdict in ack.Verdict)
            try:
                message = hl7v2.parse(body)
            except SyntaxRefusedError:
                refused += 1
                continue
            parsed += 1
            assert message.to_bytes() == body
            assert not [line for line in message.lines if "\r" in line], path
            for segment in message:
                for number in range(1, len(segment) + 1):
                    for repetition in segment[number]:
                        assert repetition.component(1) is not None
                        for each in (CX, PL, XCN, XPN):
                            each.read(repetition)
            if sent.readable:
                assert sent.control_id.decode("utf-8", "replace").isascii() is False or (
                    message.segment("MSH")[10].raw == sent.control_id.decode()
                ), path
    assert parsed > 1_000
    assert refused < parsed / 4


def test_framing_survives_every_file() -> None:
    """Whatever the bytes, framing ends, and never yields more than it got."""
    for path in FILES:
        data = path.read_bytes()
        reader = FrameReader(1_000_000)
        items = reader.receive(data) + reader.end(Broken.CUT_OFF)
        assert sum(len(getattr(item, "payload", b"")) for item in items) <= len(data)
