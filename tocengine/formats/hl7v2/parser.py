"""Owns the reading of one HL7 v2 message: lazy and lossless, it splits what is asked for and keeps the bytes that came.

    message = parse(body)
    message.segment("PV1")[19].component(1)              # "V500"; an absent segment or field reads as empty
    for repetition in message.segment("PID")[3]: ...      # valued repetitions, in order
    message.to_bytes() == body

Numbers are those of the standard, from 1; MSH-1 is the field separator. Values are unescaped on access.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from tocengine.formats.hl7v2.encoding import (
    STANDARD_CHARACTERS,
    Delimiters,
    Flag,
    decode,
    read_delimiters,
    refuse,
)
from tocengine.formats.hl7v2.segments import Coding, HeaderSegment, Segment, coding_of

_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n\x00"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00M", b"M\x00", b"\x00\x00")
_HEADERS: Final = ("MSH", "FHS", "BHS")


class HL7Message:
    """One parsed message. `flags` names what was odd about its encoding (`encoding.Flag`)."""

    __slots__ = ("_first", "_lines_of", "_segments", "body", "coding", "flags", "lines")

    def __init__(self, body: bytes, lines: list[str], coding: Coding, flags: tuple[str, ...]) -> None:
        self.body = body
        self.lines = lines
        """The segments as text, in order, still escaped; never empty ones."""
        self.coding = coding
        self.flags = flags
        self._lines_of: dict[str, list[int]] = {}  # the line numbers of each name, once one is asked for
        self._segments: dict[str, Sequence[Segment]] = {}  # by name, as they are asked for
        self._first: dict[str, Segment] = {}  # the first of each name, an empty one where there is none

    def __repr__(self) -> str:
        return f"HL7Message({len(self.body)} bytes, {len(self.lines)} segments)"

    @property
    def delimiters(self) -> Delimiters:
        """The delimiters the message announces."""
        return self.coding.delimiters

    @property
    def codec(self) -> str:
        """The Python codec its bytes were read with."""
        return self.coding.codec

    def to_bytes(self) -> bytes:
        """Exactly the bytes that came."""
        return self.body

    def __iter__(self) -> Iterator[Segment]:
        """All segments in the order they came: for groups, such as the PID, PV1 pairs of A17."""
        found: dict[int, Segment] = {}
        for name, lines in self._index().items():
            found.update(zip(lines, self.segments(name), strict=True))
        return iter([found[line] for line in range(len(self.lines))])

    def segments(self, name: str) -> Sequence[Segment]:
        """The segments of that name in order."""
        found = self._segments.get(name)
        if found is None:
            lines = (self._lines_of or self._index()).get(name)
            found = self._segments[name] = self._read(name, lines) if lines else ()
        return found

    def segment(self, name: str) -> Segment:
        """The first segment of that name; an empty, false one where there is none."""
        found = self._first.get(name)
        if found is None:
            all_ = self.segments(name)
            found = self._first[name] = all_[0] if all_ else Segment(name, "", 0, self.coding)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._index()

    def get(self, path: str) -> str:
        """The text at a path such as ``PV1-19.1``, ``PID-3.4.2`` or ``ZPI-2``; the first of each, "" if absent."""
        name, field, component, part = read_path(path)
        segment = self.segment(name)
        if part:
            return segment[field].subcomponent(component, part)
        return segment.component(field, component) if component else segment[field].text

    def _read(self, name: str, lines: Sequence[int]) -> Sequence[Segment]:
        kind = HeaderSegment if name in _HEADERS else Segment
        return [kind(name, self.lines[line], number, self.coding) for number, line in enumerate(lines, 1)]

    def _index(self) -> dict[str, list[int]]:
        found = self._lines_of
        if not found:
            separator = self.coding.delimiters.field
            begin, alike = "", []  # how the line before began: segments of a name mostly follow each other
            for line, text in enumerate(self.lines):
                if not begin or not text.startswith(begin):
                    name, mark, _ = text.partition(separator)
                    begin, alike = name + mark, found.setdefault(name.strip(), [])
                alike.append(line)
        return found


def parse(body: bytes, charset_default: str = "") -> HL7Message:
    """The message in `body`, which may start with a byte order mark or blank lines.

    Segments end with CR, LF or CRLF, also mixed; a LF in a message that uses CR ends a segment only where a
    segment follows it, elsewhere it is data. `charset_default` counts where MSH-18 is empty. Raises
    SyntaxRefusedError, and nothing else, for bytes that are no HL7 v2 message.
    """
    start = _message_start(body)
    decoded = decode(body[start:] if start else body, _announced_charset(body, start), charset_default)
    lines = _lines(decoded.text)
    delimiters, flags = _delimiters_of(lines[0])
    return HL7Message(body, lines, coding_of(delimiters, decoded.codec), flags + decoded.flags)


_PATH: Final = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9]\d*)(?:\.([1-9]\d*)(?:\.([1-9]\d*))?)?", re.ASCII)


@lru_cache(maxsize=1024)
def read_path(path: str) -> tuple[str, int, int, int]:
    """Segment, field, component and subcomponent of a path, 0 where it names none. Raises ValueError for no path."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(f"{path!r} is no path: it is written like PID-3, PID-3.4 or PID-3.4.2")
    name, *numbers = match.groups()
    field, component, part = (int(number or 0) for number in numbers)
    return name, field, component, part


