"""Owns the reading of one HL7 v2 message: lazy and lossless, it splits what is asked for and keeps the bytes that came.

    message = parse(body)
    message.segment("PV1")[19].component(1)              # "V500"; an absent segment or field reads as empty
    for repetition in message.segment("PID")[3]: ...      # valued repetitions, in order
    message.to_bytes() == body

Numbers are those of the standard, from 1; MSH-1 is the field separator. Values are unescaped on access.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from tocengine.formats.hl7v2.encoding import (
    STANDARD_CHARACTERS,
    Delimiters,
    Flag,
    decode,
    read_delimiters,
    refuse,
    unescape,
)

NULL: Final = '""'
"""A field sent as two quotation marks: delete what is known (HL7 v2.5.1 section 2.5.3)."""
_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n\x00"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00M", b"M\x00", b"\x00\x00")
_HEADERS: Final = ("MSH", "FHS", "BHS")


_UNUSED: Final = "\r"  # stands for a delimiter that is not in use: no segment contains a CR


class Coding:
    """What it takes to read a value: the message's delimiters and the codec of its bytes. Alike messages share one."""

    __slots__ = ("absent", "codec", "component", "delimiters", "escape", "repetition", "subcomponent")

    def __init__(self, delimiters: Delimiters, codec: str) -> None:
        self.delimiters = delimiters
        self.codec = codec
        self.component = delimiters.component or _UNUSED
        self.repetition = delimiters.repetition or _UNUSED
        self.escape = delimiters.escape or _UNUSED
        self.subcomponent = delimiters.subcomponent or _UNUSED
        self.absent = Field("", self)
        """The field that was not sent."""

    def unescape(self, raw: str) -> str:
        """`raw` with its escape sequences resolved."""
        return unescape(raw, self.delimiters, self.codec) if self.escape in raw else raw


class Repetition:
    """One occurrence of a field. True if it holds a value; ``""`` and nothing are both false, see `null`."""

    __slots__ = ("_components", "coding", "raw")

    def __init__(self, raw: str, coding: Coding) -> None:
        self.raw = raw
        self.coding = coding
        self._components: list[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.raw) and self.raw != NULL

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.raw)} characters)"  # values may be PHI

    @property
    def null(self) -> bool:
        """Sent as ``""``: delete what is known."""
        return self.raw == NULL

    @property
    def empty(self) -> bool:
        """Not sent at all: keep what is known."""
        return not self.raw

    @property
    def text(self) -> str:
        """The whole as one string (types ST, IS, ID, NM, TX): separators in it are text, nothing is cut off."""
        return "" if self.raw == NULL else self.coding.unescape(self.raw)

    @property
    def components(self) -> list[str]:
        """The components as sent, still escaped; of a field, those of its first repetition."""
        if self._components is None:
            coding = self.coding
            raw = self.raw
            if coding.repetition in raw:
                raw = raw[: raw.index(coding.repetition)]
            self._components = raw.split(coding.component)
        return self._components

    def component(self, number: int) -> str:
        """Component `number`; "" where it is absent or ``""``. A subcomponent separator in it is text."""
        components = self._components or self.components
        if number > len(components):
            return ""
        raw = components[number - 1]
        if self.coding.escape in raw:
            return self.coding.unescape(raw)
        return "" if raw == NULL else raw

    def subcomponents(self, number: int) -> list[str]:
        """The subcomponents of component `number`, at least one."""
        components = self._components or self.components
        raw = components[number - 1] if number <= len(components) else ""
        unescape = self.coding.unescape
        return ["" if part == NULL else unescape(part) for part in raw.split(self.coding.subcomponent)]

    def subcomponent(self, number: int, part: int) -> str:
        """Subcomponent `part` of component `number`; "" where it is absent."""
        parts = self.subcomponents(number)
        return parts[part - 1] if part <= len(parts) else ""


class Field(Repetition):
    """A field. Read as one value it is its first repetition; `text` alone is the whole field. Iterate over its
    valued repetitions, or take `repetitions` for all of them, blanks included."""

    __slots__ = ()

    @property
    def repetitions(self) -> list[Repetition]:
        """All repetitions in order, blank ones included; none if the field is empty or ``""``."""
        if not self:
            return []
        if self.coding.repetition in self.raw:
            return [Repetition(raw, self.coding) for raw in self.raw.split(self.coding.repetition)]
        return [self]

    def __iter__(self) -> Iterator[Repetition]:
        return iter([repetition for repetition in self.repetitions if repetition])


