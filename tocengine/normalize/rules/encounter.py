"""Owns PV1 and PV2: the visit, as facts and as the Encounter resource."""

from msgspec import UNSET, UnsetType

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import (
    NPI,
    STRUCTURE,
    Json,
    Resource,
    concept,
    extend,
    identifier,
    identifier_type,
    reference,
)
from tocengine.formats.hl7v2.datatypes import CWE, CX, DLD, PL
from tocengine.formats.hl7v2.segments import NULL, Field, Segment
from tocengine.model.facts import (
    CareSetting,
    Destination,
    Disposition,
    EncounterFacts,
    Location,
    PatientClass,
)
from tocengine.model.identity import valid_npi
from tocengine.model.time import Timestamp
from tocengine.normalize.codes import DispositionRow, nubc
from tocengine.normalize.reading import Reading, clean, local_coding
from tocengine.normalize.rules import practitioners
from tocengine.normalize.rules.merge import PRIOR_NUMBER

PLACES = ((3, ""), (6, "completed"), (11, "active"), (42, "planned"))
"""PV1 locations and the Encounter.location.status of each; of the current one it depends on the trigger. PV2-1, where
the patient was to go, is planned too."""
STAY = (
    (13, "reAdmission", False),
    (38, "dietPreference", True),
    (16, "specialCourtesy", True),
    (15, "specialArrangement", True),
)
"""PV1 fields of site-defined codes, and the element of Encounter.hospitalization each goes to (HL7 v2-to-FHIR, PV1)."""
_STAY_FIELDS = (5, *(number for number, _, _ in STAY))
UCUM = "http://unitsofmeasure.org"
NAMES_PRIOR = frozenset({"A01", "A04", "A11"})
"""An arrival, and its cancel, that may name in MRG the visit it grew out of. A06 and A07 name their own former one."""
ARRIVAL = STRUCTURE + "encounter-modeOfArrival"


def read(reading: Reading, visit: Segment, patient: Segment) -> EncounterFacts:
    """The facts of PV1, PV2 and PID-18; builds the Encounter."""
    encounter = reading.encounter
    patient_class, sent, patient_type = _class(reading, visit)
    encounter["resourceType"] = "Encounter"
    encounter["id"] = reading.encounter_id
    _identify(reading, visit[50])
    encounter["status"] = reading.row.status if reading.row else "unknown"
    shown_class = PatientClass.UNKNOWN if patient_class is UNSET else patient_class
    encounter["class"] = fhir.encounter_class(shown_class, sent or "", reading.message.feed)
    encounter["type"] = _types(reading, shown_class, visit[4])
    if reading.patient_id:
        encounter["subject"] = reference(reading.patient_id)
    attending, found_in = practitioners.treating(reading, visit)
    people = practitioners.participants(reading, visit, attending)
    if people:
        encounter["participant"] = people
    encounter["serviceProvider"] = reference(reading.facility_id)
    more = reading.segment("PV2")
    location = _location(reading, visit, more)
    service = _service(reading, visit[10])
    admit_source = _admit_source(reading, visit[14])
    disposition = _disposition(reading, visit[36])
    destination = _destination(reading, visit[37])
    admitted = reading.time(visit[44], "PV1-44")
    discharged = reading.time(visit[45], "PV1-45")
    _period(reading, admitted, discharged)
    _stay(reading, visit)
    expected = _plan(reading, more) if more else UNSET
    return EncounterFacts(
        patient_class=patient_class,
        class_code=sent,
        patient_type=patient_type,
        account_number=_number(reading, patient[18], "account"),
        alternate_visit=_came_from(reading, visit),
        location=location,
        treating=attending,
        treating_source=found_in,
        service=service,
        admit_source=admit_source,
        disposition=disposition,
        destination=destination,
        admitted=admitted,
        discharged=discharged,
        expected_discharge=expected,
        reason=_reason(reading, more),
    )


