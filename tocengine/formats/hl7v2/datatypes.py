"""Owns the HL7 v2 data types the engine reads: each a frozen struct of plain, trimmed strings, "" where not stated.

A type reads itself from a repetition: ``[CX.read(each) for each in segment[3]]``. Components are those of
HL7 v2.5.1 chapter 2A; what later versions appended (XTN-12, XON-10) is read where it is there.
"""

from typing import Self

import msgspec

from tocengine.formats.hl7v2.segments import NULL, Coding, Repetition
from tocengine.model.remembering import remembered

_BLANKS = ("",) * 16


def _values(repetition: Repetition, count: int) -> list[str]:
    """Exactly `count` components, unescaped and trimmed."""
    raw, coding = repetition.raw, repetition.coding
    if coding.repetition in raw:
        raw = raw[: raw.index(coding.repetition)]
    parts = raw.split(coding.component, count)[:count]
    if NULL in raw or coding.escape in raw:
        values = [coding.unescape(part).strip() if part != NULL else "" for part in parts]
    else:
        values = [part.strip() for part in parts]
    values += _BLANKS[len(values) : count]
    return values


def _whole(repetition: Repetition, number: int, value: str) -> str:
    """The first part of component `number`, which is `value` as a whole: all of it where it has no parts."""
    return repetition.subcomponent(number, 1).strip() if repetition.coding.subcomponent in value else value


def _designators(repetition: Repetition, *numbers: int) -> list["HD"]:
    """The components of type HD with these numbers."""
    raw = repetition.components
    return [
        _designator(raw[number - 1], repetition.coding) if number <= len(raw) and raw[number - 1] else _NOBODY
        for number in numbers
    ]


class HD(msgspec.Struct, frozen=True, omit_defaults=True):
    """A hierarchic designator: who or what, by local name, by universal id, or both."""

    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""

    def __bool__(self) -> bool:
        return bool(self.namespace or self.universal_id)

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a field of type HD."""
        return cls(*_values(repetition, 3))


_NOBODY = HD()


@remembered(4096)
def _designator(raw: str, coding: Coding) -> HD:
    """A component of type HD, whose parts are subcomponents; the same few come in every message."""
    if raw == NULL:
        return _NOBODY
    return HD(*(part.strip() for part in coding.subcomponents(raw)[:3]))


class CX(msgspec.Struct, frozen=True, omit_defaults=True):
    """An identifier with its check digit, assigning authority and type (table 0203)."""

    value: str = ""
    check_digit: str = ""
    check_scheme: str = ""
    authority: HD = HD()
    type: str = ""
    facility: HD = HD()
    effective: str = ""
    expires: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of a CX field."""
        value = _values(repetition, 8)
        authority, facility = _designators(repetition, 4, 6)
        return cls(value[0], value[1], value[2], authority, value[4], facility, value[6], value[7])


