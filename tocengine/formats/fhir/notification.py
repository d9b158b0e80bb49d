"""Owns the Da Vinci notification: one notice as a FHIR R4 message Bundle, at the notice's disclosure level.

A notice renders the accumulated encounter, not the message that triggered it: what the engine tracks (status, class,
times, disposition, destination, people) comes from the snapshot, what it only carries (diagnoses, allergies,
coverage, contacts) from the chart. What a level discloses is listed, and everything else stays out.
The same arguments give the same bytes.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import orjson

from tocengine.formats.fhir import facts
from tocengine.formats.fhir.chart import resources_of
from tocengine.formats.fhir.disclosure import Disclosure, disclosure_of
from tocengine.formats.fhir.elements import declared
from tocengine.formats.fhir.encounter import tracked_encounter
from tocengine.formats.fhir.ids import URN, encounter_id, facility_id, full_url, patient_id, resource_id
from tocengine.formats.fhir.patient import tracked_patient
from tocengine.formats.fhir.resources import (
    ASSEMBLER,
    AUTHOR,
    DA_VINCI,
    US_CORE,
    UUIDS,
    Json,
    Resource,
    coding,
    concept,
    entry,
    identifier,
    is_withdrawn,
    local_system,
    profiled,
    reference,
    references_in,
)
from tocengine.model.directory import Recipient
from tocengine.model.encounter import Snapshot, TransitionKind, TransitionStatus
from tocengine.model.message import ContentType
from tocengine.model.notice import Notice
from tocengine.model.profile import EngineIdentity, SendingFacility

EVENT_SYSTEM = "http://hl7.org/fhir/us/davinci-alerts/CodeSystem/notification-event"
_EVENT_NAMES = {
    "admit": "Admit Notification",
    "discharge": "Discharge Notification",
    "transfer": "Transfer Notification",
}
_EVENTS: Mapping[TransitionKind, str] = {
    TransitionKind.ED_REGISTRATION: "admit",
    TransitionKind.INPATIENT_ADMIT: "admit",
    TransitionKind.OBSERVATION_START: "admit",
    TransitionKind.ED_DISCHARGE: "discharge",
    TransitionKind.INPATIENT_DISCHARGE: "discharge",
    TransitionKind.PATIENT_EXPIRED: "discharge",
    TransitionKind.LOCATION_CHANGE: "transfer",
}
_CHANGES = {
    TransitionStatus.UPDATED: "Corrects an earlier notice",
    TransitionStatus.CANCELLED: "Cancels an earlier notice: what it told did not stand",
    TransitionStatus.RETRACTED: "Retracts an earlier notice: it was sent in error",
}


def render_notification(
    notice: Notice, snapshot: Snapshot, chart: bytes, recipient: Recipient, url: str, engine: EngineIdentity
) -> bytes:
    """The notifications-bundle (Da Vinci Unsolicited Notifications 1.1.0) of `notice` for the endpoint at `url`.

    `chart` is the snapshot's collection Bundle. Cancellations have no code of their own: the event code is that of
    the fact, `Encounter.status` says what became of it, and an extension names the notice it replaces.
    """
    level = disclosure_of(notice)
    carried = _carried(chart, snapshot)
    owner = engine.facilities.get(snapshot.facility) or SendingFacility(id=snapshot.facility, name=snapshot.facility)
    patient = tracked_patient(snapshot, carried, level, engine.domains)
    encounter = tracked_encounter(notice, snapshot, carried, recipient, level, engine.domains)
    operator = _operator(engine)
    header = _header(notice, encounter.resource, owner, operator, recipient, url, engine)
    resources = [
        header,
        encounter.resource,
        patient.resource,
        facts.sending_facility(owner),
        operator,
        _provenance(notice, snapshot, header, owner, operator),
        *patient.others,
        *encounter.others,
        *_carried_along(carried, level),
    ]
    return orjson.dumps(
        {
            "resourceType": "Bundle",
            "id": str(notice.notice_id),
            "meta": profiled(DA_VINCI + "notifications-bundle"),
            "identifier": identifier(UUIDS, full_url(notice.notice_id)),
            "type": "message",
            "timestamp": notice.created_at.isoformat(),
            "entry": [entry(resource) for resource in _resolved(resources)],
        }
    )


def _carried(chart: bytes, snapshot: Snapshot) -> dict[str, Resource]:
    """The chart's resources, under the ids of the tracked patient and encounter (after a merge they differ)."""
    found = resources_of(chart)
    for kind, wanted in (
        ("Patient", patient_id(snapshot.patient_key)),
        ("Encounter", encounter_id(snapshot.visit)),
    ):
        others = [url for url, known in found.items() if known["resourceType"] == kind and url != URN + wanted]
        for url in others:
            chart = chart.replace(url.encode(), (URN + wanted).encode())
            found = resources_of(chart)
            found = {
                where: {**known, "id": wanted} if where == URN + wanted else known for where, known in found.items()
            }
    return _asserted(found)


