"""Owns MLLP framing, without I/O: bytes in any split go in, frames and what is broken come out.

    reader = FrameReader(max_frame_bytes)
    for item in reader.receive(data): ...    # Frame | BrokenFrame | Junk, in the order they came
    reader.settle()                          # silence: a frame whose final CR never came is complete
    reader.end(Broken.CUT_OFF)               # the peer closed, or took too long

The same bytes give the same items however they are split. MLLP release 1: ``0x0B payload 0x1C 0x0D``; read liberally
(HL7 v2.5.1 Implementation Guide, appendix C): a 0x1C without a CR is data, a 0x0B inside a frame starts a new one
only where MSH, FHS or BHS follows it, and then the one before it had no end. So too in the rest of a frame that silence
had ended.
"""

import re
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

START: Final = b"\x0b"
END: Final = b"\x1c\r"
COMMITTED: Final = b"\x06"
"""Payload of a commit block of MLLP release 2: the block before it is safely stored."""
NOT_COMMITTED: Final = b"\x15"
"""Its opposite: send that block again."""
COMMIT_BLOCKS: Final = (COMMITTED, NOT_COMMITTED)
KEPT_OF_OVERSIZE: Final = 65_536
"""Bytes kept of a frame that is too large: enough to answer and recognize it."""

_NEW_FRAME: Final = re.compile(rb"\x0b(?=MSH|FHS|BHS)")
_OUTSIDE: Final = re.compile(rb"\x0b|\x1c\r")
_AFTER_SILENCE: Final = re.compile(rb"\A\x0b|\x0b(?=MSH|FHS|BHS)|\x1c\r")  # in the rest of a frame a 0x0B is data
_UNDECIDED: Final = 5  # bytes at the end that may be the beginning of an end or of a new frame: 1C 0B M S H
_PADDING: Final = b" \t\r\n\x00\x1c"


class Broken(StrEnum):
    """How a frame was broken."""

    EMPTY = "empty"  # start and end with nothing between them
    END_MISSING = "end_missing"  # the next frame began before it ended
    START_MISSING = "start_missing"  # a message and no 0x0B before it
    AFTER_END = "after_end"  # the rest of a frame that silence had ended: its 0x1C was data
    TOO_LARGE = "too_large"  # the rest is not read
    CUT_OFF = "cut_off"  # the peer closed the connection
    TIMED_OUT = "timed_out"  # the peer took too long


class Frame(msgspec.Struct, frozen=True):
    """A whole frame."""

    payload: bytes


class BrokenFrame(msgspec.Struct, frozen=True):
    """What there is of a broken frame; of one too large the first `KEPT_OF_OVERSIZE` bytes."""

    payload: bytes
    reason: Broken


class Junk(msgspec.Struct, frozen=True):
    """Bytes outside of any frame, which are ignored. Blanks, line ends and lone frame ends are not counted."""

    size: int


Item: TypeAlias = Frame | BrokenFrame | Junk


def frame(payload: bytes) -> bytes:
    """`payload` as it is sent."""
    return START + payload + END