def _message_start(body: bytes) -> int:
    """Where MSH begins. Raises SyntaxRefusedError where it does not, or nothing can follow it."""
    start = 0
    if not body.startswith(b"MSH"):
        if body.startswith(_WIDE_BOMS):
            raise refuse("charset_unframeable", "The message is in UTF-16 or UTF-32")
        rest = body.removeprefix(_BOM).lstrip(_BLANK).removeprefix(_BOM)
        if not rest.startswith(b"MSH"):
            raise refuse("no_header", "The message does not start with an MSH segment")
        start = len(body) - len(rest)
    separator = body[start + 3 : start + 4]
    if not separator:
        raise refuse("no_header", "The message ends behind MSH")
    if body[start + 3] == 0:
        raise refuse("charset_unframeable", "The message is in UTF-16 or UTF-32")
    if not 0x20 < body[start + 3] < 0x7F:
        raise refuse("delimiters", "MSH-1 is no printable ASCII character", "MSH^1^1")
    return start


def _first_line_end(body: bytes, start: int) -> int:
    """Where the first segment ends, by the same rule as `_lines`."""
    end = body.find(b"\r", start)
    feed = body.find(b"\n", start, end if end >= 0 else len(body))
    if feed < 0:
        return end if end >= 0 else len(body)
    if end < 0:
        return feed
    match = _line_end_bytes(body[start + 3 : start + 4]).search(body, start)
    return match.start() if match else len(body)


def _announced_charset(body: bytes, start: int) -> bytes:
    """MSH-18 as bytes: it has to be known before anything can be decoded."""
    fields = body[start : _first_line_end(body, start)].split(body[start + 3 : start + 4], 18)
    return fields[17] if len(fields) > 17 else b""


def _delimiters_of(header: str) -> tuple[Delimiters, tuple[str, ...]]:
    separator = header[3]
    characters = header[4:].partition(separator)[0]
    flags = () if len(characters) >= len(STANDARD_CHARACTERS) else (Flag.DELIMITERS_MISSING,)
    return read_delimiters(separator, characters), flags


@lru_cache(maxsize=32)
def _line_end(separator: str) -> re.Pattern[str]:
    return re.compile(rf"\r\n?|\n(?=[A-Z][A-Z0-9]{{2}}{re.escape(separator)}|[\r\n]|\Z)")


@lru_cache(maxsize=32)
def _line_end_bytes(separator: bytes) -> re.Pattern[bytes]:
    return re.compile(_line_end(separator.decode("ascii")).pattern.encode())


def _lines(text: str) -> list[str]:
    """The segments of a message, without their ends and without blank lines."""
    if "\n" not in text:
        lines = text.split("\r")
    else:
        feeds = text.count("\n")
        returns = text.count("\r")
        if not returns:
            lines = text.split("\n")
        elif returns == feeds == text.count("\r\n"):
            lines = text.split("\r\n")
        else:
            lines = _line_end(text[3]).split(text)
    return [line for line in lines if line and not line.isspace()]
