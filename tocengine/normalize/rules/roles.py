"""Owns how the people of ROL and PRT are reached: their addresses, and a PractitionerRole with telecom and period."""

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import PARTICIPATION, SNOMED, Json, Resource, coding, concept, reference
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules import practitioners
from tocengine.normalize.rules.patient import NOT_LIVED_AT, fhir_address, telecom
from tocengine.normalize.rules.role_segments import Role, period, roles

PRIMARY_CARE = concept(coding(SNOMED, "446050000"))


def read(reading: Reading) -> None:
    """What each ROL says of reaching somebody who is in the bundle; others have no role that is read."""
    _read(reading, "ROL")


def read_participations(reading: Reading) -> None:
    """As `read`, of PRT."""
    _read(reading, "PRT")


def _read(reading: Reading, name: str) -> None:
    for role in roles(reading):
        reaching = (role.fields.addresses, role.fields.telecom)
        if role.segment.name == name and not role.removes and any(role.segment.sent(reaching)):
            _reach(reading, role)


def _reach(reading: Reading, role: Role) -> None:
    addresses: list[Json] = [
        shown
        for each in role.segment[role.fields.addresses]
        if each.component(7).strip().upper() not in NOT_LIVED_AT and (shown := fhir_address(reading, each))
    ]
    reached: list[Json] = [
        found for each in role.segment[role.fields.telecom] if (found := telecom(reading, each, "work")) is not None
    ]
    for person in practitioners.people_of(reading, role):
        for scope in (reading.encounter_id, reading.patient_id):
            identity = fhir.practitioner_id(person, scope)
            if not reading.holds(identity):
                continue
            if addresses:
                reading.enrich(identity, {"address": addresses})
            if reached:
                reading.add(_role(reading, role, identity, reached))
            break


def _role(reading: Reading, role: Role, identity: str, reached: list[Json]) -> Resource:
    found: Resource = {
        "resourceType": "PractitionerRole",
        "id": resource_id("practitioner-role", reading.encounter_id or reading.patient_id, identity, role.code),
    }
    if during := fhir.period(*period(reading, role)):
        found["period"] = during
    found["practitioner"] = reference(identity)
    part = reading.codes.participations.get(role.code) if role.behind("PV1") else None
    if part or role.code == "PP":
        found["code"] = [concept(coding(PARTICIPATION, part)) if part else PRIMARY_CARE]
    found["telecom"] = reached
    return found
