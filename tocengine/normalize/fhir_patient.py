"""Owns what a FHIR Patient says: the key it is known by, its names and demographics, and its primary care."""

from msgspec import UNSET

from tocengine.formats.fhir.resources import Resource
from tocengine.model.facts import Address, PatientFacts, is_nobodys_birth, told_address
from tocengine.model.identity import Identifier, Organization, PatientKey, Practitioner
from tocengine.normalize.codes import Codes, IdentifierType
from tocengine.normalize.fhir_values import (
    SSN,
    Reader,
    SentIdentifier,
    identifiers_of,
    names_of,
    objects,
    text_of,
    texts,
)

_SEXES = frozenset({"male", "female", "other", "unknown"})


def read_patient(reader: Reader) -> tuple[PatientKey | None, PatientFacts]:
    """The patient's key, None without a usable identifier, and the facts. What is absent is not stated."""
    patient = reader.notification.patient
    sent = [number for number in identifiers_of(patient) if is_kept(number, reader.codes)]
    identifiers = tuple(reader.identifier(number) for number in sent if number.system)
    names = tuple(names_of(patient))
    sex = text_of(patient, "gender")
    birth_date = text_of(patient, "birthDate")
    if birth_date and is_nobodys_birth(birth_date, reader.received_at):
        reader.flag("implausible:Patient.birthDate")
    deceased_at = reader.time(patient.get("deceasedDateTime"))
    deceased = True if deceased_at else patient.get("deceasedBoolean")
    phones = tuple(
        number
        for item in objects(patient.get("telecom"))
        if item.get("system") == "phone" and item.get("use") != "old" and (number := text_of(item, "value"))
    )
    address = told_address((text_of(each, "use"), _address(each)) for each in objects(patient.get("address")))
    pcp, practices = _primary_care(patient, reader)
    return _key(sent, reader), PatientFacts(
        identifiers=identifiers or UNSET,
        names=names or UNSET,
        birth_date=birth_date or UNSET,
        sex=sex if sex in _SEXES else UNSET,
        deceased=deceased if isinstance(deceased, bool) else UNSET,
        deceased_at=deceased_at or UNSET,
        phones=phones or UNSET,
        address=address or UNSET,
        pcp=pcp or UNSET,
        pcp_practices=practices or UNSET,
    )


def identifier_row(kind: str, codes: Codes) -> IdentifierType:
    """What an identifier of this type (HL7 table 0203) is to the engine; rank 0 names no patient record."""
    return codes.identifier_types.get(kind) or codes.identifier_types["*"]


def is_kept(number: SentIdentifier, codes: Codes) -> bool:
    """False for social security and account numbers, and for placeholders: never stored, never shown."""
    return (
        number.system not in SSN and identifier_row(number.type, codes).keep and not codes.is_placeholder(number.value)
    )


def _key(sent: list[SentIdentifier], reader: Reader) -> PatientKey | None:
    """The medical record number of a configured domain, else the best of the patient numbers that say their system.

    One that no longer counts (use `old`) only where there is no other.
    """
    usable = [number for number in sent if number.system and identifier_row(number.type, reader.codes).rank]

    def standing(number: SentIdentifier) -> tuple[bool, bool, int]:
        is_record = number.type in ("MR", "") and reader.domain(number.system) is not None
        return number.use == "old", not is_record, identifier_row(number.type, reader.codes).rank

    chosen = min(usable, key=standing, default=None)
    if chosen is None:
        return None
    known: Identifier = reader.identifier(chosen)
    return PatientKey(known.domain, known.value)


def _address(sent: Resource) -> Address:
    return Address(
        lines=tuple(line for line in texts(sent.get("line")) if line),
        city=text_of(sent, "city"),
        state=text_of(sent, "state"),
        postal_code=text_of(sent, "postalCode"),
    )


def _primary_care(patient: Resource, reader: Reader) -> tuple[tuple[Practitioner, ...], tuple[Organization, ...]]:
    people: list[Practitioner] = []
    practices: list[Organization] = []
    for reference in objects(patient.get("generalPractitioner")):
        reader.flag_unresolved(reference, "Patient.generalPractitioner")
        if practice := reader.organization(reference):
            practices.append(practice)
        elif person := reader.practitioner(reference):
            people.append(person)
    return tuple(people), tuple(practices)
