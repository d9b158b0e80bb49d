"""Owns HL7 v2 batches, without I/O: one payload into its messages with every count checked, and the answer to it.

``[FHS] { [BHS] { messages } [BTS] } [FTS]`` (HL7 v2.5.1 section 2.10.3). Headers and trailers may be missing, what
they state must be true: BTS-1 the messages of the batch, FTS-1 the batches of the file. Works on bytes, so that each
message is what came.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

import msgspec

from tocengine.errors import SyntaxRefusedError
from tocengine.formats.hl7v2.ack import Sent, read_segment, stamp
from tocengine.formats.hl7v2.encoding import STANDARD, refuse

_STARTS: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*[FB]HS[!-/:-@\[-`{-~]")
_BLANK: Final = b" \t\r\n\x00\x1a\xef\xbb\xbf"  # also the end-of-file mark of old systems
_NAME: Final = rb"(?:MSH|FHS|BHS)(?=[!-/:-@\[-`{-~])|(?:BTS|FTS)(?=[!-/:-@\[-`{-~]|\s|\Z)"
_LINES_BY_RETURN: Final = re.compile(rb"(?:\A|(?<=\r)|(?<=\r\n))(?:" + _NAME + rb")")
_LINES_BY_FEED: Final = re.compile(rb"(?:\A|(?<=\n))(?:" + _NAME + rb")")


class Group(msgspec.Struct, frozen=True):
    """One batch: its BHS, None where there was none, and its messages."""

    header: Sent | None
    messages: tuple[bytes, ...]


class Batch(msgspec.Struct, frozen=True):
    """A whole payload: its FHS, None where there was none, and its batches."""

    header: Sent | None
    groups: tuple[Group, ...]

    @property
    def messages(self) -> list[bytes]:
        """All messages in order."""
        return [message for group in self.groups for message in group.messages]


def is_batch(payload: bytes) -> bool:
    """It begins with FHS or BHS."""
    return _STARTS.match(payload) is not None


def read_batch(payload: bytes) -> Batch:
    """The batch in `payload`.

    Raises SyntaxRefusedError where a count is wrong or the segments are not in the order of a batch.
    """
    reader = _Reader()
    for name, part in _parts(payload):
        reader.take(name, part)
    return reader.finished()


def read_remains(payload: bytes) -> Batch:
    """What there is of a batch that cannot be taken, whatever its order and counts: enough to answer it."""
    file_header: Sent | None = None
    found: list[tuple[Sent | None, list[bytes]]] = []
    for name, part in _parts(payload):
        if name == b"FHS":
            file_header = file_header or read_segment(part)
        elif name == b"BHS" or (name == b"MSH" and not found):
            found.append((read_segment(part) if name == b"BHS" else None, []))
        if name == b"MSH":
            found[-1][1].append(part)
    groups = [Group(header, tuple(messages)) for header, messages in found]
    return Batch(file_header, tuple(groups) or (Group(None, ()),))


def _parts(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each header, trailer and message with the name of its first segment. A bare LF among CRs is data."""
    pattern = _LINES_BY_RETURN if b"\r" in payload else _LINES_BY_FEED
    payload = payload.lstrip(_BLANK)
    starts = [match.start() for match in pattern.finditer(payload)]
    if payload and (not starts or starts[0]):
        yield b"", payload[: starts[0] if starts else len(payload)]
    for start, end in pairwise([*starts, len(payload)]):
        yield payload[start : start + 3], payload[start:end]


class _Reader:
    """Follows the order of a batch's parts."""

    def __init__(self) -> None:
        self._file_header: Sent | None = None
        self._header: Sent | None = None
        self._messages: list[bytes] = []
        self._groups: list[Group] = []
        self._in_group = self._any = self._ended = False

    def take(self, name: bytes, part: bytes) -> None:
        """The next part."""
        if self._ended or not name:
            raise _misplaced()
        match name:
            case b"FHS":
                if self._any:
                    raise _misplaced()
                self._file_header = read_segment(_single(part))
            case b"BHS":
                self._close_group()
                self._header, self._in_group = read_segment(_single(part)), True
            case b"MSH":
                self._messages.append(part.rstrip(b"\x1a"))
                self._in_group = True
            case b"BTS":
                if not self._in_group:
                    raise _misplaced()
                _count(_single(part), self._file_header or self._header, len(self._messages), "BTS^1^1")
                self._close_group()
            case _:
                self._close_group()
                _count(_single(part), self._file_header, len(self._groups), "FTS^1^1")
                self._ended = True
        self._any = True

    def finished(self) -> Batch:
        """What was read."""
        self._close_group()
        return Batch(self._file_header, tuple(self._groups) or (Group(None, ()),))

    def _close_group(self) -> None:
        if self._in_group:
            self._groups.append(Group(self._header, tuple(self._messages)))
        self._header, self._messages, self._in_group = None, [], False


