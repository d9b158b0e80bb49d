"""Owns the people of the care team: XCN fields, ROL and PRT, who treats, who is the primary care provider."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import UNSET, UnsetType

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.resources import NPI, PARTICIPATION, Json, Resource, coding, concept
from tocengine.formats.hl7v2.datatypes import XCN, XON
from tocengine.formats.hl7v2.segments import Field, Repetition, Segment
from tocengine.model.identity import Identifier, Organization, Practitioner, valid_npi
from tocengine.normalize.reading import Reading, clean
from tocengine.normalize.rules.role_segments import Role, in_force, period, roles

NPI_AUTHORITIES = frozenset({"NPI", "USNPI", "CMS", "2.16.840.1.113883.4.6"})
ATTENDING = concept(coding(PARTICIPATION, "ATND"))
PARTICIPANTS = (
    (7, "ATND", ATTENDING),
    (8, "REF", concept(coding(PARTICIPATION, "REF"))),
    (9, "CON", concept(coding(PARTICIPATION, "CON"))),
    (17, "ADM", concept(coding(PARTICIPATION, "ADM"))),
    (52, "PART", concept(coding(PARTICIPATION, "PART"))),
)
"""PV1 fields and the participation they state (HL7 v2-to-FHIR, PV1)."""
_KINDS = {code: kind for _, code, kind in PARTICIPANTS}


def practitioner(reading: Reading, repetition: Repetition, path: str) -> Practitioner | None:
    """The person an XCN names, or None for nobody and for placeholders, which are flagged.

    A national number counts only if its check digit holds; a name without a number is a person all the same.
    """
    return reading.once(_person, repetition.raw, path)


def resource(reading: Reading, person: Practitioner, scope: str) -> Resource:
    """The Practitioner; one without a number is nobody beyond `scope`."""
    if person.npi or person.local:
        return reading.once(_numbered, person)
    return fhir.practitioner(person, scope, reading.source.domains)


def _numbered(reading: Reading, person: Practitioner) -> Resource:
    return fhir.practitioner(person, "", reading.source.domains)


def _person(reading: Reading, raw: str, path: str) -> Practitioner | None:
    found = XCN.read(reading.field(raw))
    codes = reading.codes
    number = clean(found.value)
    if codes.is_placeholder(number):
        reading.flag(f"placeholder:{path}")
        number = ""
    family, given = found.family, found.given
    if codes.placeholder_names.get(family.upper()) or codes.placeholder_names.get(f"{family} {given}".upper()):
        reading.flag(f"placeholder:{path}")
        return None
    npi, local = _numbers(reading, number, found, path)
    if not (family or npi or local):
        return None
    return Practitioner(
        family=family,
        given=tuple(part for part in (given, found.further_given) if part),
        suffix=" ".join(part for part in (found.suffix, found.degree) if part),
        npi=npi,
        local=local,
    )


def practice(reading: Reading, repetition: Repetition, path: str) -> Organization | None:
    """The organization an XON names (PD1-3), or None."""
    return reading.once(_practice, repetition.raw, path)


def _practice(reading: Reading, raw: str, path: str) -> Organization | None:
    found = XON.read(reading.field(raw))
    number = clean(found.value)
    if reading.codes.placeholder_names.get(found.name.upper()):
        reading.flag(f"placeholder:{path}")
        return None
    if reading.codes.is_placeholder(number):
        reading.flag(f"placeholder:{path}")
        number = ""
    npi, local = _numbers(reading, number, found, path)
    return Organization(name=found.name, npi=npi, local=local) if found.name or npi or local else None


def _numbers(reading: Reading, number: str, found: XCN | XON, path: str) -> tuple[str | None, Identifier | None]:
    if not number:
        return None, None
    authority = found.authority
    if (
        found.type == "NPI"
        or authority.namespace.upper() in NPI_AUTHORITIES
        or authority.universal_id in NPI_AUTHORITIES
    ):
        if valid_npi(number):
            return number, None
        reading.flag(f"invalid_npi:{path}")
        return None, None
    return None, Identifier(reading.domain(authority) or reading.own_domain(), number, found.type or None)


def people(reading: Reading, field: Field, path: str) -> list[Practitioner]:
    """The people of a repeating XCN field, placeholders left out."""
    if not field:
        return []
    return [person for each in field if (person := practitioner(reading, each, path)) is not None]


def primary_care(
    reading: Reading,
) -> tuple[
    tuple[Practitioner, ...] | UnsetType | None,
    tuple[Organization, ...] | UnsetType | None,
]:
    """Who cares for the patient outside: PD1-4, then ROL/PRT `PP`; and their practices: PD1-3."""
    segment = reading.segment("PD1")
    doctors, practices = segment[4], segment[3]
    removed = _removed(reading, "PP", "PID", "PV1")
    stated = (*people(reading, doctors, "PD1-4"), *_in_role(reading, "PP", "PID", "PV1"))
    named = [person for person in dict.fromkeys(stated) if _known_by(person) not in removed]
    places = (
        [place for each in practices if (place := practice(reading, each, "PD1-3")) is not None] if practices else []
    )
    return (
        tuple(named) if named else None if doctors.null or removed else UNSET,
        tuple(places) if places else None if practices.null else UNSET,
    )


def _in_role(reading: Reading, code: str, *owners: str) -> Iterator[Practitioner]:
    for role in roles(reading):
        if role.code == code and role.behind(*owners) and not role.removes and in_force(reading, role):
            yield from people_of(reading, role)


def _removed(reading: Reading, code: str, *owners: str) -> frozenset[object]:
    """By what they are known: the people that a ROL or PRT takes out of a role, and none behind it puts there again."""
    found: set[object] = set()
    for role in roles(reading):
        if role.code == code and role.behind(*owners):
            people_there = {_known_by(person) for person in people_of(reading, role)}
            found = found | people_there if role.removes else found - people_there
    return frozenset(found)


def _known_by(person: Practitioner) -> object:
    return person.npi or person.local or (person.family, person.given)


def people_of(reading: Reading, role: Role) -> list[Practitioner]:
    """The people of a ROL or PRT."""
    return people(reading, role.segment[role.fields.person], role.path)


def treating(reading: Reading, visit: Segment) -> tuple[Practitioner | UnsetType | None, str | UnsetType]:
    """The treating practitioner and where it was found: ROL/PRT `AT`, PV1-7, PV1-17, PV1-9, in that order.

    None where the message takes away who it was and names nobody else.
    """
    removed = _removed(reading, "AT", "PV1")
    for place in reading.source.profile.treating_order:
        found: Iterable[Practitioner]
        if place == "ROL":
            found = _in_role(reading, "AT", "PV1")
        else:
            field = visit[int(place.removeprefix("PV1-"))]
            found = people(reading, field, place) if field else ()
        for person in found:
            if _known_by(person) not in removed:
                return person, place
    return (None, UNSET) if visit[7].null or removed else (UNSET, UNSET)


def participants(reading: Reading, visit: Segment, attending: Practitioner | UnsetType | None) -> list[Json]:
    """Encounter.participant: each stated person in each stated role, the treating one as attending."""
    found: list[Json] = []
    team = _team(reading)
    seen = _taken_away(reading, team)  # never added, whichever field names them

    def add(person: Practitioner, code: str, kind: Json, during: Resource | None = None) -> None:
        shown = resource(reading, person, reading.encounter_id)
        key = (code, str(shown["id"]))
        if key not in seen:
            seen.add(key)
            found.append({"type": [kind], **({"period": during} if during else {}), "individual": reading.add(shown)})

    if attending is not UNSET and attending is not None:
        add(attending, "ATND", ATTENDING)
    elif attending is None and not visit[7].null:
        reading.cleared.append("Encounter.participant:ATND")
    for number, code, kind in PARTICIPANTS:
        field = visit[number]
        if field.null:
            reading.cleared.append(f"Encounter.participant:{code}")
        elif field and not (code == "ATND" and found):
            for person in people(reading, field, f"PV1-{number}"):
                add(person, code, kind)
    source = reading.segment("PV2")[13]
    for person in people(reading, source, "PV2-13") if source else ():
        add(person, "REF", _KINDS["REF"])
    for person, part, during in _members(reading, team):
        add(person, part, _KINDS[part], during)
    return found


def _team(reading: Reading) -> list[tuple[Role, str]]:
    """The ROL and PRT of the visit, with the participation each states."""
    said = ((role, reading.codes.participations.get(role.code)) for role in roles(reading) if role.behind("PV1"))
    return [(role, part) for role, part in said if part]


def _members(reading: Reading, team: Sequence[tuple[Role, str]]) -> Iterator[tuple[Practitioner, str, Resource]]:
    """The people of ROL and PRT beside the attending ones, with the participation and the period of each."""
    for role, part in team:
        if part != "ATND" and not role.removes:
            for person in people_of(reading, role):
                yield person, part, fhir.period(*period(reading, role))


def _taken_away(reading: Reading, team: Sequence[tuple[Role, str]]) -> set[tuple[str, str]]:
    """(participation, id) of those a ROL or PRT removes, and none behind it puts there again."""
    found: set[tuple[str, str]] = set()
    for role, part in team:
        there = {
            (part, str(resource(reading, person, reading.encounter_id)["id"])) for person in people_of(reading, role)
        }
        found = found | there if role.removes else found - there
    return found


def organizations(reading: Reading, places: Sequence[Organization], scope: str) -> list[Json]:
    """References to the organizations, added to the bundle."""
    return [reading.add(fhir.organization(place, scope, reading.source.domains)) for place in places]


__all__ = ["NPI", "participants", "people", "people_of", "practice", "practitioner", "primary_care", "treating"]