class EI(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entity identifier, such as ZBE-1 or a profile in MSH-21."""

    value: str = ""
    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of an EI field."""
        return cls(*_values(repetition, 4))


class XPN(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person's name; `type` is of table 0200 (L legal, A alias, N nickname, ...)."""

    family: str = ""
    given: str = ""
    further_given: str = ""
    suffix: str = ""
    prefix: str = ""
    degree: str = ""
    type: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of an XPN field. Of a family name in parts (FN) the first is the whole surname."""
        value = _values(repetition, 7)
        value[0] = _whole(repetition, 1, value[0])
        return cls(*value)


class XCN(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person with an identifier: the practitioners of PV1, PD1, ROL."""

    value: str = ""
    family: str = ""
    given: str = ""
    further_given: str = ""
    suffix: str = ""
    prefix: str = ""
    degree: str = ""
    source_table: str = ""
    authority: HD = HD()
    name_type: str = ""
    check_digit: str = ""
    check_scheme: str = ""
    type: str = ""
    facility: HD = HD()

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of an XCN field (CN of v2.1-v2.2 reads alike as far as it goes)."""
        value = _values(repetition, 14)
        authority, facility = _designators(repetition, 9, 14)
        return cls(
            value=value[0],
            family=_whole(repetition, 2, value[1]),
            given=value[2],
            further_given=value[3],
            suffix=value[4],
            prefix=value[5],
            degree=value[6],
            source_table=value[7],
            authority=authority,
            name_type=value[9],
            check_digit=value[10],
            check_scheme=value[11],
            type=value[12],
            facility=facility,
        )


class XON(msgspec.Struct, frozen=True, omit_defaults=True):
    """An organization; its identifier is component 10 since v2.5 and was the number in component 3."""

    name: str = ""
    name_type: str = ""
    value: str = ""
    check_digit: str = ""
    check_scheme: str = ""
    authority: HD = HD()
    type: str = ""
    facility: HD = HD()

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of an XON field."""
        value = _values(repetition, 10)
        authority, facility = _designators(repetition, 6, 8)
        return cls(value[0], value[1], value[9] or value[2], value[3], value[4], authority, value[6], facility)


class XAD(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address; `type` is of table 0190."""

    street: str = ""
    other: str = ""
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    type: str = ""
    geographic: str = ""
    county: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of an XAD field. A street given in parts (SAD: line, name, number) keeps its line."""
        value = _values(repetition, 9)
        value[0] = _whole(repetition, 1, value[0])
        return cls(*value)


class XTN(msgspec.Struct, frozen=True, omit_defaults=True):
    """A telephone number or address of another medium; `use` is of table 0201, `equipment` of 0202."""

    number: str = ""
    use: str = ""
    equipment: str = ""
    email: str = ""
    country_code: str = ""
    area_code: str = ""
    local_number: str = ""
    extension: str = ""
    note: str = ""
    unformatted: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of an XTN field."""
        value = _values(repetition, 12)
        return cls(*[*value[:9], value[11]])


class PL(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person location: unit, room, bed and the facility they are in."""

    unit: str = ""
    room: str = ""
    bed: str = ""
    facility: HD = HD()
    status: str = ""
    type: str = ""
    building: str = ""
    floor: str = ""
    description: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of a PL field. Unit, room and bed are HDs since v2.6; their first part is read."""
        value = _values(repetition, 9)
        (facility,) = _designators(repetition, 4)
        return cls(
            unit=_whole(repetition, 1, value[0]),
            room=_whole(repetition, 2, value[1]),
            bed=_whole(repetition, 3, value[2]),
            facility=facility,
            status=value[4],
            type=value[5],
            building=value[6],
            floor=value[7],
            description=value[8],
        )


class DLD(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a patient was discharged to (PV1-37). `location` is free text or a code, an ampersand part of it."""

    location: str = ""
    effective: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of a DLD field."""
        return cls(*_values(repetition, 2))


class CWE(msgspec.Struct, frozen=True, omit_defaults=True):
    """A coded value with exceptions; reads CE as well, and an IS or ID value as its code."""

    code: str = ""
    text: str = ""
    system: str = ""
    alternate_code: str = ""
    alternate_text: str = ""
    alternate_system: str = ""
    original_text: str = ""

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of a CE or CWE field."""
        value = _values(repetition, 9)
        return cls(value[0], value[1], value[2], value[3], value[4], value[5], value[8])

    @property
    def label(self) -> str:
        """What to show a person: text, else original text, else the alternate one."""
        return self.text or self.original_text or self.alternate_text


class TS(msgspec.Struct, frozen=True, omit_defaults=True):
    """A time stamp as sent (TS, DTM, DT); `time.read_time` makes a point in time of it."""

    text: str = ""
    degree: str = ""  # v2.2: Y, L, D, H, M, S limit the precision

    @classmethod
    def read(cls, repetition: Repetition) -> Self:
        """From a repetition of a TS or DTM field."""
        return cls(*_values(repetition, 2))

    @property
    def stated(self) -> str:
        """The text cut down to the stated degree of precision."""
        kept = {"Y": 4, "L": 6, "D": 8, "H": 10, "M": 12, "S": 14}.get(self.degree.upper())
        if kept is None or len(self.text) <= kept or not self.text[:kept].isdigit():
            return self.text
        sign = max(self.text.rfind("+"), self.text.rfind("-"))
        return self.text[:kept] + (self.text[sign:] if sign >= kept and kept > 8 else "")
