"""Owns what a FHIR Encounter says: visit number, class, place, people, times, and where the patient goes."""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.formats.fhir.facts import in_order
from tocengine.formats.fhir.resources import (
    ACT_CODE,
    ADMIT_SOURCE,
    CCN,
    DISCHARGE_DISPOSITION,
    NPI,
    PARTICIPATION,
    TERMINOLOGY,
    Json,
    Resource,
    is_withdrawn,
)
from tocengine.model.facts import (
    Destination,
    Diagnosis,
    Disposition,
    EncounterFacts,
    Location,
    PatientClass,
)
from tocengine.model.identity import Practitioner, VisitKey, valid_npi
from tocengine.model.time import Timestamp
from tocengine.normalize.codes import nubc
from tocengine.normalize.fhir_values import (
    NUBC_DISPOSITIONS,
    Reader,
    code_of,
    codings_of,
    concept_text,
    identifiers_of,
    objects,
    text_of,
)

_V2_CLASS = TERMINOLOGY + "v2-0004"
_POINT_OF_ORIGIN = (TERMINOLOGY + "v2-0023", "https://www.nubc.org/CodeSystem/PointOfOrigin")
_CONFIDENTIALITY = TERMINOLOGY + "v3-Confidentiality"
PART2 = "42CFRPart2"
_RESTRICTED = frozenset({"R", "V"})
_ADMIT_SOURCES = {"hosp-trans": "4", "nursing": "5", "emd": "7"}
_ROLE_TYPES = {"AD": "A", "DD": "F"}
_ROLES = {"ROL": ("ATND",), "PV1-7": ("ATND", "PPRF"), "PV1-8": ("REF",), "PV1-9": ("CON",), "PV1-17": ("ADM",)}
"""The participants that stand where `treating_order` of the profile looks; FHIR has the performer besides."""


@lru_cache(maxsize=2)
def _table(name: str) -> Mapping[str, str]:
    text = files(__package__).joinpath("tables", name).read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, str])


def read_encounter(reader: Reader) -> tuple[VisitKey | None, EncounterFacts]:
    """The visit's key, None without a usable identifier, and the facts. What is absent is not stated."""
    encounter = reader.notification.encounter
    stay = encounter.get("hospitalization")
    hospitalization = stay if isinstance(stay, dict) else {}
    start, end = _times(encounter.get("period"), reader)
    if start and end and not in_order(start, end):
        reader.flag("discharge_before_admit")
    _flag_unresolved(encounter, hospitalization, reader)
    treating, treating_source = _treating(encounter, reader)
    code = encounter.get("class")
    reasons = objects(encounter.get("reasonCode"))
    return _visit(encounter, reader), EncounterFacts(
        patient_class=_patient_class(code, reader),
        class_code=text_of(code, "code") if isinstance(code, dict) else UNSET,
        account_number=_account(encounter, reader) or UNSET,
        location=_location(encounter, reader) or UNSET,
        treating=treating or UNSET,
        treating_source=treating_source if treating else UNSET,
        service=concept_text(encounter.get("serviceType")) or UNSET,
        admit_source=_admit_source(hospitalization.get("admitSource")) or UNSET,
        disposition=_disposition(hospitalization.get("dischargeDisposition"), reader) or UNSET,
        destination=_destination(hospitalization.get("destination"), reader) or UNSET,
        admitted=start or UNSET,
        discharged=end or UNSET,
        reason=concept_text(reasons[0]) if reasons else UNSET,
        diagnoses=_diagnoses(encounter, reader),
    )


def _flag_unresolved(encounter: Resource, hospitalization: Resource, reader: Reader) -> None:
    reader.flag_unresolved(hospitalization.get("destination"), "Encounter.hospitalization.destination")
    for name, inner in (("participant", "individual"), ("location", "location")):
        for item in objects(encounter.get(name)):
            reader.flag_unresolved(item.get(inner), f"Encounter.{name}")


def _visit(encounter: Resource, reader: Reader) -> VisitKey | None:
    """The visit number (type VN), else the first identifier that says its system and is no account number.

    Where there is none: the address of the Encounter on its sender's server, which is the same in every message of
    that server. A message's own addresses (``urn:uuid:``) are made up for it and name nothing.
    """
    numbers = [number for number in identifiers_of(encounter) if not reader.codes.is_placeholder(number.value)]
    sent = [number for number in numbers if number.system and number.type != "AN"]
    sent.sort(key=lambda number: (number.use == "old", number.type != "VN"))
    if not sent:
        base, separator, identity = reader.notification.encounter_url.rpartition("/Encounter/")
        if not separator or not base.startswith(("https://", "http://")) or not identity:
            return None
        reader.flag("visit_by_address")
        return VisitKey(base + "/Encounter", identity)
    known = reader.identifier(sent[0])
    return VisitKey(known.domain, known.value)


