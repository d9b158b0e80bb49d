"""Owns IN1: insurance, as Coverage and the Organization that pays."""

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import (
    TERMINOLOGY,
    Json,
    Resource,
    coding,
    concept,
    identifier,
    local_system,
    reference,
)
from tocengine.formats.hl7v2.datatypes import CWE, CX
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.identity import Organization
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading, clean
from tocengine.normalize.rules.coded import concept_in
from tocengine.normalize.rules.contacts import related_id
from tocengine.normalize.rules.patient import fhir_address, identifiers, person_name, telecom
from tocengine.normalize.rules.practitioners import practice

_CLASS = TERMINOLOGY + "coverage-class"
_GROUP, _PLAN = concept(coding(_CLASS, "group")), concept(coding(_CLASS, "plan"))
_SUBSCRIBER = "SN"
_RELATIONSHIP = TERMINOLOGY + "subscriber-relationship"


def read(reading: Reading) -> None:
    """One Coverage per IN1 that names who pays; FHIR demands a payor."""
    for segment in reading.segments("IN1"):
        organization = reading.once_of(_payer, segment, 3, 4, 5, 7)
        if organization is None:
            reading.flag("payer_missing:IN1-4")
            continue
        reading.add(_coverage(reading, segment, reading.add(organization), str(organization["id"])))


def _payer(reading: Reading, segment: Segment) -> Resource | None:
    payer = practice(reading, segment[4], "IN1-4") if segment[4] else None
    if payer is None or not payer.name:
        return None
    number = clean(CX.read(segment[3]).value) if segment[3] else ""
    organization = fhir.organization(payer, f"payer:{number}", reading.source.domains)
    if points := [point for each in segment[7] if (point := telecom(reading, each, "work")) is not None]:
        organization["telecom"] = list(points)
    if addresses := [shown for each in segment[5] if (shown := fhir_address(reading, each))]:
        organization["address"] = list(addresses)
    return organization


def _coverage(reading: Reading, segment: Segment, payor: Resource, payor_id: str) -> Resource:
    policy = clean(segment.component(36, 1))
    subscriber = _member(reading, segment) or policy
    plan = CWE.read(segment[2])
    coverage: Resource = {
        "resourceType": "Coverage",
        "id": resource_id("coverage", reading.patient_id, payor_id, subscriber, plan.code),
        "status": "active",
        "beneficiary": reference(reading.patient_id),
    }
    numbers: list[Json] = [
        identifier(local_system("feed", reading.message.feed, path), value)
        for path, value in (("IN1-2", clean(plan.code)), ("IN1-36", policy if policy != subscriber else ""))
        if value
    ]
    if numbers:
        coverage["identifier"] = numbers
    if kind := concept_in(reading, segment[15], "IN1-15"):
        coverage["type"] = kind
    if subscriber:
        coverage["subscriberId"] = subscriber
    _relate(reading, segment, coverage)
    if period := _period(reading, segment):
        coverage["period"] = period
    coverage["payor"] = [payor]
    if classes := _classes(segment, plan):
        coverage["class"] = classes
    order = segment[22].text.strip()
    if order.isascii() and order.isdigit() and int(order[:4]) > 0:
        coverage["order"] = int(order[:4])
    if holder := _policy_holder(reading, segment):
        coverage["policyHolder"] = reading.add(holder)
    return coverage


def _member(reading: Reading, segment: Segment) -> str:
    """The subscriber's number: IN1-49, else what IN1-10 calls a subscriber number (CX-5 SN)."""
    for number, wanted in ((49, ""), (10, _SUBSCRIBER)):
        for each in segment[number]:
            found = CX.read(each)
            row = reading.codes.identifier_types.get(found.type.upper())
            kept = row is None or row.keep
            if kept and wanted in ("", found.type.upper()) and (value := clean(found.value)):
                return value
    return ""


def _policy_holder(reading: Reading, segment: Segment) -> Resource | None:
    """The employer (IN1-11) with its numbers in IN1-10: what is no subscriber's number there is the employer's."""
    employer = practice(reading, segment[11], "IN1-11") if segment[11] else None
    named = employer if employer is not None and employer.name else None
    stated = identifiers(reading, (segment[10],), "IN1-10")[0] if segment[10] else ()
    numbers = [each for each in stated if each.type != _SUBSCRIBER]
    if named is None and not numbers:
        return None
    domains = reading.source.domains
    holder = fhir.organization(named or Organization(local=numbers[0]), "employer", domains)
    if numbers:
        known = holder.get("identifier")
        listed = list(known) if named is not None and isinstance(known, list) else []
        holder["identifier"] = listed + [fhir.other_identifier(each, domains, "xx") for each in numbers]
    return holder


def _relate(reading: Reading, segment: Segment, coverage: Resource) -> None:
    """IN1-16 and IN1-17: who holds the policy, and what the patient is to them."""
    code = segment.code(17).upper()
    if not code:
        return
    known = reading.codes.subscribers.get(code)
    if holder := _subscriber(reading, segment, known or code):
        coverage["subscriber"] = holder
    if known:
        coverage["relationship"] = concept(coding(_RELATIONSHIP, known))
    else:
        reading.unknown_code("relationship.subscriber", code, "IN1-17")
        coverage["relationship"] = reading.local_concept("IN1-17", code, segment[17].component(2).strip())


def _period(reading: Reading, segment: Segment) -> Resource:
    return fhir.period(reading.time(segment[12], "IN1-12"), reading.time(segment[13], "IN1-13"))


def _classes(segment: Segment, plan: CWE) -> list[Json]:
    found: list[Json] = []
    if group := clean(segment.component(8, 1)):
        found.append({"type": _GROUP, "value": group})
    if code := clean(plan.code):
        found.append({"type": _PLAN, "value": code, **({"name": plan.label} if plan.label else {})})
    return found


def _subscriber(reading: Reading, segment: Segment, relationship: str) -> Resource | None:
    """Who holds the policy (IN1-16): the patient, or a person related to the patient; None where nobody is named."""
    if relationship == "self":
        return reference(reading.patient_id)
    name = fhir.human_name(person_name(reading, segment[16])) if segment[16] else {}
    given = name.get("given")
    if not (name.get("family") or given):
        return None
    related: Resource = {
        "resourceType": "RelatedPerson",
        "id": related_id(reading, name),
        "active": True,
        "patient": reference(reading.patient_id),
    }
    known = reading.codes.relationships.get(segment.code(17).upper())
    if known is not None:
        related["relationship"] = [known]
    related["name"] = [name]
    born = reading.time(segment[18], "IN1-18")
    if isinstance(born, Timestamp):
        related["birthDate"] = born.text[:10]
    if address := fhir_address(reading, segment[19]) if segment[19] else {}:
        related["address"] = [address]
    return reading.add(related)
