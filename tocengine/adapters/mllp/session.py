"""Owns the order of one MLLP connection, without I/O: messages start within a bound, answers leave as messages came.

    session.receive(data); for arrival in session.start(): ...    # begin each
    session.answered(arrival.number, answer)                      # in any order, as they finish
    session.to_write()                                            # the answers whose turn it is, framed
    session.finished                                              # close the connection now

A message that could not be stored is never answered, and nothing behind it is: the connection is closed at its
turn, and the sender sends again what was not answered.
"""

from collections import deque
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from tocengine.formats.mllp import Broken, BrokenFrame, Frame, FrameReader, Junk, frame

MAX_UNREADABLE: Final = 3  # messages in a row without a control id, then the connection is closed
_CLOSING: Final = (Broken.TOO_LARGE, Broken.CUT_OFF, Broken.TIMED_OUT)


class Arrival(msgspec.Struct, frozen=True):
    """The `number`-th thing on this connection that is owed an answer."""

    number: int
    item: Frame | BrokenFrame


class _Turn(Enum):
    """What has become of a message whose answer is not known."""

    PENDING = 0
    NOT_STORED = 1


_Answer: TypeAlias = bytes | None  # None: the sender wants no answer


class Session:
    """One connection. `max_in_flight` messages are begun at a time, the others wait their turn."""

    def __init__(self, max_frame_bytes: int, max_in_flight: int) -> None:
        self._reader = FrameReader(max_frame_bytes)
        self._max_in_flight = max_in_flight
        self._waiting: deque[Frame | BrokenFrame] = deque()
        self._turns: deque[_Turn | _Answer] = deque()  # begun and not yet written, oldest first
        self._written = 0  # the number of the oldest of them
        self._unreadable = 0
        self._last = False  # nothing more is read; close when everything is answered
        self._failed = False
        self.junk_bytes = 0

    @property
    def wants_data(self) -> bool:
        """False: do not read, there is enough under way, or the connection is about to end."""
        return not self._last and not self._failed and not self._waiting and len(self._turns) < self._max_in_flight

    @property
    def in_frame(self) -> bool:
        """The peer has begun something and owes the rest."""
        return self._reader.in_frame

    @property
    def awaits_return(self) -> bool:
        """The peer owes one CR, and will perhaps never send it: see `settle`."""
        return self._reader.awaits_return

    @property
    def idle(self) -> bool:
        """Nothing is under way in either direction."""
        return not self._turns and not self._waiting and not self._reader.in_frame

    @property
    def finished(self) -> bool:
        """Nothing more will be written: close."""
        return self._failed or (self._last and not self._turns and not self._waiting)

    def receive(self, data: bytes) -> bool:
        """Takes bytes as they came; True if they completed anything."""
        items = self._reader.receive(data)
        self._queue(items)
        return bool(items)

    def settle(self) -> None:
        """Takes a frame without its final CR as complete: the peer has been silent for a moment."""
        self._queue(self._reader.settle())

    def end(self, reason: Broken) -> None:
        """No more bytes will come, or be waited for. What is under way is still answered."""
        if not self._last:
            self._queue(self._reader.end(reason))
            self._last = True

    def stop(self) -> None:
        """Reads no further, without a word about an unfinished frame: its sender gets no answer and sends it again."""
        self._last = True

    def start(self) -> list[Arrival]:
        """What to begin now, in order."""
        arrivals = []
        while self._waiting and len(self._turns) < self._max_in_flight and not self._failed:
            arrivals.append(Arrival(self._written + len(self._turns), self._waiting.popleft()))
            self._turns.append(_Turn.PENDING)
        return arrivals

    def answered(self, number: int, answer: bytes | None, *, readable: bool = True) -> None:
        """The answer to message `number`; None where its sender wants none."""
        self._settle_turn(number, answer)
        self._unreadable = 0 if readable else self._unreadable + 1
        if self._unreadable >= MAX_UNREADABLE:
            self._last = True
            self._waiting.clear()

    def not_stored(self, number: int) -> None:
        """Message `number` could not be made durable."""
        self._settle_turn(number, _Turn.NOT_STORED)
        self._last = True
        self._waiting.clear()

    def to_write(self) -> bytes:
        """The answers whose turn has come, framed."""
        ready = []
        turns = self._turns
        while turns and not self._failed and turns[0] is not _Turn.PENDING:
            turn = turns.popleft()
            self._written += 1
            if isinstance(turn, bytes):
                ready.append(frame(turn))
            elif turn is _Turn.NOT_STORED:
                self._failed = True
        return b"".join(ready)

    def _queue(self, items: list[Frame | BrokenFrame | Junk]) -> None:
        for item in items:
            if isinstance(item, Junk):
                self.junk_bytes += item.size
            else:
                self._waiting.append(item)
                if isinstance(item, BrokenFrame) and item.reason in _CLOSING:
                    self._last = True

    def _settle_turn(self, number: int, turn: _Turn | _Answer) -> None:
        place = number - self._written
        if 0 <= place < len(self._turns):
            self._turns[place] = turn