def _account(encounter: Resource, reader: Reader) -> str:
    numbers = (number.value for number in identifiers_of(encounter) if number.type == "AN")
    return next((number for number in numbers if not reader.codes.is_placeholder(number)), "")


def _patient_class(sent: Json, reader: Reader) -> PatientClass:
    code, system = (text_of(sent, "code"), text_of(sent, "system")) if isinstance(sent, dict) else ("", "")
    if mapped := reader.codes.local_classes.get(code):
        return mapped
    if system == _V2_CLASS and code in reader.codes.classes:
        return reader.codes.classes[code]
    if system == ACT_CODE and code in _table("fhir_class.toml"):
        return PatientClass(_table("fhir_class.toml")[code])
    reader.unknown_code("class", code, "Encounter.class")
    return PatientClass.UNKNOWN


def _location(encounter: Resource, reader: Reader) -> Location | None:
    """Where the patient is, with the traits of every place the encounter lists, and of the wards they are part of.

    What a place is (a Part 2 program, a psychiatric unit) counts for the stay also after the patient left it, and
    security labels on the content count as if they were the place's.
    """
    listed = [item for item in objects(encounter.get("location")) if item.get("status") not in ("planned", "reserved")]
    current = next((item for item in listed if item.get("status") == "active"), listed[-1] if listed else None)
    sensitivity, part2 = _labels(reader)
    level, facility = "", ""
    for item in listed:
        for place in _with_wards(item.get("location"), reader):
            for name in _names(place):
                traits = reader.source.profile.location_map.get(name)
                if traits is not None:
                    sensitivity.update(traits.sensitivity)
                    part2 = part2 or traits.part2
                    if item is current:
                        level, facility = level or traits.level_of_care, facility or traits.facility
    reference = current.get("location") if current else None
    resource = reader.notification.resolve(reference)
    unit = (
        text_of(resource, "name") if resource else text_of(reference, "display") if isinstance(reference, dict) else ""
    )
    if not (unit or sensitivity or part2):
        return None
    return Location(
        unit=unit,
        facility=facility,
        level_of_care=level,
        sensitivity=tuple(sorted(sensitivity)),
        part2=part2,
    )


def _with_wards(reference: Json, reader: Reader) -> list[Resource]:
    """The Location and what it is part of, as far as the bundle has them; a circle ends the way."""
    found: list[Resource] = []
    while (resource := reader.notification.resolve(reference)) is not None and resource not in found:
        found.append(resource)
        reference = resource.get("partOf")
    if not found and isinstance(reference, dict) and text_of(reference, "display"):
        found.append({"name": text_of(reference, "display")})
    return found


def _names(place: Resource) -> list[str]:
    return [text_of(place, "name"), *(number.value for number in identifiers_of(place))]


def _labels(reader: Reader) -> tuple[set[str], bool]:
    """Sensitivity tags among the security labels of any resource, and whether one says 42 CFR Part 2."""
    tags: set[str] = set()
    message = reader.notification
    for resource in (message.bundle, *(resource for _, resource in message.entries)):
        meta = resource.get("meta")
        for label in objects(meta.get("security")) if isinstance(meta, dict) else ():
            system, code = text_of(label, "system"), text_of(label, "code")
            if (system == ACT_CODE and code) or (system == _CONFIDENTIALITY and code in _RESTRICTED):
                tags.add(code)
    return tags - {PART2}, PART2 in tags


def _treating(encounter: Resource, reader: Reader) -> tuple[Practitioner | None, str]:
    """The first of the feed's order, else the only participant without a type (as Da Vinci's examples).

    Unless the profile says otherwise the attender, the primary performer, the admitter, the consultant; of those who
    are there now, or were when the stay ended, else of those who left during the stay.
    """
    start, end = _times(encounter.get("period"), reader)
    now = end or reader.time(reader.notification.bundle.get("timestamp"))
    there, left = [], []
    for item in objects(encounter.get("participant")):
        _, until = _times(item.get("period"), reader)
        if until is None or now is None or in_order(now, until):
            there.append(item)
        elif start is None or in_order(start, until):
            left.append(item)
    return _first_of(there, reader) or _first_of(left, reader) or (None, "")


