"""Owns NK1: whom to contact for the patient, and the people related to the patient."""

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import Json, Resource, concept, reference
from tocengine.formats.hl7v2.datatypes import CWE
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.identity import Organization
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules.civil import language
from tocengine.normalize.rules.patient import fhir_address, identifiers, person_name, telecom
from tocengine.normalize.rules.practitioners import practice


def read(reading: Reading) -> None:
    """A contact of the Patient per NK1; one that names a person, not an employer, agency or insurer, is a
    RelatedPerson too (HL7 v2-to-FHIR, ADT_A01)."""
    contacts: list[Json] = []
    related: dict[str, tuple[str, str]] = {}
    for segment in reading.segments("NK1"):
        about = _about(reading, segment)
        employer = practice(reading, segment[13], "NK1-13") if segment[13] else None
        if employer is not None and employer.name:
            organization = fhir.organization(employer, reading.patient_id, reading.source.domains)
            if person := _contact_person(reading, segment):
                organization["contact"] = [person]
            about["organization"] = reading.add(organization)
        kind = segment.code(3).upper() or segment.code(7).upper()
        if reading.codes.residences.get(kind) and (home := about.pop("name", None)):
            about["organization"] = reading.add(_residence(reading, home))
        if not (about.get("name") or about.get("organization")):
            continue
        if about not in contacts:
            contacts.append(about)
        if about.get("name") and not reading.codes.organizations.get(kind):
            person = _related(reading, about, segment)
            told_apart = (segment.code(3).upper(), str(person.get("birthDate", "")))
            if related.setdefault(str(person["id"]), told_apart) != told_apart:  # a namesake: father and son
                person["id"] = resource_id(str(person["id"]), *told_apart)
            reading.add(person)
    if contacts:
        reading.patient["contact"] = contacts


def _about(reading: Reading, segment: Segment) -> Resource:
    """What PatientContact and RelatedPerson have in common, in the shape of the former."""
    about: Resource = {}
    if relationship := reading.once_of(_relationship, segment, 3, 7):
        about["relationship"] = relationship
    name = fhir.human_name(person_name(reading, segment[2])) if segment[2] else {}
    if name.get("family") or name.get("given"):
        about["name"] = name
    points: list[Json] = []
    for number, use in ((5, "home"), (6, "work"), (40, "")):
        said = [telecom(reading, each, use) for each in segment[number]]
        points += [point for point in said if point is not None and point not in points]
    if points:
        about["telecom"] = points
    address = fhir_address(reading, segment[4]) if segment[4] else {}
    if address:
        about["address"] = address
    if gender := reading.codes.sexes.get(segment.code(15).upper()) if segment[15] else None:
        about["gender"] = gender
    if period := _period(reading, segment):
        about["period"] = period
    return about


def _residence(reading: Reading, name: Json) -> Resource:
    """The facility where the patient lives, which NK1-2 names as if it were a person."""
    assert isinstance(name, dict)
    given = name.get("given")
    words = [str(name.get("family", "")), *(str(part) for part in (given if isinstance(given, list) else ()))]
    home = Organization(" ".join(word for word in words if word))
    return fhir.organization(home, reading.patient_id, reading.source.domains)


def _period(reading: Reading, segment: Segment) -> Resource:
    """NK1-8 and NK1-9: from when and until when the person is to be contacted."""
    if not any(segment.sent((8, 9))):
        return {}
    return fhir.period(reading.time(segment[8], "NK1-8"), reading.time(segment[9], "NK1-9"))


def _contact_person(reading: Reading, segment: Segment) -> Resource:
    """NK1-30 to NK1-32: whom to ask for at the organization (NK1-13). The person of NK1-2 is another."""
    if not any(segment.sent((30, 31, 32))):
        return {}
    person: Resource = {}
    if name := fhir.human_name(person_name(reading, segment[30])) if segment[30] else {}:
        person["name"] = name
    if points := [point for each in segment[31] if (point := telecom(reading, each, "work")) is not None]:
        person["telecom"] = list(points)
    if address := fhir_address(reading, segment[32]) if segment[32] else {}:
        person["address"] = address
    return person


def _relationship(reading: Reading, segment: Segment) -> list[Json]:
    """What the person is to the patient (NK1-3), and to be contacted for (NK1-7)."""
    named: list[Json] = []
    coded = CWE.read(segment[3])
    if coded.code:
        known = reading.codes.relationships.get(coded.code.upper())
        if known is None:
            if not reading.codes.residences.get(coded.code.upper()):
                reading.unknown_code("relationship", coded.code, "NK1-3")
            known = reading.local_concept("NK1-3", coded.code, coded.label)
        named.append(known)
    elif coded.label:
        named.append(concept(text=coded.label))
    role = segment.code(7).upper()
    known = reading.codes.relationships.get(role) if role and role != coded.code.upper() else None
    if known and known not in named:
        named.append(known)
    return named


def _related(reading: Reading, about: Resource, segment: Segment) -> Resource:
    name = about["name"]
    assert isinstance(name, dict)
    related: Resource = {
        "resourceType": "RelatedPerson",
        "id": related_id(reading, name),
        "active": True,
        "patient": reference(reading.patient_id),
    }
    if segment[33] and (numbers := identifiers(reading, (segment[33],), "NK1-33")[0]):
        domains = reading.source.domains
        related["identifier"] = [fhir.other_identifier(each, domains, "related") for each in numbers]
    for element in ("relationship", "telecom", "gender", "period"):
        if element in about:
            related[element] = about[element]
    more = [fhir.human_name(person_name(reading, each)) for each in segment[2].repetitions[1:]]
    related["name"] = [name, *[shown for shown in more if shown]]
    born = reading.time(segment[16], "NK1-16")
    if isinstance(born, Timestamp):
        related["birthDate"] = born.text[:10]
    addresses: list[Json] = [about["address"]] if "address" in about else []
    addresses += [shown for each in segment[4].repetitions[1:] if (shown := fhir_address(reading, each))]
    if addresses:
        related["address"] = addresses
    if (field := segment[20]) and (spoken := language(reading, field, "NK1-20")):
        related["communication"] = [{"language": spoken}]
    return related


def related_id(reading: Reading, name: Resource) -> str:
    """The id of a person related to the patient: by name, which is all that NK1 and IN1 have in common."""
    given = name.get("given")
    return resource_id(
        "related-person",
        reading.patient_id,
        str(name.get("family", "")),
        *(str(part) for part in (given if isinstance(given, list) else ())),
    )