def _identify(reading: Reading, alternate: Field) -> None:
    """The visit's key, and the alternate visit id (PV1-50) where it is another."""
    visit = reading.visit
    if visit is None:
        return
    system = fhir.domain_system(visit.domain, reading.source.domains, "visit")
    numbers: list[Json] = [identifier(system, visit.value, identifier_type("VN"))]
    other = reading.visit_key(alternate) if alternate else None
    if other is not None and other != visit:
        numbers.append(identifier(fhir.domain_system(other.domain, reading.source.domains, "visit"), other.value))
    reading.encounter["identifier"] = numbers


def _number(reading: Reading, field: Field, path: str) -> str | UnsetType | None:
    if not field:
        return None if field.null else UNSET
    return reading.key(CX.read(field).value, path) or UNSET


def _came_from(reading: Reading, visit: Segment) -> str | UnsetType | None:
    """The alternate visit (PV1-50). Where an arrival on a new number gives none, the number that MRG names as the one
    before: the visit it grew out of (domain 2.2)."""
    number = _number(reading, visit[50], "visit")
    if number is not UNSET or reading.trigger not in NAMES_PRIOR:
        return number
    prior = reading.segment("MRG")
    return (
        _number(reading, prior[PRIOR_NUMBER[reading.source.profile.visit_key]], "visit") if prior else None
    ) or UNSET


def _class(reading: Reading, visit: Segment) -> tuple[PatientClass | UnsetType, str | UnsetType, str | UnsetType]:
    """The mapped class with what was sent: PV1-18 where the feed maps it, else PV1-2. Unmapped is UNKNOWN."""
    codes = reading.codes
    sent = visit.code(2)
    kind = visit.code(18)
    mapped = codes.patient_types.get(kind) if kind else None
    if mapped is None and sent:
        mapped = codes.classes.get(sent) or codes.classes.get(sent.upper())
        if mapped is None:
            reading.unknown_code("class", sent, "PV1-2")
            mapped = PatientClass.UNKNOWN
    return mapped or UNSET, sent or UNSET, kind or UNSET


_TYPES = {patient_class: concept(text=text) for patient_class, text in fhir.ENCOUNTER_TYPE.items()}


def _types(reading: Reading, patient_class: PatientClass, field: Field) -> list[Json]:
    """What the class says in words, and the admission type (PV1-4)."""
    found: list[Json] = [_TYPES[patient_class]]
    code = field.component(1).strip() if field else ""
    if code:
        known = reading.codes.admission_types.get(code)
        if known is None:
            reading.unknown_code("visit.admission_type", code, "PV1-4")
            known = reading.local_concept("PV1-4", code, field.component(2).strip())
        found.append(known)
    return found


def _stay(reading: Reading, visit: Segment) -> None:
    """What else PV1 says of the hospitalization: readmission, diet, arrangements, courtesies, the preadmit number."""
    if not any(visit.sent(_STAY_FIELDS)):
        return
    if field := visit[5]:
        found = CX.read(field)
        if value := clean(found.value):
            domain = reading.domain(found.authority) or reading.visit_domain()
            system = fhir.domain_system(domain, reading.source.domains, "visit")
            _hospitalization(reading)["preAdmissionIdentifier"] = identifier(system, value)
    for number, name, many in STAY:
        field = visit[number]
        if not field:
            continue
        concepts: list[Json] = [
            reading.local_concept(f"PV1-{number}", code, each.component(2).strip())
            for each in field
            if (code := each.component(1).strip())
        ]
        if concepts:
            _hospitalization(reading)[name] = concepts if many else concepts[0]


def _plan(reading: Reading, more: Segment) -> Timestamp | UnsetType | None:
    """PV2: priority, mode of arrival and length of stay, onto the Encounter; gives the expected discharge (PV2-9)."""
    if field := more[25]:
        code = field.component(1).strip()
        known = reading.codes.priorities.get(code) if code else None
        if code and known is None:
            reading.unknown_code("visit.priority", code, "PV2-25")
            known = reading.local_concept("PV2-25", code, field.component(2).strip())
        if known is not None:
            reading.encounter["priority"] = known
    if (field := more[38]).raw:
        _arrival(reading, field)
    days = more[11].text.strip()
    if days.isascii() and days.isdigit() and len(days) <= 5:
        reading.encounter["length"] = {"value": int(days), "unit": "days", "system": UCUM, "code": "d"}
    return reading.time(more[9], "PV2-9")


