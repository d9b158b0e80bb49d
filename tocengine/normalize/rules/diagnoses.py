"""Owns DG1: diagnoses as facts, Conditions, and `Encounter.diagnosis`."""

from msgspec import UNSET, UnsetType

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import (
    ICD10CM,
    TERMINOLOGY,
    Json,
    Resource,
    coding,
    concept,
    reference,
)
from tocengine.formats.hl7v2.datatypes import CWE
from tocengine.formats.hl7v2.parser import Segment
from tocengine.model.facts import Diagnosis
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules import practitioners
from tocengine.normalize.rules.coded import code_system, instance

_ACTIVE = concept(coding(TERMINOLOGY + "condition-clinical", "active"))
_CERTAINTY = {
    code: concept(coding(TERMINOLOGY + "condition-ver-status", code)) for code in ("confirmed", "provisional")
}
_CATEGORY: list[Json] = [concept(coding(TERMINOLOGY + "condition-category", "encounter-diagnosis"))]


def read(reading: Reading) -> tuple[Diagnosis, ...] | UnsetType:
    """The diagnoses of a message; UNSET where it has none. They replace what was known (no action codes)."""
    found: list[Diagnosis] = []
    listed: list[Json] = []
    for segment in reading.segments("DG1"):
        diagnosis = _diagnosis(reading, segment)
        if diagnosis is None or diagnosis in found:
            continue
        found.append(diagnosis)
        listed.append(_listed(reading, segment, diagnosis))
    if not found:
        return UNSET
    reading.encounter["diagnosis"] = listed
    return tuple(found)


def _diagnosis(reading: Reading, segment: Segment) -> Diagnosis | None:
    coded = CWE.read(segment[3])
    text = coded.label or segment[4].text.strip()
    if segment[21].text.strip().upper() == "D" or not (coded.code or text):
        return None
    system = code_system(reading, coded.system or segment[2].text.strip(), "DG1-3") if coded.code else ""
    code = " ".join(coded.code.split())
    return Diagnosis(
        code=dotted(code) if system == ICD10CM else code,
        system=system,
        text=text,
        type=segment[6].component(1).strip().upper(),
    )


def dotted(code: str) -> str:
    """An ICD-10-CM code with the dot that feeds leave out: the fourth character stands behind one."""
    plain = code.isascii() and code.isalnum() and len(code) > 3
    return f"{code[:3]}.{code[3:]}" if plain and code[0].isalpha() and code[1].isdigit() else code


def _listed(reading: Reading, segment: Segment, diagnosis: Diagnosis) -> Resource:
    rows = reading.codes.diagnosis_types
    row = rows.get(diagnosis.type)
    if row is None:
        reading.unknown_code("diagnosis.type", diagnosis.type, "DG1-6")
        row = rows[""]
    condition: Resource = {
        "resourceType": "Condition",
        "id": resource_id(
            "condition", reading.encounter_id, diagnosis.system, diagnosis.code or diagnosis.text, diagnosis.type
        ),
        "clinicalStatus": _ACTIVE,
        "verificationStatus": _CERTAINTY[row.verification],
        "category": _CATEGORY,
        "code": concept(*([coding(diagnosis.system, diagnosis.code)] if diagnosis.code else []), text=diagnosis.text),
        "subject": reference(reading.patient_id),
        "encounter": reference(reading.encounter_id),
    }
    _attest(reading, segment, condition)
    item: Resource = {"condition": reading.add(condition)}
    if row.role:
        item["use"] = reading.codes.diagnosis_roles[row.role]
    rank = segment[15].text.strip()
    if rank.isascii() and rank.isdigit() and int(rank[:9]) > 0:
        item["rank"] = int(rank[:9])
    return item


def _attest(reading: Reading, segment: Segment, condition: Resource) -> None:
    """When it began and was attested, by whom, and under which number."""
    if numbers := instance(reading, segment[20], "DG1-20"):
        condition["identifier"] = numbers
    for number, name in ((5, "onsetDateTime"), (19, "recordedDate")):
        at = reading.time(segment[number], f"DG1-{number}")
        if isinstance(at, Timestamp):
            condition[name] = at.text
    for person in practitioners.people(reading, segment[16], "DG1-16")[:1]:
        clinician = fhir.practitioner(person, reading.encounter_id, reading.source.domains)
        condition["asserter"] = reading.add(clinician)
