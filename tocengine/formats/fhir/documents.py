"""Owns what a notice says of the documents of an encounter: which there are, and where each can be had."""

from collections.abc import Iterator

import msgspec
import orjson

from tocengine.formats.fhir.resources import Json, Resource

_MARK = b'"DocumentReference"'
_WITHDRAWN = frozenset({"superseded", "entered-in-error"})


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One document. `url` is an address of the sender's; None where the engine itself keeps the document."""

    id: str
    type: str
    title: str
    date: str | None = None
    content_type: str | None = None
    size: int | None = None
    url: str | None = None


def documents_of(chart: bytes) -> list[Document]:
    """The documents in a chart, a collection Bundle in JSON, in the order they were said; none that was withdrawn."""
    if _MARK not in chart:
        return []
    entries = orjson.loads(chart).get("entry") or ()
    resources = (entry.get("resource") or {} for entry in entries)
    return [
        document
        for resource in resources
        if resource.get("resourceType") == "DocumentReference" and resource.get("status") not in _WITHDRAWN
        for document in _contents(resource)
    ]


def _contents(resource: Resource) -> Iterator[Document]:
    kind = resource.get("type")
    for content in _list(resource.get("content")):
        attachment = content.get("attachment") if isinstance(content, dict) else None
        if not isinstance(attachment, dict):
            continue
        size, url = attachment.get("size"), _text(attachment.get("url"))
        yield Document(
            id=str(resource.get("id", "")),
            type=_words(kind),
            title=_text(attachment.get("title")) or _text(resource.get("description")) or _words(kind),
            date=_text(resource.get("date")) or _text(attachment.get("creation")) or None,
            content_type=_text(attachment.get("contentType")) or None,
            size=size if isinstance(size, int) else None,
            url=url if url.startswith(("https://", "http://")) else None,
        )


def _words(concept: Json) -> str:
    if not isinstance(concept, dict):
        return ""
    codings = [item for item in _list(concept.get("coding")) if isinstance(item, dict)]
    shown = [_text(item.get(name)) for item in codings for name in ("display", "code")]
    return _text(concept.get("text")) or next((text for text in shown if text), "")


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
