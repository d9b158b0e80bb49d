"""Owns what PID says of the patient's civil life: mother's maiden name, languages, marriage, religion, birth order."""

from tocengine.formats.fhir.resources import STRUCTURE, Json, Resource, concept, extend
from tocengine.formats.hl7v2.datatypes import XPN
from tocengine.formats.hl7v2.segments import Field, Repetition, Segment
from tocengine.normalize.reading import Reading

MOTHERS_NAME = STRUCTURE + "patient-mothersMaidenName"
RELIGION = STRUCTURE + "patient-religion"
_FIELDS = (6, 15, 16, 17, 24, 25)
_DELETED = (
    (6, f"Patient.extension:{MOTHERS_NAME}"),
    (16, "Patient.maritalStatus"),
    (15, "Patient.communication"),
    (17, f"Patient.extension:{RELIGION}"),
)
"""Fields and the element of the chart each deletes if it is sent as ``""``."""


def read(reading: Reading, segment: Segment) -> None:
    """Lays PID-6, -15, -16, -17, -24 and -25 onto the Patient."""
    if not any(segment.sent(_FIELDS)):
        return
    patient = reading.patient
    reading.cleared += [element for number, element in _DELETED if segment[number].null]
    if field := segment[16]:
        _marital_status(reading, field)
    if field := segment[15]:
        spoken: list[Json] = [{"language": found} for each in field if (found := language(reading, each, "PID-15"))]
        if spoken:
            patient["communication"] = spoken
    if (field := segment[6]) and (name := XPN.read(field).family):
        extend(patient, MOTHERS_NAME, valueString=name)
    if field := segment[17]:
        _religion(reading, field)
    order = segment[25].text.strip()
    multiple = segment[24].text.strip().upper()
    if order.isascii() and order.isdigit() and len(order) <= 3:
        patient["multipleBirthInteger"] = int(order)
    elif multiple in ("Y", "N"):
        patient["multipleBirthBoolean"] = multiple == "Y"


def _marital_status(reading: Reading, field: Field) -> None:
    code = field.component(1).strip().upper()
    status = reading.codes.marital_statuses.get(code)
    if status is None and code:
        reading.unknown_code("marital_status.status", code, "PID-16")
        status = reading.local_concept("PID-16", code, field.component(2).strip())
    if status is not None:
        reading.patient["maritalStatus"] = status


def _religion(reading: Reading, field: Field) -> None:
    code, label = field.component(1).strip(), field.component(2).strip()
    known = reading.codes.religions.get(code.upper()) if code else None
    if known is None and code:
        reading.unknown_code("religion.affiliation", code, "PID-17")
        known = reading.local_concept("PID-17", code, label)
    if known is not None or label:
        extend(reading.patient, RELIGION, valueCodeableConcept=known or concept(text=label))


def language(reading: Reading, repetition: Repetition, path: str) -> Resource:
    """A language by its tag, else in the sender's words."""
    code, label = repetition.component(1).strip(), repetition.component(2).strip()
    known = reading.codes.languages.get(code.upper()) if code else None
    if known is None:
        if code:
            reading.unknown_code("language", code, path)
        return concept(text=label or code)
    return {**known, "text": label} if label else known
