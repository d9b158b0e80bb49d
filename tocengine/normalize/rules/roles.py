"""Owns how the people of ROL and PRT are reached: their addresses, and a PractitionerRole with telecom and period."""

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import PARTICIPATION, SNOMED, Json, Resource, coding, concept, reference
from tocengine.formats.hl7v2.segments import Segment
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules import practitioners
from tocengine.normalize.rules.patient import fhir_address, telecom

PLACES = {"ROL": (3, 4, 5, 6, 11, 12), "PRT": (4, 5, 11, 12, 14, 15)}
"""Segment -> its fields: role, person, begin, end, addresses, telecommunication (HL7 v2-to-FHIR, ROL and PRT)."""
PRIMARY_CARE = concept(coding(SNOMED, "446050000"))
_OF_BIRTH = frozenset({"N", "BDL", "BR", "F"})
"""Kinds of address (table 0190) where somebody was born or comes from: nobody is reached there."""


def read(reading: Reading) -> None:
    """What each ROL says of reaching somebody who is in the bundle; others have no role that is read."""
    _read(reading, "ROL")


def read_participations(reading: Reading) -> None:
    """As `read`, of PRT."""
    _read(reading, "PRT")


def _read(reading: Reading, name: str) -> None:
    _, who, _, _, where, points = PLACES[name]
    for segment in reading.segments(name):
        if segment[who] and any(segment.sent((where, points))):
            _reach(reading, segment)


def _reach(reading: Reading, segment: Segment) -> None:
    _, who, _, _, where, points = PLACES[segment.name]
    addresses: list[Json] = [
        shown
        for each in segment[where]
        if each.component(7).strip().upper() not in _OF_BIRTH and (shown := fhir_address(reading, each))
    ]
    reached: list[Json] = [found for each in segment[points] if (found := telecom(reading, each, "work")) is not None]
    for person in practitioners.people(reading, segment[who], f"{segment.name}-{who}"):
        for scope in (reading.encounter_id, reading.patient_id):
            identity = fhir.practitioner_id(person, scope)
            if not reading.holds(identity):
                continue
            if addresses:
                reading.enrich(identity, {"address": addresses})
            if reached:
                reading.add(_role(reading, segment, identity, reached))
            break


def _role(reading: Reading, segment: Segment, identity: str, reached: list[Json]) -> Resource:
    role, _, begins, ends, _, _ = PLACES[segment.name]
    code = segment.code(role).upper()
    found: Resource = {
        "resourceType": "PractitionerRole",
        "id": resource_id("practitioner-role", reading.encounter_id or reading.patient_id, identity, code),
    }
    if period := fhir.period(
        reading.time(segment[begins], f"{segment.name}-{begins}"), reading.time(segment[ends], f"{segment.name}-{ends}")
    ):
        found["period"] = period
    found["practitioner"] = reference(identity)
    part = reading.codes.participations.get(code)
    if part or code == "PP":
        found["code"] = [concept(coding(PARTICIPATION, part)) if part else PRIMARY_CARE]
    found["telecom"] = reached
    return found
