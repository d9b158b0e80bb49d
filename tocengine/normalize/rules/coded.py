"""Owns coded values: CE and CWE fields as CodeableConcepts, their code systems, and EI fields as Identifiers."""

from tocengine.formats.fhir.facts import is_oid
from tocengine.formats.fhir.resources import (
    TERMINOLOGY,
    Json,
    Resource,
    coding,
    concept,
    identifier,
    local_system,
)
from tocengine.formats.hl7v2.datatypes import CWE, EI
from tocengine.formats.hl7v2.segments import Field
from tocengine.normalize.reading import Reading, clean

_OF_HL7 = "HL7"
_LOCAL = ("L", "99")
"""CWE-3 of a code of the sender's own (HL7 table 0396: L, and 99 with a name behind it)."""


def code_system(reading: Reading, named: str, path: str) -> str:
    """The URI of a coding system (table 0396); of one nobody knows a URI of the feed's own."""
    known = reading.codes.code_systems.get(named) or reading.codes.code_systems.get(named.upper())
    if known is not None:
        return known
    if named and not named.upper().startswith(_LOCAL):
        reading.unknown_code("diagnosis.system", named, f"{path}.3")
    return local_system("feed", reading.message.feed, path, *([named] if named else []))


def concept_in(reading: Reading, field: Field, path: str) -> Resource:
    """As `concept_of`, of a field."""
    return reading.once(_concept_in, field.raw, path) if field else {}


def _concept_in(reading: Reading, raw: str, path: str) -> Resource:
    return concept_of(reading, CWE.read(reading.field(raw)), path)


def concept_of(reading: Reading, coded: CWE, path: str) -> Resource:
    """A CodeableConcept of both codes of a value and its words; empty where it says nothing."""
    codings = []
    for code, text, system in (
        (coded.code, coded.text, coded.system),
        (coded.alternate_code, coded.alternate_text, coded.alternate_system),
    ):
        if code:
            codings.append(coding(_system(reading, system, path), " ".join(code.split()), " ".join(text.split())))
    return concept(*codings, text=coded.original_text or coded.text or coded.alternate_text)


def _system(reading: Reading, named: str, path: str) -> str:
    """As `code_system`; HL7's own tables are named by their number (``HL70230``)."""
    number = named.removeprefix(_OF_HL7)
    if number != named and len(number) == 4 and number.isascii() and number.isdigit():
        return f"{TERMINOLOGY}v2-{number}"
    return code_system(reading, named, path)


def instance(reading: Reading, field: Field, path: str) -> list[Json]:
    """The Identifier an EI field gives to one diagnosis, procedure or observation; none where it has no value."""
    if not field:
        return []
    found = EI.read(field)
    value = clean(found.value)
    if not value:
        return []
    if is_oid(found.universal_id):
        return [identifier("urn:oid:" + found.universal_id, value)]
    assigner = clean(found.namespace or found.universal_id)
    return [identifier(local_system("feed", reading.message.feed, path, *([assigner] if assigner else [])), value)]
