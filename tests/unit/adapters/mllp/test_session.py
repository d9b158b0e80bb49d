"""The order and the bounds of one connection."""

import pytest

from tocengine.adapters.mllp.session import Arrival, Session
from tocengine.formats.mllp import COMMITTED, NOT_COMMITTED, Broken, BrokenFrame, Frame, frame


def _session(in_flight: int = 2, *bodies: bytes) -> Session:
    session = Session(1000, in_flight)
    session.receive(b"".join(map(frame, bodies)))
    return session


def test_answers_leave_in_the_order_the_messages_came() -> None:
    session = _session(3, b"a", b"b", b"c")
    assert [arrival.item for arrival in session.start()] == [Frame(b"a"), Frame(b"b"), Frame(b"c")]
    session.answered(2, b"C")
    session.answered(1, None)
    assert session.to_write() == b""
    session.answered(0, b"A")
    assert session.to_write() == frame(b"A") + frame(b"C")
    assert session.idle
    assert not session.finished


def test_messages_in_flight_are_bounded() -> None:
    session = _session(2, b"a", b"b", b"c")
    assert [arrival.number for arrival in session.start()] == [0, 1]
    assert session.start() == []
    assert not session.wants_data
    session.answered(0, b"A")
    assert session.to_write() == frame(b"A")
    assert session.start() == [Arrival(2, Frame(b"c"))]
    session.answered(1, b"B")
    session.to_write()
    assert session.wants_data


def test_nothing_is_answered_from_a_message_that_was_not_stored_on() -> None:
    session = _session(3, b"a", b"b", b"c")
    session.start()
    session.not_stored(1)
    session.answered(2, b"C")
    session.answered(0, b"A")
    assert session.to_write() == frame(b"A")
    assert session.finished
    assert session.to_write() == b""


def test_a_stopped_session_ends_when_everything_is_answered() -> None:
    session = _session(1, b"a", b"b")
    session.receive(b"\x0bMSH|half")
    session.start()
    session.stop()
    session.end(Broken.CUT_OFF)  # adds nothing: nobody is told about the half frame
    session.answered(0, b"A")
    assert session.to_write() == frame(b"A")
    assert not session.finished
    [last] = session.start()
    session.answered(last.number, b"B")
    assert session.to_write() == frame(b"B")
    assert session.finished


def test_three_unreadable_messages_in_a_row_are_enough() -> None:
    session = _session(1, *[b"x"] * 6)
    for readable in (False, False, True, False, False):
        [arrival] = session.start()
        session.answered(arrival.number, b"R", readable=readable)
        session.to_write()
    assert not session.finished
    [arrival] = session.start()
    session.answered(arrival.number, b"R", readable=False)
    assert session.to_write() == frame(b"R")
    assert session.finished


def test_commit_blocks_stand_in_front_of_each_answer() -> None:
    session = Session(1000, 4, commit_blocks=True)
    session.receive(frame(b"a") + frame(b"b") + frame(b"") + frame(b"d"))
    session.start()
    session.answered(0, b"A")
    session.answered(1, None)
    session.answered(2, b"E")
    session.not_stored(3)
    assert session.to_write() == frame(COMMITTED) + frame(b"A") + frame(COMMITTED) + frame(NOT_COMMITTED) * 2
    assert session.finished


def test_the_rest_of_a_frame_that_was_answered_gets_neither_answer_nor_commit_block() -> None:
    session = Session(1000, 4, commit_blocks=True)
    session.receive(b"\x0ba\x1c")
    session.settle()
    session.receive(b"b\x1c\r")
    first, rest = session.start()
    assert rest.item == BrokenFrame(b"b", Broken.AFTER_END)
    session.answered(first.number, b"A")
    session.answered(rest.number, None)
    assert session.to_write() == frame(COMMITTED) + frame(b"A")
    assert session.idle


@pytest.mark.parametrize(
    ("data", "busy"),
    [
        (b"\r\n \x00\x1c\r", False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"x\x1c\r", False),
        (frame(COMMITTED), False),
        (b"\x0b", True),
        (b"\x0bMSH|", True),
        (frame(b"a"), True),
    ],
)
def test_only_bytes_of_a_message_keep_a_connection_busy(data: bytes, busy: bool) -> None:
    session = Session(1000, 4)
    session.receive(data)
    assert session.busy is busy


@pytest.mark.parametrize("commit_blocks", [False, True])
def test_commit_blocks_of_the_peer_are_no_messages(commit_blocks: bool) -> None:
    session = Session(1000, 4, commit_blocks=commit_blocks)
    session.receive(frame(COMMITTED) + frame(b"a") + frame(NOT_COMMITTED))
    assert [arrival.item for arrival in session.start()] == [Frame(b"a")]


def test_what_is_held_is_what_is_not_finished() -> None:
    session = _session(1, b"a" * 10, b"b" * 20)
    session.receive(b"\x0b" + b"c" * 5)
    [first] = session.start()
    assert session.held_bytes == 35
    session.answered(first.number, b"A")
    session.to_write()
    assert session.held_bytes == 25
    session.not_stored(session.start()[0].number)
    assert session.held_bytes == 5