def _arrival(reading: Reading, field: Field) -> None:
    if field.null:
        reading.cleared.append(f"Encounter.extension:{ARRIVAL}")
    code = field.component(1).strip()
    if not code:
        return
    known = reading.codes.arrivals.get(code.upper())
    if known is None:
        reading.unknown_code("visit.arrival", code, "PV2-38")
        known = local_coding(reading.message.feed, "PV2-38", code)
    extend(reading.encounter, ARRIVAL, valueCoding=known)


def place(reading: Reading, field: Field) -> Location:
    """A PL with what the feed's `location_map` knows of the unit."""
    return reading.once(_place, field.raw)


def _place(reading: Reading, raw: str) -> Location:
    found = PL.read(reading.field(raw))
    facility = found.facility.namespace or found.facility.universal_id
    traits = reading.source.profile.location_map.get(found.unit)
    if traits is None:
        return Location(unit=found.unit, room=found.room, bed=found.bed, facility=facility)
    return Location(
        unit=found.unit,
        room=found.room,
        bed=found.bed,
        facility=traits.facility or facility,
        level_of_care=traits.level_of_care,
        sensitivity=traits.sensitivity,
        part2=traits.part2,
    )


def _bed(reading: Reading, found: Location) -> Resource:
    return fhir.location(found, reading.facility_id)


def _location(reading: Reading, visit: Segment, more: Segment) -> Location | UnsetType | None:
    current: Location | UnsetType | None = UNSET
    listed: list[Json] = []
    status = reading.encounter["status"]
    for number, state in PLACES:
        field = visit[number]
        if not field:
            if number == 3 and field.null:
                reading.cleared.append("Encounter.location")
                current = None
            continue
        found = place(reading, field)
        if not fhir.location_name(found):
            continue
        state = state or {"finished": "completed", "planned": "planned"}.get(str(status), "active")
        listed.append({"location": reading.add(reading.once(_bed, found)), "status": state})
        if number == 3:
            current = found
    if more[1] and fhir.location_name(pending := place(reading, more[1])):
        listed.append({"location": reading.add(fhir.location(pending, reading.facility_id)), "status": "planned"})
    if listed:
        reading.encounter["location"] = listed
    return current


def _service(reading: Reading, field: Field) -> str | UnsetType | None:
    code = field.component(1).strip()
    if not code:
        if field.null:
            reading.cleared.append("Encounter.serviceType")
        return None if field.null else UNSET
    known = reading.codes.services.get(code)
    if known is None:
        reading.unknown_code("service", code, "PV1-10")
        known = reading.local_concept("PV1-10", code, field.component(2).strip())
    reading.encounter["serviceType"] = known
    return code


def _admit_source(reading: Reading, field: Field) -> str | UnsetType | None:
    code = field.component(1).strip()
    if not code:
        if field.null:
            reading.cleared.append("Encounter.hospitalization.admitSource")
        return None if field.null else UNSET
    known = reading.codes.admit_sources.get(code)
    if known is None:
        reading.unknown_code("admit_source", code, "PV1-14")
        known = reading.local_concept("PV1-14", code)
    _hospitalization(reading)["admitSource"] = known
    return code


def _hospitalization(reading: Reading) -> dict[str, Json]:
    found = reading.encounter.setdefault("hospitalization", {})
    assert isinstance(found, dict)
    return found


def _disposition(reading: Reading, field: Field) -> Disposition | UnsetType | None:
    """PV1-36: the feed's own map first, then, if the feed declares it, digits as NUBC codes. Never home by default."""
    raw = field.component(1).strip()
    if not raw:
        if field.null:
            reading.cleared.append("Encounter.hospitalization.dischargeDisposition")
        return None if field.null else UNSET
    if any(each.component(1).strip() not in ("", raw) for each in field):
        reading.flag("repeated:PV1-36")
    found, shown = reading.once(_disposed, raw)
    _hospitalization(reading)["dischargeDisposition"] = shown
    if found.care_setting is CareSetting.STILL_PATIENT:
        reading.flag("still_patient")
    return found


