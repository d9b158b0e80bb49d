"""Owns how a document that the engine keeps is had again: its bytes, out of the events of its encounter."""

import base64
from collections.abc import Iterable

import msgspec
import orjson

from tocengine.formats.fhir.chart import overlay, resources_of
from tocengine.formats.fhir.documents import Document, documents_of
from tocengine.formats.fhir.resources import Json, Resource

FHIR_JSON = "application/fhir+json"
_MARK = b'"DocumentReference"'


class Content(msgspec.Struct, frozen=True):
    """The bytes of one attachment."""

    content_type: str
    body: bytes


def listed(events: Iterable[bytes]) -> list[Document]:
    """The documents of an encounter; `events` are the Bundles of its events in JSON, oldest first."""
    return documents_of(overlay([_without_content(bundle) for bundle in events if _MARK in bundle]))


def contents(events: Iterable[bytes], identity: str) -> list[Content]:
    """The kept attachments of a document in their order, as its newest version has them. Empty where none is kept."""
    newest: list[Content] = []
    for bundle in events:
        if identity.encode() not in bundle:
            continue
        resources = resources_of(bundle)
        for resource in resources.values():
            if resource.get("resourceType") == "DocumentReference" and resource.get("id") == identity:
                newest = [_content(resources[url]) for url in _urls(resource) if url in resources]
    return newest


def _without_content(bundle: bytes) -> bytes:
    """The descriptions alone: what is in a document Bundle is no chart."""
    described = {url: each for url, each in resources_of(bundle).items() if each["resourceType"] == "DocumentReference"}
    entries = [{"fullUrl": url, "resource": resource} for url, resource in described.items()]
    return orjson.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries})


def _urls(resource: Resource) -> list[str]:
    found: list[str] = []
    listed_ = resource.get("content")
    for content in listed_ if isinstance(listed_, list) else ():
        match content:
            case {"attachment": {"url": str(url)}}:
                found.append(url)
    return found


def _content(kept: Resource) -> Content:
    if kept["resourceType"] == "Binary":
        return Content(_text(kept.get("contentType")), base64.b64decode(_text(kept.get("data"))))
    return Content(FHIR_JSON, orjson.dumps(kept))


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