def _single(part: bytes) -> bytes:
    """A header or trailer stands alone: nothing but a message's own segments may follow a message."""
    line = part.rstrip(_BLANK)
    if b"\r" in line or (b"\n" in line and b"\r" not in part):
        raise _misplaced()
    return line


def _count(trailer: bytes, header: Sent | None, found: int, location: str) -> None:
    """A trailer's first field, if it states a number, states `found`."""
    separator = header.field(1) if header else trailer[3:4]
    fields = trailer.split(separator) if separator else [trailer]
    stated = fields[1].strip() if len(fields) > 1 else b""
    if stated and not (stated.isdigit() and int(stated) == found):
        text = f"The trailer's count is not the {found} that came"
        raise refuse("batch_count", text, location, "207")


def _misplaced() -> SyntaxRefusedError:
    return refuse("batch_structure", "The segments are not in the order of a batch", "BHS^1", "100")


def as_message_header(batch: Batch) -> Sent:
    """The batch as if it were one message: its sender, time, and control id (FHS-11 or BHS-11) where MSH has them."""
    header = batch.header or batch.groups[0].header
    if header is None:
        return Sent((), STANDARD)
    fields = (*header.fields[:8], *[b""] * 8)[:8]
    return Sent((*fields, b"", b"", header.field(11)), header.delimiters)


def grouped(batch: Batch, answers: Sequence[bytes | None]) -> list[list[bytes]]:
    """The acknowledgments of `batch.messages`, by group; None is one that is not wanted."""
    left = iter(answers)
    return [[answer for _ in group.messages if (answer := next(left)) is not None] for group in batch.groups]


def build_answer(batch: Batch, answers: Sequence[Sequence[bytes]], *, now: datetime, comment: str = "") -> bytes:
    """The acknowledgment of a batch: per batch its acknowledgments between BHS and BTS, FHS and FTS if FHS came.

    `answers` holds the acknowledgments of each group; `comment` goes into each trailer's second field.
    """
    parts = [_mirrored(b"FHS", batch.header, now)] if batch.header else []
    for group, answered in zip(batch.groups, answers, strict=True):
        parts += [_mirrored(b"BHS", group.header or batch.header, now), *answered]
        parts.append(_trailer(b"BTS", group.header or batch.header, len(answered), comment))
    if batch.header:
        parts.append(_trailer(b"FTS", batch.header, len(batch.groups), comment))
    return b"".join(parts)


def comment_of(answer: bytes) -> str:
    """What the answer to a batch says of all of it: the second field of its last trailer, where a refusal is told."""
    trailers = [part for name, part in _parts(answer) if name in (b"BTS", b"FTS")]
    separator = trailers[-1][3:4] if trailers else b""
    fields = trailers[-1].strip().split(separator) if separator else []
    return fields[2].decode("ascii", "replace") if len(fields) > 2 else ""


def _mirrored(name: bytes, header: Sent | None, now: datetime) -> bytes:
    """A header that answers `header`: sides swapped, its control id as the reference (BHS-12, FHS-12)."""
    sent = header or read_segment(b"BHS|^~\\&")
    separator = sent.delimiters.field.encode()
    fields = [
        name,
        sent.delimiters.characters.encode(),
        sent.field(5),
        sent.field(6),
        sent.field(3),
        sent.field(4),
        stamp(now),
        b"",
        sent.field(9),
        b"",
        b"",
        sent.field(11),
    ]
    return separator.join(fields).rstrip(separator) + b"\r"


def _trailer(name: bytes, header: Sent | None, count: int, comment: str) -> bytes:
    separator = header.delimiters.field.encode() if header else b"|"
    fields = [name, str(count).encode(), comment.encode("ascii", "replace").replace(separator, b" ")]
    return separator.join(fields).rstrip(separator) + b"\r"
