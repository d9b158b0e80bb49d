"""Owns AL1: allergies, and the statement that there are none."""

import msgspec

from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import TERMINOLOGY, Json, Resource, coding, concept, reference
from tocengine.formats.hl7v2.datatypes import CWE
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.time import Timestamp
from tocengine.normalize.codes import AllergySeverity
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules.coded import code_system

SAID = (2, 3, 4, 5)
"""Fields that tell of the allergy, whoever has it."""
_SNOMED = "http://snomed.info/sct"
_ACTIVE = concept(coding(TERMINOLOGY + "allergyintolerance-clinical", "active"))
_NONE_SAID = AllergySeverity()


def read(reading: Reading) -> None:
    """One AllergyIntolerance per AL1 that names what of."""
    for segment in reading.segments("AL1"):
        said = reading.once_of(_said, segment, *SAID)
        if said is not None:
            _add(reading, segment, said)


def read_changes(reading: Reading) -> None:
    """IAM: allergies one by one, each added, changed or deleted (IAM-6); those not mentioned stay as they are."""
    for segment in reading.segments("IAM"):
        said = reading.once_of(_said, segment, *SAID)
        if said is None:
            continue
        if segment.code(6).upper() == "D":
            reading.cleared.append(f"AllergyIntolerance/{_add(reading, segment, said, keep=False)}")
        else:
            _add(reading, segment, said)
    if not reading.segments("AL1"):
        reading.cleared.append("+AllergyIntolerance")


class _Said(msgspec.Struct, frozen=True):
    """What an AL1 or IAM says, whoever has it; None of a segment that names nothing."""

    identity: tuple[str, str]  # system and code, or words
    statement: Resource


def _said(reading: Reading, segment: Segment) -> _Said | None:
    coded = CWE.read(segment[3])
    if not (coded.code or coded.label):
        return None
    codes = reading.codes
    none = codes.no_allergies.get(coded.code.upper()) or codes.no_allergies.get(coded.label.upper())
    if none:
        system, code = _SNOMED, none
    else:
        code = " ".join(coded.code.split())
        system = code_system(reading, coded.system, "AL1-3") if code else ""
    statement: Resource = {"clinicalStatus": _ACTIVE}
    if not none:
        _classify(reading, segment, statement)
    statement["code"] = concept(*([coding(system, code)] if code else []), text=coded.label or coded.code)
    return _Said((system, code or coded.label), statement)


def _add(reading: Reading, segment: Segment, said: _Said, *, keep: bool = True) -> str:
    allergy: Resource = {
        "resourceType": "AllergyIntolerance",
        "id": resource_id("allergy", reading.patient_id, *said.identity),
        **said.statement,
        "patient": reference(reading.patient_id),
    }
    number = 6 if segment.name == "AL1" else 11
    onset = reading.time(segment[number], f"{segment.name}-{number}")
    if isinstance(onset, Timestamp):
        allergy["onsetDateTime"] = onset.text
    if keep:
        reading.add(allergy)
    return str(allergy["id"])


def _classify(reading: Reading, segment: Segment, allergy: Resource) -> None:
    codes = reading.codes
    kind = segment.code(2).upper()
    row = codes.allergy_types.get(kind) if kind else None
    if row is not None:
        if row.type:
            allergy["type"] = row.type
        if row.category:
            allergy["category"] = [row.category]
    elif kind:
        reading.unknown_code("allergy.type", kind, "AL1-2")
    severity = segment.code(4).upper()
    said = codes.allergy_severities.get(severity, _NONE_SAID) if severity else _NONE_SAID
    if said.criticality:
        allergy["criticality"] = said.criticality
    reactions: list[Json] = []
    for repetition in segment[5]:
        label = CWE.read(repetition).label or repetition.component(1).strip()
        if label:
            reaction: Resource = {"manifestation": [concept(text=label)]}
            if said.severity:
                reaction["severity"] = said.severity
            reactions.append(reaction)
    if reactions:
        allergy["reaction"] = reactions
