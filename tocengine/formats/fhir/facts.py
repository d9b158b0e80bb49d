"""Owns how the engine's facts are written as FHIR R4: names, people, places, and the class of an encounter.

The normalizer writes an event's resources with it and the notification writes the tracked encounter with it, so
that both say the same thing in the same words and under the same ids.
"""

from collections.abc import Mapping

from msgspec import UnsetType

from tocengine.formats.fhir.ids import facility_id, resource_id
from tocengine.formats.fhir.resources import (
    ACT_CODE,
    CCN,
    DISCHARGE_DISPOSITION,
    NPI,
    NUBC_DISPOSITION,
    NULL_FLAVOR,
    TERMINOLOGY,
    US_CORE,
    Json,
    Resource,
    coding,
    concept,
    identifier,
    identifier_type,
    local_system,
    profiled,
    reference,
)
from tocengine.model.encounter import EncounterState
from tocengine.model.facts import Address, Location, PatientClass, PersonName
from tocengine.model.identity import Identifier, Organization, PatientKey, Practitioner
from tocengine.model.profile import IdentifierDomain, SendingFacility
from tocengine.model.time import Timestamp

_V2_CLASS = TERMINOLOGY + "v2-0004"
_OF_NO_KIND = frozenset("CNU")  # commercial account, not applicable, unknown

ENCOUNTER_CLASS: Mapping[PatientClass, Resource] = {
    PatientClass.EMERGENCY: coding(ACT_CODE, "EMER"),
    PatientClass.INPATIENT: coding(ACT_CODE, "IMP"),
    PatientClass.OBSERVATION: coding(ACT_CODE, "OBSENC"),
    PatientClass.OUTPATIENT: coding(ACT_CODE, "AMB"),
    PatientClass.PREADMIT: coding(ACT_CODE, "PRENC"),
    PatientClass.NEWBORN: coding(ACT_CODE, "IMP"),  # born here and lying here; the raw code is beside it in facts
    PatientClass.RECURRING: coding(_V2_CLASS, "R"),
    PatientClass.OBSTETRICS: coding(_V2_CLASS, "B"),
    PatientClass.UNKNOWN: coding(NULL_FLAVOR, "UNK"),
}
"""Encounter.class of each canonical class. R and B have no v3 code and keep their own (HL7 v2-to-FHIR table 0004)."""

ENCOUNTER_TYPE: Mapping[PatientClass, str] = {
    PatientClass.EMERGENCY: "Emergency department visit",
    PatientClass.INPATIENT: "Inpatient stay",
    PatientClass.OBSERVATION: "Observation stay",
    PatientClass.OUTPATIENT: "Outpatient visit",
    PatientClass.PREADMIT: "Planned admission",
    PatientClass.NEWBORN: "Newborn stay",
    PatientClass.RECURRING: "Recurring visit",
    PatientClass.OBSTETRICS: "Obstetric visit",
    PatientClass.UNKNOWN: "Hospital encounter",
}
"""US Core demands Encounter.type; ADT has none, so it says in words what the class says."""

ENCOUNTER_STATUS: Mapping[EncounterState, str] = {
    EncounterState.NONE: "unknown",
    EncounterState.PREADMIT: "planned",
    EncounterState.REGISTERED: "in-progress",
    EncounterState.ED: "in-progress",
    EncounterState.OBSERVATION: "in-progress",
    EncounterState.INPATIENT: "in-progress",
    EncounterState.ON_LEAVE: "onleave",
    EncounterState.DISCHARGED: "finished",
    EncounterState.CANCELLED: "cancelled",
    EncounterState.MERGED: "entered-in-error",
}
"""Encounter.status of each tracked state."""


def encounter_class(patient_class: PatientClass, sent: str, feed: str) -> Resource:
    """Encounter.class. A class that says nothing of the kind of visit keeps the code as `sent`: in HL7's system where
    it is of table 0004 (domain 4.2), else in one of the feed's own."""
    code = " ".join(sent.split())
    if patient_class is PatientClass.UNKNOWN and code.upper() in _OF_NO_KIND:
        return coding(_V2_CLASS, code.upper())
    if patient_class is PatientClass.UNKNOWN and code:
        return coding(local_system("feed", feed, "PV1-2"), code)
    return ENCOUNTER_CLASS[patient_class]


def in_order(start: Timestamp, end: Timestamp) -> bool:
    """Whether a Period may state both (per-1): a date has no hour to be earlier by."""
    length = min(len(start.text), len(end.text))
    if length <= 10:
        return start.text[:length] <= end.text[:length]
    return start.at <= end.at


def period(start: Timestamp | UnsetType | None, end: Timestamp | UnsetType | None) -> Resource:
    """A Period of the times that are stated; without an end that would come before its start."""
    found: Resource = {}
    if isinstance(start, Timestamp):
        found["start"] = start.text
    if isinstance(end, Timestamp) and (not isinstance(start, Timestamp) or in_order(start, end)):
        found["end"] = end.text
    return found


def human_name(name: PersonName) -> Resource:
    """A HumanName; empty where the name is."""
    found: Resource = {}
    if name.use:
        found["use"] = name.use
    if name.family:
        found["family"] = name.family
    if name.given:
        found["given"] = list(name.given)
    if name.prefix:
        found["prefix"] = [name.prefix]
    if name.suffix:
        found["suffix"] = [name.suffix]
    return found


def postal_address(address: Address) -> Resource:
    """An Address; empty where nothing of it is known."""
    found: Resource = {}
    if address.lines:
        found["line"] = list(address.lines)
    if address.city:
        found["city"] = address.city
    if address.state:
        found["state"] = address.state
    if address.postal_code:
        found["postalCode"] = address.postal_code
    return found