def _times(period: Json, reader: Reader) -> tuple[Timestamp | None, Timestamp | None]:
    stated = period if isinstance(period, dict) else {}
    return reader.time(stated.get("start")), reader.time(stated.get("end"))


def _first_of(participants: list[Resource], reader: Reader) -> tuple[Practitioner, str] | None:
    order = reader.source.profile.treating_order
    for role in dict.fromkeys(role for source in order for role in _ROLES.get(source, ())):
        for item in participants:
            if any(code_of(kind, PARTICIPATION) == role for kind in objects(item.get("type"))):
                person = reader.practitioner(item.get("individual"))
                if person is not None:
                    return person, f"Encounter.participant:{role}"
    untyped = [item for item in participants if "type" not in item]
    person = reader.practitioner(untyped[0].get("individual")) if len(untyped) == 1 else None
    return (person, "Encounter.participant") if person else None


def _admit_source(concept: Json) -> str:
    if code := code_of(concept, *_POINT_OF_ORIGIN):
        return code
    return _ADMIT_SOURCES.get(code_of(concept, ADMIT_SOURCE), "")


def _disposition(concept: Json, reader: Reader) -> Disposition | None:
    """By NUBC code (``1`` and ``01`` alike), else the feed's own map, else an HL7 code that means exactly one.

    An unmapped disposition is UNKNOWN: never home by default.
    """
    if not isinstance(concept, dict):
        return None
    sent = code_of(concept, *NUBC_DISPOSITIONS)
    local = reader.codes.local_dispositions
    mapped = next((local[code] for _, code in codings_of(concept) if code in local), "")
    hl7 = _table("fhir_disposition.toml").get(code_of(concept, DISCHARGE_DISPOSITION), "")
    raw = sent or next((code for _, code in codings_of(concept)), "") or text_of(concept, "text")
    code = nubc(mapped or sent or hl7)
    row = reader.codes.dispositions.get(code or "")
    if row is None:
        reader.unknown_code("disposition", raw, "Encounter.hospitalization.dischargeDisposition")
        return Disposition(raw=raw) if raw else None
    return Disposition(raw=raw, code=code, care_setting=row.setting, planned_readmission=row.planned_readmission)


def _destination(reference: Json, reader: Reader) -> Destination | None:
    if not isinstance(reference, dict):
        return None
    resource = reader.notification.resolve(reference)
    named = resource or {"name": reference.get("display"), "identifier": reference.get("identifier")}
    npi = ccn = None
    for number in identifiers_of(named):
        if number.system == NPI and valid_npi(number.value):
            npi = npi or number.value
        elif number.system == NPI:
            reader.flag("npi_invalid:Encounter.hospitalization.destination")
        elif number.system == CCN:
            ccn = ccn or number.value
    text = text_of(named, "name") or text_of(reference, "display")
    meant = reader.codes.destinations.get(" ".join(text.split()).casefold(), "")
    if meant and not (npi or ccn):
        npi, ccn = (meant, None) if valid_npi(meant) else (None, meant)
    return Destination(text=text, npi=npi, ccn=ccn) if text or npi or ccn else None


def _diagnoses(encounter: Resource, reader: Reader) -> tuple[Diagnosis, ...] | UnsetType | None:
    """Those the Encounter names, in their order, then encounter diagnoses that point at it; none that is withdrawn.

    None where all are: what is known goes, as where a message names others.
    """
    message = reader.notification
    found: list[tuple[Resource, str]] = []
    for item in objects(encounter.get("diagnosis")):
        condition = message.resolve(item.get("condition"))
        if condition is not None and condition["resourceType"] == "Condition":
            found.append((condition, _ROLE_TYPES.get(next((code for _, code in codings_of(item.get("use"))), ""), "")))
    named = [condition for condition, _ in found]
    for _, resource in message.entries:
        if resource["resourceType"] != "Condition" or resource in named:
            continue
        if message.resolve(resource.get("encounter")) is encounter:
            found.append((resource, ""))
    if not found:
        return UNSET
    return tuple(_diagnosis(condition, role) for condition, role in found if not is_withdrawn(condition)) or None


def _diagnosis(condition: Resource, role: str) -> Diagnosis:
    concept = condition.get("code")
    system, code = next(iter(codings_of(concept)), ("", ""))
    return Diagnosis(code=code, system=system, text=concept_text(concept), type=role)
