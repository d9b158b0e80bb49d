"""Owns the FHIR content of a FHIR event: the received resources under the engine's ids, as one collection Bundle.

Senders make up ids for each message; the engine's are derived from what identifies a thing, so that the content of
several messages, of either format, overlays to one chart. Message wrapping (MessageHeader, Provenance), narrative and
social security numbers do not go on; the raw message keeps them. Documents are kept as they came.
"""

import orjson

from tocengine.formats.fhir.ids import encounter_id, facility_id, full_url, patient_id, resource_id
from tocengine.formats.fhir.incoming import BundleKind, Notification
from tocengine.formats.fhir.resources import NPI, Json, Resource, absent, collection
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import MessageId
from tocengine.model.profile import SendingFacility
from tocengine.normalize.codes import Codes
from tocengine.normalize.fhir_documents import document_of, is_charted, link
from tocengine.normalize.fhir_patient import is_kept
from tocengine.normalize.fhir_values import SSN, codings_of, concept_text, identifiers_of, objects, text_of

_WRAPPING = frozenset({"MessageHeader", "Provenance", "OperationOutcome"})
_DOCUMENT_CONTENT = frozenset({"Bundle", "Binary"})
_SHARED = frozenset({"Practitioner", "Organization", "Location", "Medication"})
"""Types whose identifier names the same thing in every encounter; others belong to this one."""


def collection_of(
    notification: Notification,
    sent: Resource,
    patient: PatientKey,
    visit: VisitKey,
    facility: SendingFacility,
    codes: Codes,
    message_id: MessageId,
) -> bytes:
    """The Bundle in JSON; `sent` is what was received, before anything in it was made fit.

    Takes the notification apart: its resources are changed in place and not used again.
    """
    original = orjson.dumps(sent) if notification.kind is BundleKind.DOCUMENT else b""
    document = document_of(notification, original, encounter_id(visit), patient_id(patient), message_id)
    naming = _Naming(notification, patient, visit, facility)
    found: list[Resource] = []
    for _, resource in notification.entries:
        identity = naming.ids.get(id(resource))
        if identity is None:
            continue
        if resource["resourceType"] in _DOCUMENT_CONTENT:  # as it is: it may be signed
            found.append({**resource, "id": identity})
            continue
        _trim(resource, codes)
        naming.rewrite(resource)
        resource["id"] = identity
        found.append(resource)
        if resource["resourceType"] == "DocumentReference":
            naming.rewrite_attachments(resource)
            found += link(resource, encounter_id(visit), patient_id(patient))
    return orjson.dumps(
        collection({str(resource["id"]): resource for resource in [*found, *(document or ())]}.values())
    )


class _Naming:
    """Which id each resource of the message gets, and what its references become."""

    def __init__(
        self, notification: Notification, patient: PatientKey, visit: VisitKey, facility: SendingFacility
    ) -> None:
        self._notification = notification
        self._facility = facility
        self._scope = encounter_id(visit)
        self.ids: dict[int, str] = {}  # by identity of the decoded object
        taken: dict[str, Resource] = {}
        for _, resource in notification.entries:
            kind = resource["resourceType"]
            if kind in _WRAPPING or not (is_charted(resource, notification) or _is_document(resource)):
                continue
            if resource is notification.patient:
                identity = patient_id(patient)
            elif resource is notification.encounter:
                identity = self._scope
            else:
                identity = self._identity(resource)
                if (other := taken.get(identity)) is not None and not _alike(other, resource):
                    identity = resource_id("resource", self._scope, identity, str(len(taken)))
            taken.setdefault(identity, resource)
            self.ids[id(resource)] = identity

    def rewrite(self, value: Json) -> None:
        """Points every reference below `value` at the new ids; one that leads nowhere keeps what it says in words."""
        if isinstance(value, dict):
            target = value.get("reference")
            if isinstance(target, str) and not target.startswith("#"):
                self._point(value, target)
            for inner in value.values():
                if isinstance(inner, dict | list):
                    self.rewrite(inner)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict | list):
                    self.rewrite(item)

    def rewrite_attachments(self, document: Resource) -> None:
        """Points at what the message itself carries of a document (a Binary, a document Bundle) under its new id."""
        for content in objects(document.get("content")):
            attachment = content.get("attachment")
            if not isinstance(attachment, dict):
                continue
            carried = self._notification.find(text_of(attachment, "url"))
            identity = self.ids.get(id(carried)) if carried is not None else None
            if identity is not None:
                attachment["url"] = full_url(identity)

    def _point(self, reference: Resource, target: str) -> None:
        resource = self._notification.find(target)
        identity = self.ids.get(id(resource)) if resource is not None else None
        if identity is not None:
            reference["reference"] = full_url(identity)
            return
        del reference["reference"]
        if not (reference.get("display") or reference.get("identifier")):
            reference.update(absent("unknown"))

    def _identity(self, resource: Resource) -> str:
        kind = str(resource["resourceType"]).lower()
        numbers = [number for number in identifiers_of(resource) if number.system and number.system not in SSN]
        numbers.sort(key=lambda number: number.system != NPI)
        scope = () if resource["resourceType"] in _SHARED and numbers else (self._scope,)
        if numbers:
            first = numbers[0]
            if kind == "organization" and first.system == NPI and first.value == self._facility.npi:
                return facility_id(self._facility.id)
            return resource_id(kind, *scope, first.system, first.value)
        system, code = next(iter(codings_of(resource.get("code"))), ("", ""))
        name = text_of(resource, "name") or concept_text(resource.get("code"))
        return resource_id(kind, *scope, system, code, name)


def _is_document(resource: Resource) -> bool:
    return resource["resourceType"] == "Bundle" and resource.get("type") == "document"


def _alike(one: Resource, other: Resource) -> bool:
    """Whether two entries say the same thing of the same thing, their own ids apart."""
    return {**one, "id": None, "meta": None} == {**other, "id": None, "meta": None}


def _trim(resource: Resource, codes: Codes) -> None:
    resource.pop("text", None)
    meta = resource.get("meta")
    if isinstance(meta, dict):
        kept: Resource = {name: meta[name] for name in ("profile", "security") if meta.get(name)}
        if kept:
            resource["meta"] = kept
        else:
            del resource["meta"]
    sent = resource.get("identifier")
    if isinstance(sent, list) and resource["resourceType"] == "Patient":
        values = {number.value for number in identifiers_of(resource) if not is_kept(number, codes)}
        kept_numbers = [item for item in sent if not (isinstance(item, dict) and text_of(item, "value") in values)]
        if kept_numbers:
            resource["identifier"] = kept_numbers
        else:
            del resource["identifier"]