NOT_PATIENTS = ("visit", "dn", "xx")
"""Kinds of numbers that are none of a person's record, whoever assigned them."""


def domain_system(domain: str, domains: Mapping[str, IdentifierDomain], kind: str) -> str:
    """The URI of an identifier domain: as configured, else its OID among the aliases, else one of our own.

    `kind` (``mr``, ``visit``, ...) keeps numbers of different kinds that share an authority apart: a configured
    domain is one of patients, so a visit, a practitioner (``dn``) or an organization (``xx``) has a system of our own.
    """
    if domain in ("NPI", "USNPI"):
        return NPI
    known = domains.get(domain)
    if known is not None and kind not in NOT_PATIENTS:
        if known.system:
            return known.system
        for alias in known.aliases:
            if is_oid(alias):
                return "urn:oid:" + alias
    if is_oid(domain) and kind != "visit":
        return "urn:oid:" + domain
    return local_system(domain.lower(), kind)


def is_oid(text: str) -> bool:
    """Whether `text` has the form of an ISO object identifier."""
    first, *arcs = text.split(".")
    if first not in ("0", "1", "2") or len(arcs) < 2:  # two arcs name a registration body, not an authority
        return False
    return all(arc.isdecimal() and arc.isascii() and (arc[0] != "0" or arc == "0") for arc in arcs)


def patient_identifier(found: Identifier, domains: Mapping[str, IdentifierDomain]) -> Resource:
    """A Patient.identifier."""
    kind = found.type or "MR"
    return identifier(domain_system(found.domain, domains, kind.lower()), found.value, identifier_type(kind))


def other_identifier(found: Identifier, domains: Mapping[str, IdentifierDomain], kind: str) -> Resource:
    """An identifier of anybody or anything but a patient; of one without a type, `kind` says what it numbers."""
    system = domain_system(found.domain, domains, (found.type or kind).lower())
    return identifier(system, found.value, identifier_type(found.type) if found.type else None)


def medical_record_number(key: PatientKey) -> Identifier:
    """A patient's key as an identifier."""
    return Identifier(key.domain, key.value, "MR")


def practitioner_id(person: Practitioner, scope: str) -> str:
    """By NPI, else by local identifier; a bare name identifies nobody beyond `scope` (an encounter or patient)."""
    if person.npi:
        return resource_id("practitioner", NPI, person.npi)
    if person.local:
        return resource_id("practitioner", person.local.domain, person.local.value)
    return resource_id("practitioner", scope, person.family, *person.given)


def practitioner(person: Practitioner, scope: str, domains: Mapping[str, IdentifierDomain]) -> Resource:
    """A Practitioner."""
    found: Resource = {"resourceType": "Practitioner", "id": practitioner_id(person, scope)}
    numbers = _numbers(person.npi, person.local, domains, "dn")
    if numbers:
        found["identifier"] = numbers
    name = human_name(PersonName(family=person.family, given=person.given, suffix=person.suffix))
    if name:
        found["name"] = [name]
    return found


def organization_id(named: Organization, scope: str) -> str:
    """By NPI, else by local identifier, else by name within `scope`."""
    if named.npi:
        return resource_id("organization", NPI, named.npi)
    if named.local:
        return resource_id("organization", named.local.domain, named.local.value)
    return resource_id("organization", scope, named.name)


def organization(named: Organization, scope: str, domains: Mapping[str, IdentifierDomain]) -> Resource:
    """An Organization."""
    found: Resource = {
        "resourceType": "Organization",
        "id": organization_id(named, scope),
        "active": True,
    }
    numbers = _numbers(named.npi, named.local, domains, "xx")
    if numbers:
        found["identifier"] = numbers
    if named.name:
        found["name"] = named.name
    return found


def _numbers(
    npi: str | None, local: Identifier | None, domains: Mapping[str, IdentifierDomain], kind: str
) -> list[Json]:
    numbers: list[Json] = [identifier(NPI, npi)] if npi else []
    if local:
        numbers.append(identifier(domain_system(local.domain, domains, kind), local.value))
    return numbers


def sending_facility(facility: SendingFacility) -> Resource:
    """The Organization of a hospital that sends."""
    found: Resource = {
        "resourceType": "Organization",
        "id": facility_id(facility.id),
        "meta": profiled(US_CORE + "us-core-organization"),
        "active": True,
    }
    numbers: list[Json] = [identifier(NPI, facility.npi)] if facility.npi else []
    if facility.ccn:
        numbers.append(identifier(CCN, facility.ccn))
    if numbers:
        found["identifier"] = numbers
    found["name"] = facility.name
    return found


def location_name(place: Location) -> str:
    """``STJ 3N 312-A``."""
    bed = "-".join([part for part in (place.room, place.bed) if part])
    return " ".join([part for part in (place.facility, place.unit, bed) if part])


def location(place: Location, owner: str) -> Resource:
    """The Location of a bed, run by the Organization with id `owner`."""
    return {
        "resourceType": "Location",
        "id": resource_id("location", owner, place.facility, place.unit, place.room, place.bed),
        "status": "active",
        "name": location_name(place),
        "managingOrganization": reference(owner),
    }


def disposition_concept(nubc: str | None, discharge: str | None, raw: str, feed: str) -> Resource:
    """Encounter.hospitalization.dischargeDisposition: NUBC code, HL7 code, and the feed's own where it differs."""
    codings = []
    if nubc:
        codings.append(coding(NUBC_DISPOSITION, nubc))
    if discharge:
        codings.append(coding(DISCHARGE_DISPOSITION, discharge))
    local = " ".join(raw.split())
    if local and (nubc is None or (local != nubc and not local.isdigit())):
        codings.append(coding(local_system("feed", feed, "PV1-36"), local))
    return concept(*codings)
