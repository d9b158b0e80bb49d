"""Which messages a file holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocengine.formats.hl7v2.batch import is_batch
from tocengine.formats.hl7v2.files import messages_in, pieces_in
from tocengine.formats.mllp import Broken, BrokenFrame

ONE = b"MSH|^~\\&|A|B\rPID|1\r"
TWO = b"MSH|^~\\&|C|D\rPID|2\r"
BATCH = b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + ONE + TWO + b"BTS|2\rFTS|1\r"


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_messages_stand_one_after_the_other(end: bytes) -> None:
    one, two = ONE.replace(b"\r", end), TWO.replace(b"\r", end)
    assert messages_in(one + two) == [one, two]
    assert messages_in(b"\xef\xbb\xbf" + one + end + two) == [b"\xef\xbb\xbf" + one + end, two]


def test_what_stands_before_the_first_header_is_none() -> None:
    assert messages_in(b"exported on Monday\r" + ONE) == [ONE]
    assert messages_in(b"nothing here, MSH| neither") == []
    assert messages_in(b"") == []


def test_frames_are_taken_as_they_are() -> None:
    framed = b"\x0b" + ONE + b"\x1c\r\x0b" + TWO + b"\x1c\r"
    assert messages_in(framed) == [ONE, TWO]


def test_marks_of_mllp_inside_a_message_are_data() -> None:
    noted = ONE + b"NTE|1||left\x1cright\x0bup\rPV1|1\r"
    assert messages_in(noted + TWO) == [noted, TWO]
    assert messages_in(b"\x0b" + noted + b"\x1c\r\x0b" + TWO + b"\x1c\r") == [noted, TWO]


def test_every_part_of_a_file_is_a_piece() -> None:
    assert pieces_in(b"exported on Monday\r" + ONE) == [b"exported on Monday\r", ONE]
    assert pieces_in(b"\r\n" + ONE) == [ONE]
    whole, broken = pieces_in(b"\x0b" + ONE + b"\x1c\r\x0b" + TWO)
    assert whole == ONE
    assert broken == BrokenFrame(TWO, Broken.CUT_OFF)


def test_a_batch_is_taken_whole() -> None:
    assert messages_in(BATCH) == [BATCH]
    assert is_batch(b"\r\n" + BATCH)
    assert not is_batch(ONE)


@given(st.lists(st.sampled_from([ONE, TWO, b"noise\r", b"\x0b", b"\x1c", b"MSH|", b"\xff\r"])).map(b"".join))
def test_every_message_comes_from_the_file_and_none_is_there_twice(raw: bytes) -> None:
    assert sum(map(len, messages_in(raw))) <= len(raw)
    assert all(message in raw for message in messages_in(raw))
