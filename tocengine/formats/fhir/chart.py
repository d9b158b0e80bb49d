"""Owns the chart: the accumulated FHIR content of an encounter, folded from the bundles of its events.

Later statements overlay earlier ones key by key per resource id; what a message does not say is kept. Pure: the
same bundles in the same order give the same bytes.
"""

import re
from collections.abc import Mapping, Sequence, Set

import msgspec
import orjson

from tocengine.formats.fhir.ids import URN
from tocengine.formats.fhir.resources import Json, Resource

SNAPSHOT_TYPES = frozenset({"Condition", "AllergyIntolerance", "Coverage", "RelatedPerson", "Procedure", "Observation"})
"""Resources of repeating segments: a message that has any of a type replaces all of it (no action codes in ADT)."""
OF_THE_PERSON = frozenset({"Patient", "AllergyIntolerance", "Coverage", "RelatedPerson", "Condition"})
"""What is said of a patient and not of a visit; a diagnosis too, where it is another's."""
COMPOSED = frozenset({"hospitalization", "period"})
"""Elements whose parts come from different fields; they overlay part by part."""
ADDS = "+"
"""Before a type, or one of `LISTS`, among what a message deleted: it adds to what is known of that instead of replacing
it (IAM, and segments that are no snapshot for their feed)."""
LISTS = {"Encounter.diagnosis": ("condition",), "Patient.contact": ("name", "organization")}
"""Elements of repeating segments, and what tells two items apart."""
_DOCUMENT_CONTENT = (b'"resourceType":"Binary"', b'"type":"document"')  # kept with the event, too large for a chart
ROOTS = frozenset({"Encounter", "Patient", "DocumentReference"}) | SNAPSHOT_TYPES
"""What a chart is about; anything else stays only while one of these refers to it."""


def overlay(bundles: Sequence[bytes], cleared: Sequence[Sequence[str]] = ()) -> bytes:
    """The chart of `bundles`, collection Bundles in canonical order; one alone that is a chart is returned as it is.

    `cleared` runs parallel to `bundles`: the elements each message deleted (``Event.cleared``: ``Patient.telecom``,
    ``Encounter.hospitalization.destination``, ``Encounter.participant:ATND``, ``Patient.extension:URL``). Empty input
    gives an empty Bundle.
    Resources are decoded only where two messages say different things of one.
    """
    if len(bundles) == 1 and not any(mark in bundles[0] for mark in _DOCUMENT_CONTENT):
        return bundles[0]
    chart: _Chart = {}
    for position, bundle in enumerate(bundles):
        said = cleared[position] if position < len(cleared) else ()
        for path in said:
            _clear(chart, path)
        _lay(chart, _split(bundle), {path[1:] for path in said if path.startswith(ADDS)})
    lost = _unreachable(chart)
    entries = [
        b'{"fullUrl":%b,"resource":%b}' % (orjson.dumps(url), text)
        for url, (_, text) in chart.items()
        if url not in lost
    ]
    return b'{"resourceType":"Bundle","type":"collection","entry":[%b]}' % b",".join(entries)


def renamed(bundle: bytes, names: Mapping[str, str], *, with_person: bool = True) -> bytes:
    """`bundle` with resource ids replaced, and without links between records that have become one; without what it
    says of the patient unless `with_person`."""
    for old, new in names.items():
        bundle = bundle.replace(old.encode(), new.encode())
    content = orjson.loads(bundle)
    kept = []
    for entry in content.get("entry") or ():
        resource = entry.get("resource") or {}
        kind = resource.get("resourceType")
        if kind in OF_THE_PERSON and not with_person:
            continue
        if kind == "Patient" and "link" in resource:
            if resource.get("active") is False:
                continue  # the record that was replaced
            resource = {name: value for name, value in resource.items() if name != "link"}
        kept.append({**entry, "resource": resource})
    return orjson.dumps({**content, "entry": kept})


def resources_of(bundle: bytes) -> dict[str, Resource]:
    """The resources of a Bundle by fullUrl, in order; entries without a resource are left out."""
    return {url: orjson.loads(text) for url, (_, text) in _split(bundle).items()}


class _Entry(msgspec.Struct, frozen=True):
    fullUrl: str | None = None  # noqa: N815 - FHIR's name
    resource: msgspec.Raw = msgspec.Raw(b"null")


class _Bundle(msgspec.Struct, frozen=True):
    entry: tuple[_Entry, ...] | None = None


class _Head(msgspec.Struct, frozen=True):
    resourceType: str = ""  # noqa: N815 - FHIR's name
    id: str = ""


_Chart = dict[str, tuple[str, bytes]]
"""Resources by fullUrl, in order: each with its type and its JSON text."""

_decode_bundle = msgspec.json.Decoder(_Bundle).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_TYPE_FIRST = b'{"resourceType":"'
_COMPACT_REFERENCE = b'"reference":"'
_REFERENCE = re.compile(rb'"reference"\s*:\s*("(?:[^"\\]|\\.)*")')
"""A reference member in JSON text. Inside a string its quotes would be escaped, so it is found nowhere else; the
expression takes longer than looking for the compact form, which is nearly always the only one."""


def _split(bundle: bytes) -> _Chart:
    """The resources of a Bundle."""
    found: _Chart = {}
    for entry in _decode_bundle(bundle).entry or ():
        text = bytes(entry.resource)
        if text not in (b"null", b"{}"):
            found[entry.fullUrl or f"{URN}{_decode_head(text).id}"] = _kind(text), text
    return found


