"""Owns which ROL and PRT count and for what: by their action, their period and what they stand behind (domain 2.3)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules import header

_OWNERS = {"ROL": ("PID", "PV1", "PR1", "IN1"), "PRT": ("PID", "PV1", "PR1", "IN1", "OBX")}
"""What people may belong to: the last of these in front of their segment."""
_REMOVING = frozenset({"DE", "UN"})
"""Actions of table 0287 that take somebody out of a role: delete, unlink."""


class Fields(NamedTuple):
    """Numbers of the fields that ROL and PRT have in common (HL7 v2-to-FHIR, ROL and PRT)."""

    role: int
    person: int
    begin: int
    end: int
    addresses: int
    telecom: int


FIELDS = {"ROL": Fields(3, 4, 5, 6, 11, 12), "PRT": Fields(4, 5, 11, 12, 14, 15)}


class Role(NamedTuple):
    """A ROL or PRT: `owner` is the segment it stands behind, None without one; `removes` where it takes away."""

    segment: Segment
    fields: Fields
    code: str
    owner: Segment | None
    removes: bool

    def behind(self, *names: str) -> bool:
        """Whether it belongs to a segment with one of these names."""
        return self.owner is not None and self.owner.name in names

    @property
    def path(self) -> str:
        """Where its person stands."""
        return f"{self.segment.name}-{self.fields.person}"


def roles(reading: Reading) -> Iterable[Role]:
    """The ROL, then the PRT, that name somebody."""
    named = (*reading.segments("ROL"), *reading.segments("PRT"))
    return _roles(reading, named) if named else ()


def _roles(reading: Reading, named: Sequence[Segment]) -> Iterator[Role]:
    owners = _owned(reading)
    for segment in named:
        fields = FIELDS[segment.name]
        if segment[fields.person]:
            removes = segment.code(2).upper() in _REMOVING
            yield Role(segment, fields, segment.code(fields.role).upper(), owners.get(id(segment)), removes)


def _owned(reading: Reading) -> dict[int, Segment | None]:
    """By identity of the ROL or PRT: what it stands behind."""
    found: dict[int, Segment | None] = {}
    last: dict[str, Segment] = {}
    for segment in reading.ordered():
        if segment.name in _OWNERS:
            found[id(segment)] = last.get(segment.name)
        for kind, owners in _OWNERS.items():
            if segment.name in owners:
                last[kind] = segment
    return found


def period(reading: Reading, role: Role) -> tuple[Timestamp | None, Timestamp | None]:
    """From when and until when somebody has the role, as far as it is stated."""
    begin, end = (
        reading.time(role.segment[number], f"{role.segment.name}-{number}")
        for number in (role.fields.begin, role.fields.end)
    )
    return (begin if isinstance(begin, Timestamp) else None), (end if isinstance(end, Timestamp) else None)


def in_force(reading: Reading, role: Role) -> bool:
    """Whether the role has begun and not ended when the message was recorded; at a discharge, when that happened."""
    begin, end = period(reading, role)
    if begin is None and end is None:
        return True
    event = reading.segment("EVN")
    recorded = header.read_recorded(reading, reading.segment("MSH"), event)
    left = (header.read_effective(reading, event) if reading.trigger == "A03" else None) or recorded
    return (begin is None or fhir.in_order(begin, recorded)) and (end is None or fhir.in_order(left, end))
