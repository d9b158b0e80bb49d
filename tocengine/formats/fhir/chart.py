"""Owns the chart: the accumulated FHIR content of an encounter, folded from the bundles of its events.

Later statements overlay earlier ones key by key per resource id; what a message does not say is kept. Pure: the
same bundles in the same order give the same bytes.
"""

from collections.abc import Mapping, Sequence

import orjson

from tocengine.formats.fhir.ids import URN
from tocengine.formats.fhir.resources import Json, Resource, references_in

SNAPSHOT_TYPES = frozenset({"Condition", "AllergyIntolerance", "Coverage", "RelatedPerson", "Procedure", "Observation"})
"""Resources of repeating segments: a message that has any of a type replaces all of it (no action codes in ADT)."""
COMPOSED = frozenset({"hospitalization", "period"})
"""Elements whose parts come from different fields; they overlay part by part."""
ROOTS = frozenset({"Encounter", "Patient"}) | SNAPSHOT_TYPES
"""What a chart is about; anything else stays only while one of these refers to it."""


def overlay(bundles: Sequence[bytes], cleared: Sequence[Sequence[str]] = ()) -> bytes:
    """The chart of `bundles`, collection Bundles in canonical order; one alone is returned as it is.

    `cleared` runs parallel to `bundles`: the elements each message deleted (``Event.cleared``: ``Patient.telecom``,
    ``Encounter.hospitalization.destination``, ``Encounter.participant:ATND``). Empty input gives an empty Bundle.
    """
    if len(bundles) == 1:
        return bundles[0]
    chart: dict[str, Resource] = {}
    for position, bundle in enumerate(bundles):
        for path in cleared[position] if position < len(cleared) else ():
            _clear(chart, path)
        _lay(chart, _resources(bundle))
    return orjson.dumps(
        {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"fullUrl": url, "resource": resource} for url, resource in _reachable(chart).items()],
        }
    )


def resources_of(bundle: bytes) -> dict[str, Resource]:
    """The resources of a Bundle by fullUrl, in order; entries without a resource are left out."""
    return _resources(bundle)


def _resources(bundle: bytes) -> dict[str, Resource]:
    content = orjson.loads(bundle)
    found: dict[str, Resource] = {}
    for entry in content.get("entry") or ():
        resource = entry.get("resource")
        if resource:
            url = entry.get("fullUrl") or f"{URN}{resource.get('id', '')}"
            found[url] = resource
    return found


def _lay(chart: dict[str, Resource], said: Mapping[str, Resource]) -> None:
    replaced = {kind for resource in said.values() if (kind := str(resource["resourceType"])) in SNAPSHOT_TYPES}
    if replaced:
        for url in [url for url, known in chart.items() if known["resourceType"] in replaced]:
            del chart[url]
    for url, resource in said.items():
        known = chart.get(url)
        chart[url] = resource if known is None else _overlaid(known, resource)


def _overlaid(known: Resource, said: Resource) -> Resource:
    merged = {**known, **said}
    for name in COMPOSED:
        before, now = known.get(name), said.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            merged[name] = {**before, **now}
    before, now = known.get("participant"), said.get("participant")
    if isinstance(before, list) and isinstance(now, list):
        stated = {participation(item) for item in now}
        merged["participant"] = [item for item in before if participation(item) not in stated] + now
    return merged


def participation(participant: Json) -> str:
    """The code of an Encounter.participant's first type (``ATND``), "" where it has none."""
    match participant:
        case {"type": [{"coding": [{"code": str(code)}, *_]}, *_]}:
            return code
    return ""


def _clear(chart: dict[str, Resource], path: str) -> None:
    kind, _, element = path.partition(".")
    name, _, inner = element.partition(".")
    name, _, code = name.partition(":")
    if kind in SNAPSHOT_TYPES and not element:
        for url in [url for url, resource in chart.items() if resource["resourceType"] == kind]:
            del chart[url]
        return
    for resource in chart.values():
        if resource["resourceType"] != kind or name not in resource:
            continue
        value = resource[name]
        if inner and isinstance(value, dict):
            kept: Json = {key: part for key, part in value.items() if key != inner}
        elif code and isinstance(value, list):
            kept = [item for item in value if participation(item) != code]
        else:
            kept = None
        if kept:
            resource[name] = kept
        else:
            del resource[name]


def _reachable(chart: Mapping[str, Resource]) -> dict[str, Resource]:
    reached = {url for url, resource in chart.items() if resource["resourceType"] in ROOTS}
    waiting = list(reached)
    while waiting:
        for target in references_in(chart[waiting.pop()]):
            if target in chart and target not in reached:
                reached.add(target)
                waiting.append(target)
    return {url: resource for url, resource in chart.items() if url in reached}
