"""Owns the Encounter of a notification: the tracked state and facts, with what only the chart knows, at a level."""

from collections.abc import Mapping
from datetime import UTC, datetime

from tocengine.formats.fhir import facts
from tocengine.formats.fhir.chart import participation
from tocengine.formats.fhir.disclosure import Disclosure
from tocengine.formats.fhir.elements import declared
from tocengine.formats.fhir.ids import URN, encounter_id, facility_id, patient_id, resource_id
from tocengine.formats.fhir.patient import Rendered, practitioner
from tocengine.formats.fhir.resources import (
    CCN,
    DA_VINCI,
    NPI,
    NUBC_DISPOSITION,
    PARTICIPATION,
    RESTRICTED,
    US_CORE,
    Json,
    Resource,
    absent,
    coding,
    concept,
    concept_code,
    identifier,
    identifier_type,
    profiled,
    reference,
)
from tocengine.model.directory import Recipient, RecipientKind
from tocengine.model.encounter import Snapshot, TransitionKind, TransitionStatus
from tocengine.model.facts import MarkEffect, PatientClass, known, standing
from tocengine.model.notice import Basis, Notice
from tocengine.model.profile import IdentifierDomain
from tocengine.model.time import Timestamp

DISCHARGES = frozenset(
    {TransitionKind.ED_DISCHARGE, TransitionKind.INPATIENT_DISCHARGE, TransitionKind.PATIENT_EXPIRED}
)
_REACHED = frozenset({"telecom", "address"})
_ANY = datetime.min.replace(tzinfo=UTC)
ATTENDING = concept(coding(PARTICIPATION, "ATND"))


def tracked_encounter(
    notice: Notice,
    snapshot: Snapshot,
    carried: Mapping[str, Resource],
    recipient: Recipient,
    level: Disclosure,
    domains: Mapping[str, IdentifierDomain],
) -> Rendered:
    """The adt-notification-encounter and what it refers to. Not for what the level hides."""
    identity = encounter_id(snapshot.visit)
    charted = declared(carried.get(URN + identity, {}), "Encounter")
    status = encounter_status(notice, snapshot)
    said = snapshot.encounter
    patient_class = known(said.patient_class) or PatientClass.UNKNOWN
    others: list[Resource] = []
    content: dict[str, Json] = {
        "identifier": _identifiers(snapshot, domains),
        "status": status,
        "class": facts.encounter_class(patient_class, known(said.class_code) or "", snapshot.feed),
        "classHistory": _class_history(snapshot),
        "type": [concept(text=facts.ENCOUNTER_TYPE[patient_class])],
        "subject": reference(patient_id(snapshot.patient_key)),
        "participant": _participants(snapshot, charted, carried, level, domains, others),
        "period": _period(notice, snapshot, status, whole=level.times),
        "hospitalization": _hospitalization(notice, snapshot, charted, recipient, status, level, others),
        "location": _location(snapshot, status, others) if "location" in level.encounter else None,
        "serviceProvider": reference(facility_id(snapshot.facility)),
    }
    for name in ("serviceType", "priority", "reasonCode", "diagnosis"):
        if name in charted:
            content[name] = charted[name]
    found: Resource = {
        "resourceType": "Encounter",
        "id": identity,
        "meta": _meta(snapshot),
        **{name: value for name, value in content.items() if name in level.encounter and value},
    }
    return Rendered(found, others)


def _meta(snapshot: Snapshot) -> Resource:
    """The profile, and the security label of a visit that is told though it is marked."""
    meta = profiled(DA_VINCI + "adt-notification-encounter")
    marked = standing(snapshot.patient, snapshot.encounter).values()
    return {**meta, "security": [RESTRICTED]} if set(marked) - {MarkEffect.NOTE} else meta


def encounter_status(notice: Notice, snapshot: Snapshot) -> str:
    """Encounter.status: of the tracked state; a death is told as a discharge, a wrong patient as an error."""
    if notice.status is TransitionStatus.RETRACTED:
        return "entered-in-error"
    if notice.status is not TransitionStatus.CANCELLED and notice.fact_kind in DISCHARGES:
        return "finished"
    return facts.ENCOUNTER_STATUS[snapshot.state]


def _identifiers(snapshot: Snapshot, domains: Mapping[str, IdentifierDomain]) -> list[Json]:
    visit = snapshot.visit
    return [identifier(facts.domain_system(visit.domain, domains, "visit"), visit.value, identifier_type("VN"))]


def _class_history(snapshot: Snapshot) -> list[Json] | None:
    """The starts of the phases, where there was more than one (three-midnight rule of the SNF benefit)."""
    if len(snapshot.phases) < 2:
        return None
    history: list[Json] = []
    for position, (phase, start) in enumerate(snapshot.phases):
        period: Resource = {"start": start.text}
        if position + 1 < len(snapshot.phases) and facts.in_order(start, end := snapshot.phases[position + 1][1]):
            period["end"] = end.text
        history.append({"class": facts.ENCOUNTER_CLASS[PatientClass(phase)], "period": period})
    return history