def _kind(resource: bytes) -> str:
    """The type of a resource, read off its beginning where it stands there, as in all that this engine writes."""
    if resource.startswith(_TYPE_FIRST):
        return resource[len(_TYPE_FIRST) : resource.index(b'"', len(_TYPE_FIRST))].decode()
    return _decode_head(resource).resourceType


def _lay(chart: _Chart, said: _Chart, added: Set[str]) -> None:
    replaced = {kind for kind, _ in said.values()} & SNAPSHOT_TYPES - added
    needed = _subscribers(chart) if "RelatedPerson" in replaced and "Coverage" not in replaced else ()
    for url in [url for url, (kind, _) in chart.items() if kind in replaced and url not in needed]:
        del chart[url]
    for url, (kind, text) in said.items():
        known = chart.get(url)
        if known is not None and known[1] != text:
            text = orjson.dumps(_overlaid(orjson.loads(known[1]), orjson.loads(text), added))
        chart[url] = kind, text


def _subscribers(chart: _Chart) -> set[str]:
    """Who the known coverages refer to: whoever is related to the patient besides, these stay."""
    return {found for kind, text in chart.values() if kind == "Coverage" for found in _references(text)}


def _overlaid(known: Resource, said: Resource, added: Set[str]) -> Resource:
    merged = {**known, **said}
    for path in added & LISTS.keys():
        kind, _, name = path.partition(".")
        before, now = known.get(name), said.get(name)
        if kind == said.get("resourceType") and isinstance(before, list) and isinstance(now, list):
            again = [_identity(item, LISTS[path]) for item in now]
            merged[name] = [item for item in before if _identity(item, LISTS[path]) not in again] + now
    for name in COMPOSED:
        before, now = known.get(name), said.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            merged[name] = {**before, **now}
    before, now = known.get("extension"), said.get("extension")
    if isinstance(before, list) and isinstance(now, list):
        stated = {_url(item) for item in now}
        merged["extension"] = [item for item in before if _url(item) not in stated] + now
    before, now = known.get("participant"), said.get("participant")
    if isinstance(before, list) and isinstance(now, list):
        stated = {participation(item) for item in now}
        merged["participant"] = [item for item in before if participation(item) not in stated] + now
    return merged


def _identity(item: Json, names: Sequence[str]) -> list[Json]:
    return [item.get(name) for name in names] if isinstance(item, dict) else [item]


def _url(extension: Json) -> str:
    """What an Extension says something of."""
    return str(extension.get("url", "")) if isinstance(extension, dict) else ""


def participation(participant: Json) -> str:
    """The code of an Encounter.participant's first type (``ATND``), "" where it has none."""
    match participant:
        case {"type": [{"coding": [{"code": str(code)}, *_]}, *_]}:
            return code
    return ""


def _clear(chart: _Chart, path: str) -> None:
    kind, _, element = path.partition(".")
    kind, _, identity = kind.partition("/")
    if identity:
        chart.pop(URN + identity, None)
        if kind == "Condition":
            _unlist(chart, URN + identity)
        return
    concerned = [url for url, resource in chart.items() if resource[0] == kind]
    for url in concerned:
        if kind in SNAPSHOT_TYPES and not element:
            del chart[url]
        elif element:
            resource = orjson.loads(chart[url][1])
            _clear_element(resource, element)
            chart[url] = kind, orjson.dumps(resource)


def _unlist(chart: _Chart, gone: str) -> None:
    """No Encounter names a diagnosis that is gone."""
    for url, (kind, text) in chart.items():
        if kind == "Encounter" and gone.encode() in text:
            visit = orjson.loads(text)
            kept = [item for item in visit.get("diagnosis") or () if item.get("condition") != {"reference": gone}]
            visit = {name: value for name, value in visit.items() if name != "diagnosis"}
            chart[url] = kind, orjson.dumps({**visit, "diagnosis": kept} if kept else visit)


def _clear_element(resource: Resource, element: str) -> None:
    name, _, code = element.partition(":")
    name, _, inner = name.partition(".")
    if name not in resource:
        return
    value = resource[name]
    if name == "extension" and isinstance(value, list):
        kept: Json = [item for item in value if _url(item) != code]
    elif inner and isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key != inner}
    elif code and isinstance(value, list):
        kept = [item for item in value if participation(item) != code]
    else:
        kept = None
    if kept:
        resource[name] = kept
    else:
        del resource[name]


def _unreachable(chart: _Chart) -> Set[str]:
    """The resources that no chart is about and that none of the others leads to."""
    lost = {url for url, (kind, _) in chart.items() if kind not in ROOTS}
    text = b"".join([text for kind, text in chart.values() if kind in ROOTS])
    while lost and text:
        found = {url for url in lost if b'%b%b"' % (_COMPACT_REFERENCE, url.encode()) in text}
        if len(found) < len(lost):
            found.update(lost.intersection(_references(text)))
        lost -= found
        text = b"".join([chart[url][1] for url in found])
    return lost


def _references(text: bytes) -> list[str]:
    """What resources in JSON refer to, in whatever form it is written."""
    after = text.split(_COMPACT_REFERENCE)[1:]
    if len(after) != text.count(b'"reference"') or any(b"\\" in each[: each.find(b'"')] for each in after):
        return [orjson.loads(found) for found in _REFERENCE.findall(text)]
    return [each[: each.index(b'"')].decode() for each in after]