def _asserted(carried: dict[str, Resource]) -> dict[str, Resource]:
    """Without the diagnoses and allergies that were withdrawn: what was never true of a patient is not told."""
    withdrawn = {url for url, resource in carried.items() if is_withdrawn(resource)}
    if not withdrawn:
        return carried
    kept = {url: resource for url, resource in carried.items() if url not in withdrawn}
    for url, resource in kept.items():
        match resource:
            case {"resourceType": "Encounter", "diagnosis": [*listed]}:
                standing = [each for each in listed if withdrawn.isdisjoint(references_in(each))]
                kept[url] = {**resource, "diagnosis": standing}
    return kept


def _carried_along(carried: Mapping[str, Resource], level: Disclosure) -> list[Resource]:
    """What no one tracks, as far as the level discloses it, with the elements it discloses."""
    shown = []
    for resource in carried.values():
        kind = str(resource["resourceType"])
        allowed = level.carried.get(kind)
        if allowed is None:
            continue
        kept = {name: value for name, value in declared(resource, kind).items() if name in allowed}
        profile = level.profiles.get(kind)
        if profile and (kind != "Coverage" or _of_a_member(kept)):
            kept["meta"] = profiled(profile)
        shown.append(kept)
    return shown


def _of_a_member(coverage: Resource) -> bool:
    """Whether it has what US Core demands of a Coverage: a member number, a relationship, one payor. IN1 need not."""
    payors = coverage.get("payor")
    return {"subscriberId", "relationship"} <= coverage.keys() and isinstance(payors, list) and len(payors) == 1


def _resolved(resources: list[Resource]) -> list[Resource]:
    """Each resource once, and nothing that hangs in the air: organizations that nobody refers to stay out."""
    unique: dict[str, Resource] = {}
    for resource in resources:
        unique.setdefault(str(resource["id"]), resource)
    referred = {target for resource in unique.values() for target in references_in(resource)}
    return [
        resource
        for identity, resource in unique.items()
        if resource["resourceType"] != "Organization" or URN + identity in referred
    ]


def _operator(engine: EngineIdentity) -> Resource:
    """The Organization that runs this engine, known by where the engine is."""
    parts = urlsplit(engine.base_url)
    origin = f"{parts.scheme}://{parts.netloc}" if parts.netloc else engine.base_url
    return {
        "resourceType": "Organization",
        "id": resource_id("organization", "engine", origin),
        "meta": profiled(US_CORE + "us-core-organization"),
        "identifier": [identifier(UUIDS, origin)],
        "active": True,
        "name": engine.organization,
    }


def _header(
    notice: Notice,
    encounter: Resource,
    owner: SendingFacility,
    operator: Resource,
    recipient: Recipient,
    url: str,
    engine: EngineIdentity,
) -> Resource:
    event = _EVENTS.get(notice.fact_kind, "admit")
    header: Resource = {
        "resourceType": "MessageHeader",
        "id": resource_id("message-header", str(notice.notice_id)),
        "meta": profiled(f"{DA_VINCI}{event}-notification-messageheader"),
        "eventCoding": coding(EVENT_SYSTEM, f"notification-{event}", _EVENT_NAMES[event]),
        "destination": [{"name": recipient.name, "endpoint": url}],
        "sender": reference(str(operator["id"])),
        "source": {"name": engine.name, "software": "tocengine", "endpoint": engine.base_url},
        "responsible": reference(facility_id(owner.id)),
        "focus": [reference(str(encounter["id"]))],
    }
    if notice.status in _CHANGES:
        header["reason"] = concept(text=_CHANGES[notice.status])
    if notice.supersedes is not None:
        header["extension"] = [
            {
                "url": f"{engine.base_url}/StructureDefinition/supersedes",
                "valueIdentifier": identifier(UUIDS, full_url(notice.supersedes)),
            }
        ]
    return header


def _provenance(
    notice: Notice, snapshot: Snapshot, header: Resource, owner: SendingFacility, operator: Resource
) -> Resource:
    """US Core Provenance as an intermediary owes it: the hospital said it, the engine assembled it (Da Vinci 1.1.0)."""
    came = f"HL7 v2 ADT^{snapshot.trigger}" if snapshot.content_type is ContentType.HL7V2 else "FHIR"
    agents: list[Json] = [
        {"type": AUTHOR, "who": reference(facility_id(owner.id))},
        {"type": ASSEMBLER, "who": reference(str(operator["id"]))},
    ]
    found: Resource = {
        "resourceType": "Provenance",
        "id": resource_id("provenance", str(notice.notice_id)),
        "meta": profiled(US_CORE + "us-core-provenance"),
        "target": [reference(str(header["id"]))],
        "recorded": notice.created_at.isoformat(),
        "activity": concept(text=f"Converted from {came}; content assembled"),
        "agent": agents,
    }
    if snapshot.control_id.strip():
        system = local_system("feed", snapshot.feed, "control-id")
        found["entity"] = [{"role": "source", "what": {"identifier": identifier(system, snapshot.control_id)}}]
    return found