def _period(notice: Notice, snapshot: Snapshot, status: str, *, whole: bool) -> Resource | None:
    """When the encounter began and, once it is over, ended. Of a stay that goes on there is no end to tell."""
    said = snapshot.encounter
    start = known(said.admitted) or (snapshot.phases[0][1] if snapshot.phases else None)
    end = known(said.discharged)
    finished = status == "finished"
    if not whole:
        return {"end": notice.effective} if finished else {"start": notice.effective}
    period: Resource = {}
    if start:
        period["start"] = start.text
    if finished:
        ended = end or _stated(notice.effective)
        if start is None or facts.in_order(start, ended):
            period["end"] = ended.text
    return period


def _stated(text: str) -> Timestamp:
    """A FHIR dateTime as a time; of a date, which is compared as text, any instant will do."""
    return Timestamp(text=text, at=datetime.fromisoformat(text) if len(text) > 10 else _ANY)


def _participants(
    snapshot: Snapshot,
    charted: Resource,
    carried: Mapping[str, Resource],
    level: Disclosure,
    domains: Mapping[str, IdentifierDomain],
    others: list[Resource],
) -> list[Json]:
    treating = known(snapshot.encounter.treating)
    if treating is None:  # CMS wants the name: say openly that there was none
        shown: list[Json] = [
            {"type": [ATTENDING], "individual": {"_reference": absent("unknown"), "display": "not supplied"}}
        ]
    else:
        person = practitioner(treating, encounter_id(snapshot.visit), domains)
        others.append(person)
        shown = [{"type": [ATTENDING], "individual": reference(str(person["id"]))}]
    listed = charted.get("participant")
    for item in listed if isinstance(listed, list) else ():
        code = participation(item)
        if code == "ATND" or code not in level.participants or not isinstance(item, dict):
            continue
        match item.get("individual"):
            case {"reference": str(url)} if url in carried:
                others.append(_as_us_core(carried[url]))
                shown.append(item)
    return shown


def _as_us_core(person: Resource) -> Resource:
    """A Practitioner of the chart; how somebody is reached may be at home, and is no part of a notice."""
    shown = {name: value for name, value in declared(person, "Practitioner").items() if name not in _REACHED}
    found: Resource = {**shown, "meta": profiled(US_CORE + "us-core-practitioner")}
    if "identifier" not in found:
        found["identifier"] = [{"_system": absent("unknown"), "_value": absent("unknown")}]
    if "name" not in found:
        found["name"] = [{"_family": absent("unknown")}]
    return found


def _location(snapshot: Snapshot, status: str, others: list[Resource]) -> list[Json] | None:
    place = known(snapshot.encounter.location)
    if place is None or not facts.location_name(place):
        return None
    found = facts.location(place, facility_id(snapshot.facility))
    found["meta"] = profiled(US_CORE + "us-core-location")
    others.append(found)
    state = {"finished": "completed", "planned": "planned"}.get(status, "active")
    return [{"location": reference(str(found["id"])), "status": state}]


def _hospitalization(
    notice: Notice,
    snapshot: Snapshot,
    charted: Resource,
    recipient: Recipient,
    status: str,
    level: Disclosure,
    others: list[Resource],
) -> Resource:
    before = charted.get("hospitalization")
    carried = before if isinstance(before, dict) else {}
    found: Resource = {}
    if "admitSource" in level.hospitalization and carried.get("admitSource"):
        found["admitSource"] = carried["admitSource"]
    if status != "finished":  # before the discharge it is a plan, after its cancellation it is wrong
        return found
    if "dischargeDisposition" in level.hospitalization:
        concept_ = _disposition(snapshot, carried.get("dischargeDisposition"))
        if concept_:
            found["dischargeDisposition"] = concept_
    if "destination" in level.hospitalization and notice.fact_kind is not TransitionKind.PATIENT_EXPIRED:
        place = _destination(notice, snapshot, recipient)
        if place:
            others.append(place)
            found["destination"] = reference(str(place["id"]))
    return found


def _disposition(snapshot: Snapshot, charted: Json) -> Resource | None:
    """What the chart says where it speaks of the tracked disposition, else the tracked code alone."""
    tracked = known(snapshot.encounter.disposition)
    if tracked is None:
        return None
    if isinstance(charted, dict) and concept_code(charted, NUBC_DISPOSITION) == tracked.code:
        return charted
    return facts.disposition_concept(tracked.code, None, tracked.raw, snapshot.feed) or None


def _destination(notice: Notice, snapshot: Snapshot, recipient: Recipient) -> Resource | None:
    """Where the patient goes: the recipient, if that is who was named, else the place in the sender's words."""
    named = known(snapshot.encounter.destination)
    if Basis.DESTINATION in notice.basis and recipient.kind is RecipientKind.FACILITY:
        name, npi, ccn = recipient.name, recipient.npi, recipient.ccn
        identity = resource_id("destination", recipient.recipient_id)
    elif named is not None and (named.text or named.npi or named.ccn):
        name, npi, ccn = named.text, named.npi, named.ccn
        identity = resource_id("destination", name, npi or "", ccn or "")
    else:
        return None
    found: Resource = {
        "resourceType": "Location",
        "id": identity,
        "meta": profiled(US_CORE + "us-core-location"),
        "status": "active",
    }
    numbers: list[Json] = [identifier(NPI, npi)] if npi else []
    if ccn and not npi:
        numbers.append(identifier(CCN, ccn))
    if numbers:
        found["identifier"] = numbers
    if name:
        found["name"] = name
    else:
        found["_name"] = absent("unknown")
    return found
