"""Owns what is read in a message: segments, fields, repetitions, components. Lazy: it splits what is asked for.

Numbers are those of the standard, from 1. Values are unescaped on access.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Final

from tocengine.formats.hl7v2.encoding import Delimiters, unescape

NULL: Final = '""'
"""A field sent as two quotation marks: delete what is known (HL7 v2.5.1 section 2.5.3)."""
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

    def subcomponents(self, raw: str) -> list[str]:
        """The subcomponents of a component as sent, at least one."""
        return ["" if part == NULL else self.unescape(part) for part in raw.split(self.subcomponent)]


def _component(raw: str, coding: Coding, number: int) -> str:
    """Component `number` of the first repetition in `raw`; "" where it is absent or ``""``."""
    if coding.repetition in raw:
        raw = raw[: raw.index(coding.repetition)]
    if coding.component in raw:
        parts = raw.split(coding.component, number)
        raw = parts[number - 1] if number <= len(parts) else ""
    elif number > 1:
        return ""
    if coding.escape in raw:
        return coding.unescape(raw)
    return "" if raw == NULL else raw


class Repetition:
    """One occurrence of a field. True if it holds a value; ``""`` and nothing are both false, see `null`."""

    __slots__ = ("coding", "raw")

    def __init__(self, raw: str, coding: Coding) -> None:
        self.raw = raw
        self.coding = coding

    def __bool__(self) -> bool:
        return self.raw != "" and self.raw != NULL

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
        raw = self.raw
        if self.coding.repetition in raw:
            raw = raw[: raw.index(self.coding.repetition)]
        return raw.split(self.coding.component)

    def component(self, number: int) -> str:
        """Component `number`; "" where it is absent or ``""``. A subcomponent separator in it is text."""
        return _component(self.raw, self.coding, number) if self.raw else ""

    def subcomponents(self, number: int) -> list[str]:
        """The subcomponents of component `number`, at least one."""
        components = self.components
        raw = components[number - 1] if number <= len(components) else ""
        return self.coding.subcomponents(raw)

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
        raw = self.raw
        if not raw or raw == NULL:
            return iter(())
        if self.coding.repetition not in raw:
            return iter((self,))
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
        self._fields = self.raw.split(self.coding.delimiters.field)
        return self._fields

    def __len__(self) -> int:
        """The number of the last field sent."""
        return len(self._fields or self._split()) - 1

    def __getitem__(self, number: int) -> Field:
        """Field `number`, empty where it was not sent."""
        fields = self._fields or self._split()
        if number >= len(fields):
            return self.coding.absent
        if number < 1:
            raise IndexError("fields are numbered from 1")
        raw = fields[number]
        return Field(raw, self.coding) if raw else self.coding.absent

    def component(self, number: int, component: int) -> str:
        """What ``self[number].component(component)`` is, at half its cost: most reads are of one component."""
        fields = self._fields or self._split()
        raw = fields[number] if number < len(fields) else ""
        return _component(raw, self.coding, component) if raw else ""

    def code(self, number: int) -> str:
        """The code in field `number`: its first component, without blanks around it."""
        fields = self._fields or self._split()
        raw = fields[number] if number < len(fields) else ""
        return _component(raw, self.coding, 1).strip() if raw else ""

    def sent_as(self, number: int) -> str:
        """Field `number` as sent, all repetitions, still escaped; "" where it was not sent.

        Of most results nothing else is asked, so the rest of the segment is not split for it.
        """
        fields = self._fields or self.raw.split(self.coding.delimiters.field, number + 1)
        return fields[number] if number < len(fields) else ""

    def sent(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """The fields as sent, all repetitions, still escaped: what tells whether two segments say the same in them."""
        fields = self._fields or self._split()
        return tuple([fields[number] if number < len(fields) else "" for number in numbers])

    def only(self, numbers: Collection[int]) -> "Segment":
        """The segment as if these fields alone had been sent."""
        fields = self._fields or self._split()
        kept = [each if number in numbers or not number else "" for number, each in enumerate(fields)]
        return Segment(self.name, self.coding.delimiters.field.join(kept), self.occurrence, self.coding)

    def location(self, field: int, component: int = 0, *, repetition: int = 1) -> str:
        """Where a field is, as in ERR-2 and `Problem.location`: ``PID^1^3^1^4`` (HL7 type ERL)."""
        parts = [self.name, max(self.occurrence, 1), field]
        if component or repetition > 1:
            parts.append(repetition)
        if component:
            parts.append(component)
        return "^".join(map(str, parts))


class HeaderSegment(Segment):
    """MSH, FHS or BHS: its first field is the field separator, its second the other delimiters, which are no
    components of themselves."""

    __slots__ = ()

    def _split(self) -> list[str]:
        separator = self.coding.delimiters.field
        fields = super()._split()
        fields.insert(1, separator)
        return fields

    def __getitem__(self, number: int) -> Field:
        """Field `number`, as of any segment."""
        found = super().__getitem__(number)
        return Field(found.raw, coding_of(_NO_DELIMITERS, self.coding.codec)) if number <= 2 else found

    def sent_as(self, number: int) -> str:
        """Field `number` as sent, as of any segment."""
        return self[number].raw

    def component(self, number: int, component: int) -> str:
        """Component `component` of field `number`, as of any segment."""
        return self[number].component(component) if number <= 2 else super().component(number, component)


_NO_DELIMITERS: Final = Delimiters("", "", "", "", "", "")


@lru_cache(maxsize=256)
def coding_of(delimiters: Delimiters, codec: str) -> Coding:
    return Coding(delimiters, codec)
