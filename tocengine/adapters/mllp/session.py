"""Owns the order of one MLLP connection, without I/O: messages start within a bound, answers leave as messages came.

    session.receive(data); for arrival in session.start(): ...    # begin each
    session.answered(arrival.number, answer)                      # in any order, as they finish
    session.to_write()                                            # the answers whose turn it is, framed
    session.finished                                              # close the connection now

A message that could not be stored is never answered, and nothing behind it is: the connection is closed at its
turn, and the sender sends again what was not answered. With `commit_blocks` (MLLP release 2) each stored message is
committed (0x06) in front of its answer, also where it gets none; what broke in transit or was not stored gets 0x15
and no answer; the rest of a frame that was answered too early gets neither. Commit blocks of the peer, about our
answers, are no messages.
"""

from collections import deque
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from tocengine.formats.mllp import (
    COMMIT_BLOCKS,
    COMMITTED,
    NOT_COMMITTED,
    Broken,
    BrokenFrame,
    Frame,
    FrameReader,
    Item,
    Junk,
    frame,
)

MAX_UNREADABLE: Final = 3  # messages in a row without a control id, then the connection is closed
_CLOSING: Final = (Broken.TOO_LARGE, Broken.CUT_OFF, Broken.TIMED_OUT)


class Arrival(msgspec.Struct, frozen=True):
    """The `number`-th thing on this connection that is owed an answer."""

    number: int
    item: Frame | BrokenFrame


class _Pending(msgspec.Struct, frozen=True):
    """A message that is being stored; `size` in bytes, `broken` how its frame was, if it was."""

    size: int
    broken: Broken | None


class _NotStored(Enum):
    """A message that could not be."""

    NOT_STORED = 0


_Turn: TypeAlias = bytes | _Pending | _NotStored
"""What has become of a message; bytes are all that is to be written about it, framed."""


class Session:
    """One connection. `max_in_flight` messages are begun at a time, the others wait their turn."""

    def __init__(self, max_frame_bytes: int, max_in_flight: int, *, commit_blocks: bool = False) -> None:
        self._reader = FrameReader(max_frame_bytes)
        self._max_in_flight = max_in_flight
        self._commit_blocks = commit_blocks
        self._waiting: deque[Frame | BrokenFrame] = deque()
        self._turns: deque[_Turn] = deque()  # begun and not yet written, oldest first
        self._written = 0  # the number of the oldest of them
        self._held = 0  # bytes of messages waiting or pending
        self._unreadable = 0
        self._last = False  # nothing more is read; close when everything is answered
        self._failed = False
        self.junk_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What this connection costs in memory: unfinished, waiting and being stored."""
        return self._reader.held_bytes + self._held

    @property
    def in_flight(self) -> int:
        """Messages that have begun and whose answers are not written."""
        return len(self._turns)

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
    def doubts_end(self) -> bool:
        """What looks like the end may be data: to be waited for longer."""
        return self._reader.doubts_end

    @property
    def idle(self) -> bool:
        """Nothing is under way in either direction."""
        return not self._turns and not self._waiting and not self._reader.in_frame

    @property
    def busy(self) -> bool:
        """A message is arriving, waits or is being stored; junk, blanks and commit blocks are none."""
        return self._reader.inside or bool(self._turns or self._waiting)

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
            item = self._waiting.popleft()
            arrivals.append(Arrival(self._written + len(self._turns), item))
            self._turns.append(_Pending(len(item.payload), item.reason if isinstance(item, BrokenFrame) else None))
        return arrivals

    def answered(self, number: int, answer: bytes | None, *, readable: bool = True) -> None:
        """The answer to message `number`; None where its sender wants none."""
        self._settle_turn(number, frame(answer) if answer is not None else b"")
        self._unreadable = 0 if readable else self._unreadable + 1
        if self._unreadable >= MAX_UNREADABLE:
            self._end_here()

    def not_stored(self, number: int) -> None:
        """Message `number` could not be made durable."""
        self._settle_turn(number, _NotStored.NOT_STORED)
        self._end_here()

    def to_write(self) -> bytes:
        """What is to be said of the messages whose turn has come."""
        ready = []
        turns = self._turns
        while turns and not self._failed and not isinstance(turns[0], _Pending):
            turn = turns.popleft()
            self._written += 1
            if isinstance(turn, bytes):
                ready.append(turn)
            else:
                self._failed = True
                if self._commit_blocks:
                    ready.append(frame(NOT_COMMITTED))
        return b"".join(ready)

    def _queue(self, items: list[Item]) -> None:
        for item in items:
            if isinstance(item, Junk):
                self.junk_bytes += item.size
            elif item.payload not in COMMIT_BLOCKS:
                self._waiting.append(item)
                self._held += len(item.payload)
                if isinstance(item, BrokenFrame) and item.reason in _CLOSING:
                    self._last = True

    def _settle_turn(self, number: int, turn: bytes | _NotStored) -> None:
        place = number - self._written
        if 0 <= place < len(self._turns):
            before = self._turns[place]
            if isinstance(before, _Pending):
                self._held -= before.size
                if isinstance(turn, bytes) and self._commit_blocks:
                    turn = _with_commit_block(before.broken, turn)
            self._turns[place] = turn

    def _end_here(self) -> None:
        """What has not begun is not begun: its sender gets no answer and sends it again."""
        self._last = True
        self._held -= sum(len(item.payload) for item in self._waiting)
        self._waiting.clear()


def _with_commit_block(broken: Broken | None, answer: bytes) -> bytes:
    """What is written of a block that was kept: `answer`, framed, behind its commit block or replaced by one."""
    if broken is None:
        return frame(COMMITTED) + answer
    return answer if broken is Broken.AFTER_END else frame(NOT_COMMITTED)
