"""Owns OBX: observations that matter to those who take over the care; the rest stays in the message."""

from decimal import Decimal

from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import Json, Resource, reference
from tocengine.formats.hl7v2.datatypes import CWE
from tocengine.formats.hl7v2.segments import Field, Segment
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading
from tocengine.normalize.rules.coded import concept_of, instance

_COMPARATORS = frozenset({"<", "<=", ">=", ">"})
_COMPARED = _COMPARATORS | {"="}
_LONGEST_NUMBER = 30


def read(reading: Reading) -> None:
    """One Observation per OBX whose code is kept (table `observation`); a repeated one is told apart by its place."""
    seen: dict[str, int] = {}
    kept: dict[str, bool] = {}  # by the code as sent: the same few come again and again, and most are not kept
    for segment in reading.segments("OBX"):
        sent = segment.sent_as(3)
        if sent not in kept:
            kept[sent] = reading.once_of(_is_kept, segment, 3)
        if not kept[sent]:
            continue
        coded = CWE.read(segment[3])
        named = concept_of(reading, coded, "OBX-3")
        if not named:
            continue
        scope = reading.encounter_id or reading.patient_id
        what = (scope, coded.system, coded.code or str(named.get("text", "")), segment[4].text.strip())
        identity = resource_id("observation", *what)
        seen[identity] = seen.get(identity, 0) + 1
        if seen[identity] > 1:
            identity = resource_id("observation", *what, str(seen[identity]))
        reading.add(_observation(reading, segment, identity, named))


def _is_kept(reading: Reading, segment: Segment) -> bool:
    kept = reading.codes.observations_kept
    return kept.get(segment.code(3)) is not None or kept.get(segment.component(3, 4).strip()) is not None


def _observation(reading: Reading, segment: Segment, identity: str, named: Resource) -> Resource:
    sent = segment.code(11).upper()
    status = reading.codes.observation_statuses.get(sent) if sent else None
    if sent and status is None:
        reading.unknown_code("observation.status", sent, "OBX-11")
    observation: Resource = {
        "resourceType": "Observation",
        "id": identity,
        "status": status or "unknown",
        "code": named,
        "subject": reference(reading.patient_id),
    }
    if numbers := instance(reading, segment[21], "OBX-21"):
        observation["identifier"] = numbers
    if reading.encounter_id:
        observation["encounter"] = reference(reading.encounter_id)
    at = reading.time(segment[14], "OBX-14")
    if isinstance(at, Timestamp):
        observation["effectiveDateTime"] = at.text
    observation.update(_value(reading, segment))
    if flags := _interpretation(reading, segment[8]):
        observation["interpretation"] = flags
    if usual := segment[7].text.strip():
        observation["referenceRange"] = [{"text": usual}]
    return observation


def _interpretation(reading: Reading, field: Field) -> list[Json]:
    found: list[Json] = []
    for each in field if field else ():
        code = each.component(1).strip()
        if not code:
            continue
        known = reading.codes.interpretations.get(code.upper())
        if known is None:
            reading.unknown_code("observation.interpretation", code, "OBX-8")
            found.append(reading.local_concept("OBX-8", code, each.component(2).strip()))
        else:
            found.append(known)
    return found


def _value(reading: Reading, segment: Segment) -> Resource:
    """``value[x]`` of OBX-5, by the type in OBX-2; nothing, and a flag, where it cannot be read as that."""
    field = segment[5]
    if not field:
        return {}
    kind = segment[2].text.strip().upper()
    how = reading.codes.observation_values.get(kind)
    found: Resource = {}
    if how == "text":
        found = {"valueString": text} if (text := _text(field)) else {}
    elif how == "code":
        value = concept_of(reading, CWE.read(field), "OBX-5")
        found = {"valueCodeableConcept": value} if value else {}
    elif how == "time":
        at = reading.time(field, "OBX-5")
        found = {"valueDateTime": at.text} if isinstance(at, Timestamp) else {}
    elif how in ("quantity", "comparison"):
        found = _quantity(reading, field, segment[6], how)
    if not found:
        reading.flag("unreadable:OBX-5")
    return found


def _text(field: Field) -> str:
    return "\n".join(line for each in field if (line := each.text.strip()))


def _quantity(reading: Reading, field: Field, unit: Field, how: str) -> Resource:
    """A Quantity of one number; several numbers, or a structured one, as the text they are."""
    structured = how == "comparison"
    comparator = field.component(1).strip() if structured else ""
    number = _number(field.component(2 if structured else 1).strip())
    plain = len(list(field)) == 1 and not (structured and (field.component(3).strip() or field.component(4).strip()))
    if number is None or not plain or (comparator and comparator not in _COMPARED):
        joined = " ".join(part for number in range(1, 5) if (part := field.component(number).strip()))
        text = joined if structured else _text(field)
        return {"valueString": text} if text else {}
    quantity: Resource = {"value": number}
    if comparator in _COMPARATORS:
        quantity["comparator"] = comparator
    named = CWE.read(unit) if unit else CWE()
    if named.text or named.code:
        quantity["unit"] = named.text or named.code
    system = reading.codes.unit_systems.get(named.system.upper()) if named.code and named.system else None
    if system:
        quantity["system"] = system
        quantity["code"] = " ".join(named.code.split())
    return {"valueQuantity": quantity}


def _number(text: str) -> int | Decimal | None:
    """A decimal of HL7 type NM, with the digits it was sent with; no exponent, no words."""
    bare = text.lstrip("+-")
    if not bare or len(text) > _LONGEST_NUMBER or bare.count(".") > 1 or not bare.replace(".", "").isdecimal():
        return None
    if not bare.isascii() or len(text) - len(bare) > 1:
        return None
    value = Decimal(text)
    return int(value) if "." not in bare and abs(value) < 2**53 else value
