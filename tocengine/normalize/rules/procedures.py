"""Owns PR1: procedures, and the people who did them."""

from datetime import datetime, timedelta

from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import CPT, HCPCS, SNOMED, Json, Resource, coding, concept, reference
from tocengine.formats.hl7v2.datatypes import CWE
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading, clean
from tocengine.normalize.rules import practitioners
from tocengine.normalize.rules.coded import concept_in, concept_of, instance
from tocengine.normalize.rules.role_segments import roles

PERFORMERS: tuple[tuple[int, Resource | None], ...] = (
    (8, concept(coding(SNOMED, "88189002"))),
    (11, concept(coding(SNOMED, "304292004"))),
    (12, None),
)
"""PR1 fields of people, and the function each has: anesthesiologist, surgeon, practitioner (HL7 v2-to-FHIR, PR1)."""
_MODIFIED = frozenset({CPT, HCPCS})
"""Code systems with a syntax for modifiers: ``27130:RT`` (HL7 v2-to-FHIR, PR1-16)."""
_LONGEST = 60 * 24 * 31  # minutes; PR1-7 beyond it is no duration


def read(reading: Reading) -> None:
    """One Procedure per PR1 that names what was done; one that is deleted (PR1-20 D) is left out."""
    for segment in reading.segments("PR1"):
        coded = CWE.read(segment[3])
        named = concept_of(reading, coded, "PR1-3")
        if description := segment[4].text.strip():
            named.setdefault("text", description)
        if named and segment[20].text.strip().upper() != "D":
            reading.add(_procedure(reading, segment, coded, named))


def _procedure(reading: Reading, segment: Segment, coded: CWE, named: Resource) -> Resource:
    started = reading.time(segment[5], "PR1-5")
    performed = started if isinstance(started, Timestamp) else None
    scope = reading.encounter_id or reading.patient_id
    modifiers = _modify(named, segment)
    procedure: Resource = {
        "resourceType": "Procedure",
        "id": resource_id(
            "procedure",
            scope,
            coded.system,
            coded.code or str(named.get("text", "")),
            performed.text if performed else "",
            *modifiers,
        ),
        "status": "unknown",  # PR1 does not say whether it was done or is planned
        "code": named,
        "subject": reference(reading.patient_id),
    }
    category = concept_in(reading, segment[6], "PR1-6")
    if category:
        procedure["category"] = category
    if reading.encounter_id:
        procedure["encounter"] = reference(reading.encounter_id)
    if performed is not None:
        minutes = segment[7].text.strip()
        if len(performed.text) > 10 and minutes.isascii() and minutes.isdigit() and 0 < int(minutes[:6]) <= _LONGEST:
            end = datetime.fromisoformat(performed.text) + timedelta(minutes=int(minutes[:6]))
            procedure["performedPeriod"] = {"start": performed.text, "end": end.isoformat()}
        else:
            procedure["performedDateTime"] = performed.text
    if numbers := instance(reading, segment[19], "PR1-19"):
        procedure["identifier"] = numbers
    if reason := concept_of(reading, CWE.read(segment[15]), "PR1-15") if segment[15] else {}:
        procedure["reasonCode"] = [reason]
    performers = _performers(reading, segment)
    if performers:
        procedure["performer"] = performers
    return procedure


def _modify(named: Resource, segment: Segment) -> list[str]:
    """Puts the code with its modifiers (PR1-16) beside the plain one, where its system has a way to write them."""
    modifiers = [clean(code) for each in segment[16] if (code := each.component(1).strip())]
    codings = named.get("coding")
    if modifiers and isinstance(codings, list):
        codings += [
            coding(system, ":".join([str(each["code"]), *modifiers]))
            for each in tuple(codings)
            if isinstance(each, dict) and (system := str(each["system"])) in _MODIFIED
        ]
    return modifiers


def _performers(reading: Reading, segment: Segment) -> list[Json]:
    found: list[Json] = []
    for number, function in PERFORMERS:
        for person in practitioners.people(reading, segment[number], f"PR1-{number}"):
            shown = practitioners.resource(reading, person, reading.encounter_id or reading.patient_id)
            performer: Resource = {"actor": reading.add(shown)}
            if function is not None:
                performer["function"] = function
            found.append(performer)
    for role in roles(reading):
        for person in practitioners.people_of(reading, role) if role.owner is segment and not role.removes else ():
            shown = practitioners.resource(reading, person, reading.encounter_id or reading.patient_id)
            actor = reading.add(shown)
            if all(isinstance(each, dict) and each["actor"] != actor for each in found):
                found.append({"actor": actor})
    return found
