"""MLLP framing, case by case."""

import pytest

from tocengine.formats.mllp import KEPT_OF_OVERSIZE, Broken, BrokenFrame, Frame, FrameReader, Item, Junk, frame

M = b"MSH|^~\\&|one"


@pytest.mark.parametrize(
    ("data", "items"),
    [
        (frame(M), [Frame(M)]),
        (frame(M) + b"\r\n" + frame(b"x"), [Frame(M), Frame(b"x")]),
        (b"junk " + frame(M), [Junk(4), Frame(M)]),
        (b"\x0b" + M + b"\x1c" + frame(M), [Frame(M), Frame(M)]),
        (b"\x0b" + M + frame(M), [BrokenFrame(M, Broken.END_MISSING), Frame(M)]),
        (b"\x0b\x0b" + frame(M), [BrokenFrame(b"\x0b", Broken.END_MISSING), Frame(M)]),
        (b"\x0b" + frame(M), [Frame(M)]),
        (frame(M + b"\x1cx\x0bPID"), [Frame(M + b"\x1cx\x0bPID")]),
        (frame(b""), [BrokenFrame(b"", Broken.EMPTY)]),
        (frame(b"\r\n"), [BrokenFrame(b"", Broken.EMPTY)]),
        (M + b"\x1c\r" + frame(M), [BrokenFrame(M, Broken.START_MISSING), Frame(M)]),
        (b"\x1c\r\x1c\r", []),
        (b"\x0b" + M, [BrokenFrame(M, Broken.CUT_OFF)]),
        (b"\x0b" + M + b"\x1c", [Frame(M)]),
        (M, [BrokenFrame(M, Broken.CUT_OFF)]),
        (b"GET /\r\n", [Junk(5)]),
    ],
)
def test_what_comes_out(data: bytes, items: list[Item]) -> None:
    reader = FrameReader(1000)
    assert reader.receive(data) + reader.end(Broken.CUT_OFF) == items


def test_the_size_limit() -> None:
    reader = FrameReader(10)
    assert reader.receive(frame(b"0123456789")) == [Frame(b"0123456789")]
    assert reader.receive(frame(b"0123456789a")) == [BrokenFrame(b"0123456789", Broken.TOO_LARGE)]
    assert reader.closed
    assert reader.receive(frame(b"1")) == []
    assert reader.end(Broken.CUT_OFF) == []


def test_an_endless_frame_is_not_kept() -> None:
    reader = FrameReader(1_000_000)
    items: list[Item] = reader.receive(b"\x0b")
    for _ in range(20):
        items += reader.receive(b"x" * 65_536)
    assert items == [BrokenFrame(b"x" * KEPT_OF_OVERSIZE, Broken.TOO_LARGE)]


def test_a_missing_return_is_settled_by_silence() -> None:
    reader = FrameReader(1000)
    assert reader.settle() == []
    assert reader.receive(b"\x0b" + M) == []
    assert (reader.in_frame, reader.awaits_return) == (True, False)
    assert reader.settle() == []
    assert reader.receive(b"\x1c") == []
    assert reader.awaits_return
    assert reader.doubts_end is not M.endswith(b"\r")
    assert reader.settle() == [Frame(M)]
    assert reader.receive(b"\r") == []  # the late CR
    assert not reader.in_frame


@pytest.mark.parametrize(
    ("later", "items"),
    [
        (b"|I||3N\r\x1c\r", [BrokenFrame(b"|I||3N", Broken.AFTER_END)]),
        (b"|I||3N" + frame(M), [BrokenFrame(b"|I||3N", Broken.AFTER_END), Frame(M)]),
        (b"|I\x0bmore\r\x1c\r" + frame(M), [BrokenFrame(b"|I\x0bmore", Broken.AFTER_END), Frame(M)]),
        (frame(b"no message") + frame(M), [Frame(b"no message"), Frame(M)]),  # nothing came before it: a new frame
        (b"\r\nGET / HTTP/1.1" + frame(M), [Junk(14), Frame(M)]),  # its CR came late, so it had ended rightly
        (frame(M) + b"junk" + frame(M), [Frame(M), Junk(4), Frame(M)]),
        (b"|I\x1c\rjunk" + frame(M), [BrokenFrame(b"|I", Broken.AFTER_END), Junk(4), Frame(M)]),
        (b"MSH|^~\\&|B\r\x1c\r", [BrokenFrame(b"MSH|^~\\&|B", Broken.START_MISSING)]),
    ],
)
def test_what_follows_a_frame_that_silence_ended_is_the_rest_of_it(later: bytes, items: list[Item]) -> None:
    for pieces in ([later], [later[n : n + 1] for n in range(len(later))]):
        reader = FrameReader(1000)
        reader.receive(b"\x0b" + M + b"PV1|1\x1c")
        assert reader.settle() == [Frame(M + b"PV1|1")]
        assert [item for piece in pieces for item in reader.receive(piece)] == items