def _disposed(reading: Reading, raw: str) -> tuple[Disposition, Resource]:
    codes = reading.codes
    code = codes.local_dispositions.get(raw)
    if code is None and reading.source.profile.nubc_dispositions:
        code = nubc(raw)
    row: DispositionRow | None = codes.dispositions.get(nubc(code) or "") if code else None
    if row is None or code is None:
        reading.unknown_code("disposition", raw, "PV1-36")
        found = Disposition(raw=raw)
    else:
        if row.retired:
            reading.flag("retired:PV1-36")
        found = Disposition(raw, nubc(code), row.setting, row.planned_readmission)
    return found, fhir.disposition_concept(found.code, row.fhir if row else None, raw, reading.message.feed)


def _destination(reading: Reading, field: Field) -> Destination | UnsetType | None:
    """PV1-37: a code or free text; a national provider identifier is told by its check digit. An ``&`` is text."""
    if not field:
        if field.null:
            reading.cleared.append("Encounter.hospitalization.destination")
        return None if field.null else UNSET
    found = reading.once(_going_to, field.raw)
    if found is None:
        return UNSET
    _hospitalization(reading)["destination"] = reading.add(reading.once(_destined, found))
    return found


def _going_to(reading: Reading, raw: str) -> Destination | None:
    read_ = DLD.read(reading.field(raw))
    named = "&".join(part for part in read_.location.split("&") if part.strip() != NULL)
    text = " ".join(named.split())
    if not text:
        return None
    number = reading.codes.destinations.get(text.casefold(), text)
    npi = number if valid_npi(number) else None
    ccn = number.upper() if _is_ccn(number) else None
    stated = reading.stated(read_.effective, "PV1-37.2")
    return Destination(text, npi, ccn, stated.text[:10] if isinstance(stated, Timestamp) else None)


def _destined(reading: Reading, found: Destination) -> Resource:
    shown: Resource = {
        "resourceType": "Location",
        "id": resource_id("destination", found.text, found.npi or "", found.ccn or ""),
        "status": "active",
        "name": found.text,
    }
    if found.npi:
        shown["identifier"] = [identifier(NPI, found.npi)]
    return shown


def _is_ccn(text: str) -> bool:
    """Whether it has the form of a CMS certification number: two digits of a state, four characters."""
    return len(text) == 6 and text.isascii() and text.isalnum() and text[:2].isdigit() and text[3:].isdigit()


def _period(reading: Reading, admitted: Timestamp | UnsetType | None, discharged: Timestamp | UnsetType | None) -> None:
    """Encounter.period. An end is stated by a discharge alone: elsewhere PV1-45 is a plan or a default."""
    period: dict[str, Json] = {}
    if isinstance(admitted, Timestamp):
        period["start"] = admitted.text
    elif admitted is None:
        reading.cleared.append("Encounter.period.start")
    if isinstance(discharged, Timestamp) and reading.trigger == "A03":
        if isinstance(admitted, Timestamp) and not fhir.in_order(admitted, discharged):
            reading.flag("discharge_before_admit")
        else:
            period["end"] = discharged.text
    elif discharged is None:
        reading.cleared.append("Encounter.period.end")
    if period:
        reading.encounter["period"] = period


def _reason(reading: Reading, more: Segment) -> str | UnsetType | None:
    """PV2-3: why the patient came, in words or as a code of the feed's own."""
    field = more[3]
    if not field:
        if field.null:
            reading.cleared.append("Encounter.reasonCode")
        return None if field.null else UNSET
    found = CWE.read(field)
    label = found.label or found.code
    if not label:
        return UNSET
    reading.encounter["reasonCode"] = [
        reading.local_concept("PV2-3", found.code, found.label) if found.code and found.label else concept(text=label)
    ]
    return label
