"""Owns what a message says of privacy: marks by which a sender asks for care with what is told (domain 1.3).

Each that stands is a flag, and among the facts of patient or visit with what it does for this feed (`privacy_marks`);
routing acts on it. A mark that was lifted (``N``, ``""``) says so, for a message that is silent keeps what is known.
"""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.facts import EncounterFacts, Mark, Marks, PatientFacts
from tocengine.model.profile import PRIVACY_MARKS
from tocengine.normalize.reading import Reading

_NO = frozenset({"N", "NO", "0"})
_PUBLIC = frozenset({"U", "N/A"})
FIELDS = (
    ("PD1", 12, Mark.PROTECTION),
    ("PV2", 22, Mark.VISIT_PROTECTION),
    ("PD1", 11, Mark.PUBLICITY),
    ("PV2", 21, Mark.VISIT_PUBLICITY),
    ("PV1", 16, Mark.VIP),
    ("MSH", 8, Mark.SECURITY),
    ("MSH", 26, Mark.CLASSIFICATION),
)
NOTHING = {
    Mark.PROTECTION: _NO,
    Mark.VISIT_PROTECTION: _NO,
    Mark.PUBLICITY: _PUBLIC,
    Mark.VISIT_PUBLICITY: _PUBLIC,
    Mark.VIP: _NO,
    Mark.CLASSIFICATION: frozenset("LMNU"),
}
"""Codes that ask for no care: of yes and no, of table 0215 (publicity) and of 0952 (all but restricted and very
restricted). Whatever else a field says asks for it, as a code of the site's own or a yes spelled out."""
_ALL = frozenset({"", "ALL"})
_OPEN = frozenset({"NO", "OI"})
"""Access restrictions (ARV-3, table 0717) that restrict nothing."""
_DENIED = frozenset({"R", "X", "L"})
"""Consents (CON-11, table 0498) that are refused, rescinded or limited."""
_OF_PATIENT = frozenset({Mark.PUBLICITY, Mark.PROTECTION})


def read(
    reading: Reading, patient: PatientFacts, visit: EncounterFacts | UnsetType
) -> tuple[PatientFacts, EncounterFacts | UnsetType]:
    """The facts with the marks of the message; flags ``privacy:FIELD``, ``privacy:ARV`` and ``privacy:CON``."""
    found = dict(_fields(reading))
    found.update(_segments(reading))
    if not found:
        return patient, visit
    effects = {**PRIVACY_MARKS, **reading.source.profile.privacy_marks}
    marks: Marks = {mark: effects[mark] if stands else None for mark, stands in found.items()}
    for mark, stands in found.items():
        if stands:
            reading.flag(f"privacy:{mark}")
    if visit is UNSET:
        return msgspec.structs.replace(patient, marks=marks), visit
    of_patient: Marks = {mark: effect for mark, effect in marks.items() if mark in _OF_PATIENT}
    of_visit: Marks = {mark: effect for mark, effect in marks.items() if mark not in _OF_PATIENT}
    return (
        msgspec.structs.replace(patient, marks=of_patient) if of_patient else patient,
        msgspec.structs.replace(visit, marks=of_visit) if of_visit else visit,
    )


def _fields(reading: Reading) -> Iterator[tuple[Mark, bool]]:
    for name, number, mark in FIELDS:
        field = reading.segment(name)[number]
        if not field.raw:
            continue
        said = {code for each in field if (code := each.component(1).strip().upper())}
        if said or field.null:
            yield mark, not said <= NOTHING.get(mark, frozenset())


def _segments(reading: Reading) -> Iterator[tuple[Mark, bool]]:
    if restrictions := reading.segments("ARV"):
        if any(map(_restricts, restrictions)):
            yield Mark.RESTRICTION, True
        elif all(map(_opens, restrictions)):
            yield Mark.RESTRICTION, False
    if consents := reading.segments("CON"):
        reading.flag("privacy:CON")
        stated = [segment.code(11).upper() for segment in consents]
        if any(status in _DENIED for status in stated):
            yield Mark.CONSENT, True
        elif all(status == "A" for status in stated):
            yield Mark.CONSENT, False


def _restricts(segment: Segment) -> bool:
    """One that is not deleted (ARV-2 D), and whose value restricts; one without a value is taken at its word."""
    return segment.code(2).upper() != "D" and segment.code(3).upper() not in _OPEN


def _opens(segment: Segment) -> bool:
    """One that leaves no restriction: another may stand beside a single one that is deleted."""
    return segment.code(3).upper() in (_OPEN if segment.code(2).upper() != "D" else _ALL)
