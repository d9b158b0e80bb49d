"""Owns what is compared between two converters: facts of FHIR resources, freed from how each writes them.

A fact class names an element (``Patient.name``); its value is the set of what is said there: codes without their
systems, names and words in capitals, telephone numbers as their last seven digits, times as they were sent.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

Json = object
Resource = Mapping[str, Json]


def facts_of(resources: Iterable[Resource]) -> dict[str, frozenset[str]]:
    """The facts by class; a class about which nothing is said is not there."""
    listed = [each for each in resources if isinstance(each, dict)]
    by_type: dict[str, list[Resource]] = {}
    for each in listed:
        by_type.setdefault(str(each.get("resourceType")), []).append(each)
    by_reference = {f"{each.get('resourceType')}/{each.get('id')}": each for each in listed}
    by_reference |= {f"urn:uuid:{each.get('id')}": each for each in listed}
    found: dict[str, frozenset[str]] = {}
    for name, read in _CLASSES.items():
        kind = name.partition(".")[0]
        said = {
            value for each in by_type.get(kind, ()) for value in read(each, by_reference) if value and value.strip(" |")
        }
        if said:
            found[name] = frozenset(said)
    return found


Read = Callable[[Resource, Mapping[str, Resource]], Iterable[str]]


def _many(value: Json) -> list[Resource]:
    items = value if isinstance(value, list) else [value]
    return [each for each in items if isinstance(each, dict)]


def _at(value: Json, path: str) -> list[Json]:
    """The values at a path of property names, through lists."""
    found: list[Json] = [value]
    for name in path.split("."):
        step: list[Json] = []
        for each in found:
            inner = each.get(name) if isinstance(each, dict) else None
            step += inner if isinstance(inner, list) else [inner] if inner is not None else []
        found = step
    return found


def _values(path: str) -> Read:
    return lambda resource, _: (_word(each) for each in _at(resource, path) if isinstance(each, str | bool | int))


def _word(value: Json) -> str:
    return " ".join(str(value).split()).upper()


def _codes(path: str) -> Read:
    """The codes of a CodeableConcept or Coding; its words where it has no code."""

    def read(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
        for concept in _at(resource, path):
            if not isinstance(concept, dict):
                continue
            codings = _many(concept.get("coding")) or ([concept] if "code" in concept else [])
            codes = [_word(each["code"]) for each in codings if "code" in each]
            yield from codes or [_word(concept.get("text") or next((each.get("display", "") for each in codings), ""))]

    return read


def _names(path: str) -> Read:
    def read(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
        for name in _at(resource, path):
            if isinstance(name, dict):
                given = " ".join(str(each) for each in _at(name, "given"))
                yield _word(f"{name.get('family', '')} | {given}")

    return read


def _time(path: str) -> Read:
    def read(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
        for each in _at(resource, path):
            if isinstance(each, str):
                yield each

    return read


def _telecom(path: str) -> Read:
    def read(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
        for point in _at(resource, path):
            value = str(point.get("value", "")) if isinstance(point, dict) else ""
            digits = re.sub(r"\D", "", value.partition("x")[0].partition("ext")[0])
            yield value.lower() if "@" in value else digits[-7:]

    return read


def _address(path: str) -> Read:
    def read(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
        for address in _at(resource, path):
            if isinstance(address, dict):
                yield _word("|".join(str(address.get(name, "")) for name in ("city", "state", "postalCode")))

    return read


def _named(path: str) -> Read:
    """The names of the people or organizations a reference leads to."""

    def read(resource: Resource, others: Mapping[str, Resource]) -> Iterable[str]:
        for reference in _at(resource, path):
            target = others.get(str(reference.get("reference", ""))) if isinstance(reference, dict) else None
            if target is None:
                continue
            if isinstance(target.get("practitioner"), dict):
                target = others.get(str(target["practitioner"].get("reference", "")), target)  # type: ignore[attr-defined]
            names = target.get("name")
            if isinstance(names, str):
                yield _word(names)
            for name in _many(names):
                yield _word(f"{name.get('family', '')} | {' '.join(str(each) for each in _at(name, 'given'))}")

    return read


def _participants(resource: Resource, others: Mapping[str, Resource]) -> Iterable[str]:
    for item in _many(resource.get("participant")):
        for code in _codes("type")(item, others):
            for who in _named("individual")(item, others) or ():
                yield f"{code} {who}"


def _deceased(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
    if "deceasedDateTime" in resource or "deceasedBoolean" in resource:
        yield str(resource.get("deceasedBoolean", True)).upper()


def _quantity(resource: Resource, _: Mapping[str, Resource]) -> Iterable[str]:
    for each in _many(resource.get("valueQuantity")):
        if "value" in each:
            yield f"{float(str(each['value'])):g} {each.get('unit') or each.get('code') or ''}".strip()


def _text_of_places(resource: Resource, others: Mapping[str, Resource]) -> Iterable[str]:
    for item in _many(resource.get("location")):
        for place in _at(item, "location"):
            target = others.get(str(place.get("reference", ""))) if isinstance(place, dict) else None
            if target is not None:
                yield re.sub(r"\W+", " ", _word(target.get("name", ""))).strip()


_CLASSES: dict[str, Read] = {
    "Patient.identifier": _values("identifier.value"),
    "Patient.name": _names("name"),
    "Patient.name.prefix": _values("name.prefix"),
    "Patient.name.use": _values("name.use"),
    "Patient.gender": _values("gender"),
    "Patient.birthDate": _time("birthDate"),
    "Patient.deceased": _deceased,
    "Patient.deceasedDateTime": _time("deceasedDateTime"),
    "Patient.address": _address("address"),
    "Patient.address.line": _values("address.line"),
    "Patient.address.country": _values("address.country"),
    "Patient.address.use": _values("address.use"),
    "Patient.telecom": _telecom("telecom"),
    "Patient.telecom.use": _values("telecom.use"),
    "Patient.maritalStatus": _codes("maritalStatus"),
    "Patient.communication": _codes("communication.language"),
    "Patient.multipleBirth": _values("multipleBirthInteger"),
    "Patient.generalPractitioner": _named("generalPractitioner"),
    "Patient.contact": _names("contact.name"),
    "Patient.link": _values("link.type"),
    "Encounter.identifier": _values("identifier.value"),
    "Encounter.status": _values("status"),
    "Encounter.class": _codes("class"),
    "Encounter.type": _codes("type"),
    "Encounter.serviceType": _codes("serviceType"),
    "Encounter.priority": _codes("priority"),
    "Encounter.participant": _participants,
    "Encounter.period.start": _time("period.start"),
    "Encounter.period.end": _time("period.end"),
    "Encounter.length": _values("length.value"),
    "Encounter.reasonCode": _codes("reasonCode"),
    "Encounter.location": _text_of_places,
    "Encounter.location.status": _values("location.status"),
    "Encounter.hospitalization.admitSource": _codes("hospitalization.admitSource"),
    "Encounter.hospitalization.dischargeDisposition": _codes("hospitalization.dischargeDisposition"),
    "Encounter.hospitalization.reAdmission": _codes("hospitalization.reAdmission"),
    "Encounter.hospitalization.dietPreference": _codes("hospitalization.dietPreference"),
    "Encounter.hospitalization.specialArrangement": _codes("hospitalization.specialArrangement"),
    "Encounter.hospitalization.specialCourtesy": _codes("hospitalization.specialCourtesy"),
    "Encounter.hospitalization.destination": _named("hospitalization.destination"),
    "Encounter.diagnosis.use": _codes("diagnosis.use"),
    "Encounter.diagnosis.rank": _values("diagnosis.rank"),
    "Condition.code": _codes("code"),
    "Condition.category": _codes("category"),
    "Condition.clinicalStatus": _codes("clinicalStatus"),
    "Condition.verificationStatus": _codes("verificationStatus"),
    "Condition.onset": _time("onsetDateTime"),
    "Condition.recordedDate": _time("recordedDate"),
    "AllergyIntolerance.code": _codes("code"),
    "AllergyIntolerance.type": _values("type"),
    "AllergyIntolerance.category": _values("category"),
    "AllergyIntolerance.criticality": _values("criticality"),
    "AllergyIntolerance.clinicalStatus": _codes("clinicalStatus"),
    "AllergyIntolerance.onset": _time("onsetDateTime"),
    "AllergyIntolerance.reaction": _codes("reaction.manifestation"),
    "AllergyIntolerance.reaction.severity": _values("reaction.severity"),
    "Coverage.payor": _named("payor"),
    "Coverage.subscriberId": _values("subscriberId"),
    "Coverage.identifier": _values("identifier.value"),
    "Coverage.type": _codes("type"),
    "Coverage.class": _values("class.value"),
    "Coverage.relationship": _codes("relationship"),
    "Coverage.period.start": _time("period.start"),
    "Coverage.period.end": _time("period.end"),
    "Coverage.order": _values("order"),
    "Coverage.status": _values("status"),
    "Coverage.policyHolder": _named("policyHolder"),
    "RelatedPerson.name": _names("name"),
    "RelatedPerson.relationship": _codes("relationship"),
    "RelatedPerson.telecom": _telecom("telecom"),
    "RelatedPerson.address": _address("address"),
    "RelatedPerson.gender": _values("gender"),
    "RelatedPerson.birthDate": _time("birthDate"),
    "Procedure.code": _codes("code"),
    "Procedure.status": _values("status"),
    "Procedure.performed": lambda resource, others: [
        *_time("performedDateTime")(resource, others),
        *_time("performedPeriod.start")(resource, others),
    ],
    "Procedure.category": _codes("category"),
    "Procedure.performer": _named("performer.actor"),
    "Observation.code": _codes("code"),
    "Observation.status": _values("status"),
    "Observation.value": _quantity,
    "Observation.valueString": _values("valueString"),
    "Observation.valueCodeableConcept": _codes("valueCodeableConcept"),
    "Observation.effective": _time("effectiveDateTime"),
    "Observation.interpretation": _codes("interpretation"),
}


_TIMES = frozenset(name for name in _CLASSES if re.search(r"(period\.\w+|[dD]ate\w*|onset|performed|effective)$", name))


def same(name: str, expected: str, found: frozenset[str]) -> bool:
    """Whether what is expected is among what was found."""
    if expected in found:
        return True
    if name == "Encounter.location":  # whole or in parts: Location per bed here, one per level elsewhere
        return any(set(expected.split()) <= set(each.split()) for each in found)
    if name in _TIMES:
        return any(_same_time(expected, each) for each in found)
    return False


def _same_time(one: str, other: str) -> bool:
    """The same instant, or equal as written without offset: converters fill in a zone of their own where none is."""
    if len(one) > 16 and len(other) > 16 and _instant(one) == _instant(other):
        return True
    shorter = min(len(one[:16]), len(other[:16]))
    return shorter >= 4 and one[:shorter] == other[:shorter]


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
