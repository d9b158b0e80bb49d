"""Owns DG1: diagnoses as facts, Conditions, and `Encounter.diagnosis`."""

import msgspec

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
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.facts import Diagnosis, DiagnosisChange, EncounterFacts
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules import practitioners
from tocengine.normalize.rules.coded import code_system, instance

SAID = (2, 3, 4, 6, 21)
"""DG1 fields that tell of the diagnosis, whoever has it; when and in which rank differs from visit to visit."""
_ACTIVE = concept(coding(TERMINOLOGY + "condition-clinical", "active"))
_CERTAINTY = {
    code: concept(coding(TERMINOLOGY + "condition-ver-status", code)) for code in ("confirmed", "provisional")
}
_CATEGORY: list[Json] = [concept(coding(TERMINOLOGY + "condition-category", "encounter-diagnosis"))]


def read(reading: Reading, facts: EncounterFacts) -> EncounterFacts:
    """`facts` with the diagnoses of a message, if it has any.

    They replace what is known, or come to it, as the feed means its DG1 (profile: snapshot_segments). One that is
    deleted (DG1-21 D) is none of a snapshot; of other messages, and where it stands alone, it is withdrawn, whatever
    its type (DG1-6) was.
    """
    found: list[Diagnosis] = []
    withdrawn: list[Diagnosis] = []
    listed: list[Json] = []
    for segment in reading.segments("DG1"):
        said = reading.once_of(_said, segment, *SAID)
        if said is None or said.diagnosis in (withdrawn if said.deleted else found):
            continue
        if said.deleted:
            withdrawn.append(said.diagnosis)
            continue
        found.append(said.diagnosis)
        item: Resource = {"condition": reading.add(_condition(reading, said, segment))}
        if said.use:
            item["use"] = said.use
        rank = segment[15].text.strip()
        if rank.isascii() and rank.isdigit() and int(rank[:9]) > 0:
            item["rank"] = int(rank[:9])
        listed.append(item)
    if listed:
        reading.encounter["diagnosis"] = listed
    if found and "DG1" in reading.source.profile.snapshot_segments:
        return msgspec.structs.replace(facts, diagnoses=tuple(found))
    if not (found or withdrawn):
        return facts
    reading.cleared += [
        f"Condition/{_condition_id(reading, msgspec.structs.replace(each, type=type_))}"
        for each in withdrawn
        for type_ in reading.codes.diagnosis_types
    ]
    changes = (*(DiagnosisChange(each, True) for each in withdrawn), *map(DiagnosisChange, found))
    return msgspec.structs.replace(facts, diagnosis_changes=changes)


class _Said(msgspec.Struct, frozen=True):
    """What a DG1 says, whoever has it: the fact, and what a Condition and Encounter.diagnosis tell of it."""

    diagnosis: Diagnosis
    statement: Resource
    use: Resource | None
    deleted: bool


def _said(reading: Reading, segment: Segment) -> _Said | None:
    """None where it names nothing."""
    coded = CWE.read(segment[3])
    text = coded.label or segment[4].text.strip()
    if not (coded.code or text):
        return None
    named = coded.system or segment[2].text.strip()
    system = code_system(reading, named, "DG1-3") if coded.code else ""
    code = " ".join(coded.code.split())
    code = dotted(code) if system == ICD10CM else code
    type_ = segment.code(6).upper()
    rows = reading.codes.diagnosis_types
    row = rows.get(type_)
    if row is None:
        reading.unknown_code("diagnosis.type", type_, "DG1-6")
        row = rows[""]
    return _Said(
        diagnosis=Diagnosis(code=code, system=system, text=text, type=type_),
        statement={
            "clinicalStatus": _ACTIVE,
            "verificationStatus": _CERTAINTY[row.verification],
            "category": _CATEGORY,
            "code": concept(*([coding(system, code)] if code else []), text=text),
        },
        use=reading.codes.diagnosis_roles[row.role] if row.role else None,
        deleted=segment.code(21).upper() == "D",
    )


def dotted(code: str) -> str:
    """An ICD-10-CM code with the dot that feeds leave out: the fourth character stands behind one."""
    plain = code.isascii() and code.isalnum() and len(code) > 3
    return f"{code[:3]}.{code[3:]}" if plain and code[0].isalpha() and code[1].isdigit() else code


def _condition_id(reading: Reading, found: Diagnosis) -> str:
    """One for each type the table knows: what is withdrawn is withdrawn as every one of them."""
    type_ = found.type if found.type in reading.codes.diagnosis_types else ""
    return resource_id("condition", reading.encounter_id, found.system, found.code or found.text, type_)


def _condition(reading: Reading, said: _Said, segment: Segment) -> Resource:
    condition: Resource = {
        "resourceType": "Condition",
        "id": _condition_id(reading, said.diagnosis),
        **said.statement,
        "subject": reference(reading.patient_id),
        "encounter": reference(reading.encounter_id),
    }
    _attest(reading, segment, condition)
    return condition


def _attest(reading: Reading, segment: Segment, condition: Resource) -> None:
    """When it began and was attested, by whom, and under which number."""
    if numbers := instance(reading, segment[20], "DG1-20"):
        condition["identifier"] = numbers
    for number, name in ((5, "onsetDateTime"), (19, "recordedDate")):
        at = reading.time(segment[number], f"DG1-{number}")
        if isinstance(at, Timestamp):
            condition[name] = at.text
    for person in practitioners.people(reading, segment[16], "DG1-16")[:1]:
        condition["asserter"] = reading.add(practitioners.resource(reading, person, reading.encounter_id))
