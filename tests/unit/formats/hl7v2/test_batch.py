"""Batches: what is in one, when it is none, and what answers it."""

from datetime import UTC, datetime

import pytest

from tocengine.errors import SyntaxRefusedError
from tocengine.formats.hl7v2.batch import build_answer, is_batch, read_batch, read_remains

NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
FHS = b"FHS|^~\\&|REG|NORTH|TOC|HUB|20260301||nightly||F1\r"
BHS = b"BHS|^~\\&|REG|NORTH|TOC|HUB|20260301||adt||B%d\r"


def message(number: int) -> bytes:
    return b"MSH|^~\\&|REG|NORTH|TOC|HUB|20260301||ADT^A01|%d|P|2.5.1\rPID|%d\r" % (number, number)


def test_a_file_of_batches() -> None:
    batch = read_batch(
        FHS + BHS % 1 + message(1) + message(2) + b"BTS|2\r" + BHS % 2 + message(3) + b"BTS|1|fine\r" + b"FTS|2\r"
    )
    assert [group.messages for group in batch.groups] == [(message(1), message(2)), (message(3),)]
    assert [group.header and group.header.field(11) for group in batch.groups] == [b"B1", b"B2"]


@pytest.mark.parametrize(
    "payload",
    [
        BHS % 1 + message(1) + message(2),
        BHS % 1 + message(1) + message(2) + b"BTS\r",
        BHS % 1 + message(1) + message(2) + b"BTS|2",
        FHS + message(1) + message(2) + b"BTS|2\rFTS|1\r",
        FHS + message(1) + message(2) + b"FTS|\r",
        (BHS % 1 + message(1) + message(2) + b"BTS|2\r").replace(b"\r", b"\n"),
        (BHS % 1 + message(1) + message(2) + b"BTS|2\r").replace(b"\r", b"\r\n"),
        b"\xef\xbb\xbf\r\n" + BHS % 1 + message(1) + message(2) + b"BTS|2\r\x1a",
    ],
)
def test_optional_parts_and_line_ends(payload: bytes) -> None:
    assert is_batch(payload)
    texts = [each.replace(b"\r\n", b"\r").replace(b"\n", b"\r") for each in read_batch(payload).messages]
    assert texts == [message(1), message(2)]


@pytest.mark.parametrize(
    ("payload", "reason", "location"),
    [
        (BHS % 1 + message(1) + b"BTS|2\r", "batch_count", "BTS^1^1"),
        (BHS % 1 + message(1) + b"BTS|one\r", "batch_count", "BTS^1^1"),
        (FHS + BHS % 1 + message(1) + b"BTS|1\rFTS|2\r", "batch_count", "FTS^1^1"),
        (BHS % 1 + message(1) + FHS, "batch_structure", "BHS^1"),
        (BHS % 1 + b"PID|1\r" + message(1), "batch_structure", "BHS^1"),
        (BHS % 1 + message(1) + b"BTS|1\rZZZ|1\r", "batch_structure", "BHS^1"),
        (BHS % 1 + message(1) + b"BTS|1\rBTS|1\r", "batch_structure", "BHS^1"),
        (FHS + b"FTS|0\r" + message(1), "batch_structure", "BHS^1"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(payload: bytes, reason: str, location: str) -> None:
    with pytest.raises(SyntaxRefusedError) as refused:
        read_batch(payload)
    assert (refused.value.problem.reason, refused.value.problem.location) == (reason, location)
    assert all(each in payload for each in read_remains(payload).messages)


def test_segments_of_a_message_that_look_like_others_are_its_own() -> None:
    payload = BHS % 1 + message(1) + b"NTE|1||BTS|9\nMSH|x\r" + message(2) + b"BTS|2\r"
    assert len(read_batch(payload).messages) == 2


def test_the_answer_mirrors_the_batch() -> None:
    batch = read_batch(FHS + BHS % 1 + message(1) + b"BTS|1\r" + BHS % 2 + b"BTS|0\rFTS|2\r")
    assert build_answer(batch, [[b"MSH..\rMSA..\r"], []], now=NOW, comment="a|b") == (
        b"FHS|^~\\&|TOC|HUB|REG|NORTH|20260301204105+0000||nightly|||F1\r"
        b"BHS|^~\\&|TOC|HUB|REG|NORTH|20260301204105+0000||adt|||B1\rMSH..\rMSA..\rBTS|1|a b\r"
        b"BHS|^~\\&|TOC|HUB|REG|NORTH|20260301204105+0000||adt|||B2\rBTS|0|a b\r"
        b"FTS|2|a b\r"
    )