class FrameReader:
    """Reads one connection's bytes. Holds at most `max_frame_bytes` and what one read brought."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._max = max_frame_bytes
        self._buffer = bytearray()
        self._inside = False
        self._searched = 0  # bytes of the buffer known to hold no end and no start
        self._settled = False  # silence ended the last frame, and nothing came since
        self.closed = False
        """Nothing more is read: a frame was too large, or `end` was called."""

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for the rest of what they belong to."""
        return len(self._buffer)

    @property
    def in_frame(self) -> bool:
        """Bytes were received that are not yet an item: the peer owes the rest."""
        return self._inside or len(self._buffer) > 0

    @property
    def inside(self) -> bool:
        """A frame has begun and not ended."""
        return self._inside

    @property
    def awaits_return(self) -> bool:
        """All but the final CR of a frame is here; `settle` completes it."""
        return self._inside and self._buffer.endswith(b"\x1c")

    @property
    def doubts_end(self) -> bool:
        """The 0x1C that would end the frame stands in mid-segment: it may be data, and what follows be late."""
        return self.awaits_return and not self._buffer.endswith((b"\r\x1c", b"\n\x1c"))

    def receive(self, data: bytes) -> list[Item]:
        """The items completed by `data`."""
        if self.closed:
            return []
        self._buffer += data
        items: list[Item] = []
        more = True
        while more:
            more = self._read_inside(items) if self._inside else self._read_outside(items)
        return items

    def settle(self) -> list[Item]:
        """Takes a frame that waits for nothing but its CR as complete. For use after a moment of silence."""
        items: list[Item] = []
        if self.awaits_return and not self.closed:
            self._complete(items, len(self._buffer) - 1, len(self._buffer))
            self._settled = True
        return items

    def end(self, reason: Broken) -> list[Item]:
        """What is left when no more bytes will come, or none are waited for."""
        items = self.settle()
        if not self.closed and self._inside:
            self._break(items, len(self._buffer), reason)
        elif not self.closed:
            self._outside_done(items, len(self._buffer), reason)
        self._close()
        return items

    def _read_inside(self, items: list[Item]) -> bool:
        """Reads to the end of the frame; False where it is not here yet."""
        buffer = self._buffer
        end = buffer.find(END, self._searched)
        limit = len(buffer) if end < 0 else end
        match = _NEW_FRAME.search(buffer, self._searched, limit)
        if match is not None:
            start = match.start()
            del match  # it would hold the buffer
            if start and buffer[start - 1] == END[0]:  # only the CR is missing
                self._complete(items, start - 1, start)
            else:
                self._break(items, start, Broken.END_MISSING)
            return True
        if end >= 0:
            self._complete(items, end, end + len(END))
            return True
        if len(buffer) > self._max + _UNDECIDED:
            self._too_large(items)
        self._searched = max(0, len(buffer) - _UNDECIDED)
        return False

    def _read_outside(self, items: list[Item]) -> bool:
        """Reads to the start of a frame; False where there is none yet."""
        buffer = self._buffer
        if buffer[:1] == END[1:]:  # after silence: the CR that was late
            self._settled = False
        if buffer[:1] in _PADDING:
            del buffer[: len(buffer) - len(buffer.lstrip(_PADDING))]
            self._searched = 0
        match = (_AFTER_SILENCE if self._settled else _OUTSIDE).search(buffer, self._searched)
        if match is None:
            if len(buffer) > self._max + _UNDECIDED:
                self._too_large(items)
            self._searched = max(0, len(buffer) - _UNDECIDED)
            return False
        position, marker = match.start(), match.group()
        del match
        if marker == START:
            self._outside_done(items, position, Broken.START_MISSING)
            del buffer[: position + 1]
        else:
            self._outside_done(items, position, Broken.START_MISSING)
            del buffer[: position + len(END)]
        self._inside, self._searched = marker == START and not self.closed, 0
        self._settled = False
        return True

    def _outside_done(self, items: list[Item], size: int, reason: Broken) -> None:
        """Bytes outside of a frame end here: a message that lacks its start if they look like one, the rest of a frame
        that was ended too early, else junk."""
        if size > self._max:
            self._too_large(items)
            return
        content = bytes(self._buffer[:size]).rstrip(_PADDING)
        if not content:
            return
        if content.startswith(b"MSH"):
            items.append(BrokenFrame(content, reason))
        elif self._settled:
            items.append(BrokenFrame(content, Broken.AFTER_END))
        else:
            items.append(Junk(len(content)))

    def _complete(self, items: list[Item], size: int, consumed: int) -> None:
        if size > self._max:
            self._too_large(items)
            return
        payload = bytes(self._buffer[:size])
        items.append(Frame(payload) if payload.strip(_PADDING) else BrokenFrame(b"", Broken.EMPTY))
        del self._buffer[:consumed]
        self._inside, self._searched = False, 0

    def _break(self, items: list[Item], size: int, reason: Broken) -> None:
        if size > self._max:
            self._too_large(items)
            return
        payload = bytes(self._buffer[:size])
        if payload.strip(_PADDING):
            items.append(BrokenFrame(payload, reason))
        del self._buffer[:size]
        self._inside, self._searched = False, 0

    def _too_large(self, items: list[Item]) -> None:
        items.append(BrokenFrame(bytes(self._buffer[: min(KEPT_OF_OVERSIZE, self._max)]), Broken.TOO_LARGE))
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._inside = False
        self._buffer.clear()
