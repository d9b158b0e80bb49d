"""Owns IN1: insurance, as Coverage and the Organization that pays."""

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import TERMINOLOGY, Json, Resource, coding, concept, reference
from tocengine.formats.hl7v2.datatypes import CWE, CX
from tocengine.formats.hl7v2.parser import Segment
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading, clean
from tocengine.normalize.rules.practitioners import practice

_CLASS = TERMINOLOGY + "coverage-class"
_GROUP, _PLAN = concept(coding(_CLASS, "group")), concept(coding(_CLASS, "plan"))
_RELATIONSHIP = TERMINOLOGY + "subscriber-relationship"


def read(reading: Reading) -> None:
    """One Coverage per IN1 that names who pays; FHIR demands a payor."""
    for segment in reading.segments("IN1"):
        payer = practice(reading, segment[4], "IN1-4") if segment[4] else None
        if payer is None or not payer.name:
            reading.flag("payer_missing:IN1-4")
            continue
        number = clean(CX.read(segment[3]).value) if segment[3] else ""
        organization = fhir.organization(payer, f"payer:{number}", reading.source.domains)
        reading.add(_coverage(reading, segment, reading.add(organization), str(organization["id"])))


def _coverage(reading: Reading, segment: Segment, payor: Resource, payor_id: str) -> Resource:
    subscriber = clean(CX.read(segment[49]).value) or clean(segment[36].component(1))
    plan = CWE.read(segment[2])
    coverage: Resource = {
        "resourceType": "Coverage",
        "id": resource_id("coverage", reading.patient_id, payor_id, subscriber, plan.code),
        "status": "active",
        "beneficiary": reference(reading.patient_id),
    }
    if subscriber:
        coverage["subscriberId"] = subscriber
    relationship = segment[17].component(1).strip().upper()
    known = reading.codes.subscribers.get(relationship) if relationship else None
    if known:
        coverage["relationship"] = concept(coding(_RELATIONSHIP, known))
    elif relationship:
        coverage["relationship"] = reading.local_concept("IN1-17", relationship)
    period: dict[str, Json] = {}
    starts, ends = reading.time(segment[12], "IN1-12"), reading.time(segment[13], "IN1-13")
    if isinstance(starts, Timestamp):
        period["start"] = starts.text
    if isinstance(ends, Timestamp) and (not isinstance(starts, Timestamp) or fhir.in_order(starts, ends)):
        period["end"] = ends.text
    if period:
        coverage["period"] = period
    coverage["payor"] = [payor]
    classes: list[Json] = []
    if group := clean(segment[8].component(1)):
        classes.append({"type": _GROUP, "value": group})
    if plan.code:
        classes.append({"type": _PLAN, "value": plan.code, **({"name": plan.label} if plan.label else {})})
    if classes:
        coverage["class"] = classes
    return coverage