class Segment:
    """A segment, with the number it has among those of its name. Empty and false where the message has none."""

    __slots__ = ("_fields", "coding", "name", "occurrence", "raw")

    def __init__(self, name: str, raw: str, occurrence: int, coding: Coding) -> None:
        self.name = name
        self.raw = raw
        self.occurrence = occurrence
        self.coding = coding
        self._fields: list[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.raw)

    def __repr__(self) -> str:
        return f"Segment({self.name!r}, {self.occurrence})"

    def _split(self) -> list[str]:
        separator = self.coding.delimiters.field
        fields = self.raw.split(separator)
        if self.name in _HEADERS:  # MSH-1 is the separator itself
            fields.insert(1, separator)
        return fields

    def __len__(self) -> int:
        """The number of the last field sent."""
        if self._fields is None:
            self._fields = self._split()
        return len(self._fields) - 1

    def __getitem__(self, number: int) -> Field:
        """Field `number`, empty where it was not sent."""
        fields = self._fields
        if fields is None:
            fields = self._fields = self._split()
        if number <= 2:
            if number < 1:
                raise IndexError("fields are numbered from 1")
            if self.name in _HEADERS and number < len(fields):  # delimiters are no components of themselves
                return Field(fields[number], _coding(_NO_DELIMITERS, self.coding.codec))
        raw = fields[number] if number < len(fields) else ""
        return Field(raw, self.coding) if raw else self.coding.absent

    def component(self, number: int, component: int) -> str:
        """What ``self[number].component(component)`` is, at half its cost: most reads are of one component."""
        fields = self._fields
        if fields is None:
            fields = self._fields = self._split()
        if number <= 2 or number >= len(fields):
            return self[number].component(component)
        raw = fields[number]
        coding = self.coding
        if coding.repetition in raw:
            raw = raw[: raw.index(coding.repetition)]
        if coding.component in raw:
            parts = raw.split(coding.component, component)
            raw = parts[component - 1] if component <= len(parts) else ""
        elif component > 1:
            return ""
        if coding.escape in raw:
            return coding.unescape(raw)
        return "" if raw == NULL else raw

    def location(self, field: int, component: int = 0, *, repetition: int = 1) -> str:
        """Where a field is, as in ERR-2 and `Problem.location`: ``PID^1^3^1^4`` (HL7 type ERL)."""
        parts = [self.name, max(self.occurrence, 1), field]
        if component or repetition > 1:
            parts.append(repetition)
        if component:
            parts.append(component)
        return "^".join(map(str, parts))


_NO_DELIMITERS: Final = Delimiters("", "", "", "", "", "")


@lru_cache(maxsize=256)
def _coding(delimiters: Delimiters, codec: str) -> Coding:
    return Coding(delimiters, codec)


class HL7Message:
    """One parsed message. `flags` names what was odd about its encoding (`encoding.Flag`)."""

    __slots__ = ("_first", "_names", "_segments", "body", "coding", "flags", "lines")

    def __init__(self, body: bytes, lines: list[str], coding: Coding, flags: tuple[str, ...]) -> None:
        self.body = body
        self.lines = lines
        """The segments as text, in order, still escaped; never empty ones."""
        self.coding = coding
        self.flags = flags
        self._names: list[str] | None = None  # of each line
        self._segments: dict[int, Segment] = {}  # by line number, as they are asked for
        self._first: dict[str, Segment] = {}  # by name, as they are asked for

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
        seen: Counter[str] = Counter()
        for line, name in enumerate(self._line_names()):
            seen[name] += 1
            yield self._segment(name, seen[name], line)

    def segments(self, name: str) -> list[Segment]:
        """The segments of that name in order."""
        names = self._line_names()
        if name not in names:
            return []
        places = [line for line, each in enumerate(names) if each == name]
        return [self._segment(name, occurrence, line) for occurrence, line in enumerate(places, 1)]

    def segment(self, name: str) -> Segment:
        """The first segment of that name; an empty, false one where there is none."""
        found = self._first.get(name)
        if found is None:
            names = self._line_names()
            found = self._segment(name, 1, names.index(name)) if name in names else Segment(name, "", 0, self.coding)
            self._first[name] = found
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._line_names()

    def get(self, path: str) -> str:
        """The text at a path such as ``PV1-19.1``, ``PID-3.4.2`` or ``ZPI-2``; the first of each, "" if absent."""
        name, field, component, part = read_path(path)
        segment = self.segment(name)
        if part:
            return segment[field].subcomponent(component, part)
        return segment.component(field, component) if component else segment[field].text

    def _segment(self, name: str, occurrence: int, line: int) -> Segment:
        segment = self._segments.get(line)
        if segment is None:
            segment = self._segments[line] = Segment(name, self.lines[line], occurrence, self.coding)
        return segment

    def _line_names(self) -> list[str]:
        if self._names is None:  # a list is searched as fast as a dict is built: messages are short, reads few
            separator = self.coding.delimiters.field
            self._names = [line.partition(separator)[0].strip() for line in self.lines]
        return self._names


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
    return HL7Message(body, lines, _coding(delimiters, decoded.codec), flags + decoded.flags)


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
