"""Owns the documents of a FHIR message: what is kept of them, and how they hang on their encounter.

A document is described by a DocumentReference that names the encounter. What a sender put into the message itself (a
document Bundle, the bytes of an attachment) is kept beside it, whole, in an entry of its own; the chart, which every
notice is rendered from, has the description alone.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator

import orjson

from tocengine.formats.fhir.ids import full_url, resource_id
from tocengine.formats.fhir.incoming import BundleKind, Notification
from tocengine.formats.fhir.resources import Resource, reference
from tocengine.model.ids import MessageId
from tocengine.normalize.fhir_values import objects, text_of

FHIR_JSON = "application/fhir+json"
_COMPOSITION_STATUS = {"preliminary": "preliminary", "final": "final", "amended": "amended"}
_DESCRIPTION = (
    "resourceType",
    "id",
    "meta",
    "masterIdentifier",
    "status",
    "docStatus",
    "type",
    "category",
    "date",
    "description",
    "content",
)
_ATTACHMENT = ("contentType", "language", "url", "size", "hash", "title", "creation")
_OF_A_DOCUMENT = frozenset(
    {
        "Encounter",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "Organization",
        "Location",
        "AllergyIntolerance",
        "Coverage",
        "RelatedPerson",
        "DocumentReference",
    }
)


def document_of(
    notification: Notification, original: bytes, encounter: str, patient: str, message_id: MessageId
) -> tuple[Resource, Resource] | None:
    """The DocumentReference of a document Bundle, and the Bundle as sent; None for another kind of Bundle.

    `original` is the Bundle in JSON, taken before its resources were renamed. The same document sent again (by its
    identifier) is the same DocumentReference, so that the newer one takes the older one's place.
    """
    if notification.kind is not BundleKind.DOCUMENT:
        return None
    composition = notification.header
    number = notification.bundle.get("identifier")
    system, value = (text_of(number, "system"), text_of(number, "value")) if isinstance(number, dict) else ("", "")
    identity = resource_id("documentreference", encounter, system, value)
    kept: Resource = {"resourceType": "Bundle", "id": resource_id("document", identity, str(message_id))}
    kept |= {name: inner for name, inner in orjson.loads(original).items() if name not in kept}
    described: Resource = {
        "resourceType": "DocumentReference",
        "id": identity,
        "status": "entered-in-error" if composition.get("status") == "entered-in-error" else "current",
        "subject": reference(patient),
        "content": [{"attachment": _attachment(FHIR_JSON, original, str(kept["id"]), text_of(composition, "title"))}],
        "context": {"encounter": [reference(encounter)]},
    }
    if system and value:
        described["masterIdentifier"] = {"system": system, "value": value}
    if status := _COMPOSITION_STATUS.get(text_of(composition, "status")):
        described["docStatus"] = status
    for name, source in (("type", "type"), ("category", "category")):
        if source in composition:
            described[name] = composition[source]
    if written := text_of(composition, "date") or text_of(notification.bundle, "timestamp"):
        described["date"] = written if "T" in written else f"{written}T00:00:00Z"
    return described, kept


def link(resource: Resource, encounter: str, patient: str) -> Iterator[Resource]:
    """Hangs a DocumentReference on its encounter and patient, and takes the bytes of its attachments out of it.

    What describes the document stays; what only its sender understands (extensions, other references) does not.
    Changes `resource`; gives a Binary for each attachment that had its bytes in the message.
    """
    kept: Resource = {name: resource[name] for name in _DESCRIPTION if name in resource}
    resource.clear()
    resource.update(kept)
    resource["subject"] = reference(patient)
    resource["context"] = {"encounter": [reference(encounter)]}
    for position, content in enumerate(objects(resource.get("content"))):
        attachment = content.get("attachment")
        content.clear()
        if not isinstance(attachment, dict):
            continue
        text = attachment.get("data")
        content["attachment"] = attachment = {name: attachment[name] for name in _ATTACHMENT if name in attachment}
        data = _decoded(text) if isinstance(text, str) else None
        if data is None:
            continue
        kind = text_of(attachment, "contentType") or "application/octet-stream"
        identity = resource_id("binary", str(resource["id"]), str(position), hashlib.sha256(data).hexdigest())
        attachment.update(_attachment(kind, data, identity, text_of(attachment, "title")))
        yield {
            "resourceType": "Binary",
            "id": identity,
            "contentType": kind,
            "data": base64.b64encode(data).decode(),
        }


def _attachment(kind: str, data: bytes, identity: str, title: str) -> Resource:
    """An Attachment kept in the engine; its hash is the SHA-1 that FHIR R4 asks for, its URL that of the entry."""
    found: Resource = {"contentType": kind, "url": full_url(identity), "size": len(data), "hash": _sha1(data)}
    return found | ({"title": title} if title else {})


def _sha1(data: bytes) -> str:
    return base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError):
        return None


def is_charted(resource: Resource, notification: Notification) -> bool:
    """Whether a resource of the message speaks of the encounter as such, beside any document it is part of.

    Of a document its problem list and its medication stay in it: the chart has the diagnoses of the encounter, and a
    document that was written for something else must not replace them.
    """
    kind = resource["resourceType"]
    if kind in ("Bundle", "Composition", "Parameters", "SubscriptionStatus"):
        return False
    if notification.kind is not BundleKind.DOCUMENT:
        return True
    if kind == "Condition":
        return notification.resolve(resource.get("encounter")) is notification.encounter
    return kind in _OF_A_DOCUMENT
