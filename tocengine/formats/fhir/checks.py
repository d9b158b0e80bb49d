"""Owns what a JSON Schema cannot see of a Bundle: required elements, choices, the calendar, references, bindings
and the rules of messages. Findings name the place and the rule, never a value: it may be PHI.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date

import msgspec

from tocengine.formats.fhir.elements import PRIMITIVES, Element, Elements, elements
from tocengine.formats.fhir.resources import Json, Resource

_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_TIMES = frozenset({"date", "dateTime", "instant"})


class Finding(msgspec.Struct, frozen=True):
    """Something wrong with a Bundle: `path` is a FHIRPath, `rule` a stable word."""

    path: str
    rule: str


def check_bundle(bundle: Resource) -> list[Finding]:
    """Everything wrong with `bundle`; empty if it may leave."""
    declared = elements()
    findings = list(_check(bundle, "Bundle", "Bundle", declared))
    findings.extend(_check_references(bundle))
    if bundle.get("type") == "message":
        findings.extend(_check_message(bundle))
    return findings


def _check(value: Json, kind: str, path: str, declared: Elements) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield Finding(path, "not an object")
        return
    if not value:
        yield Finding(path, "empty")
    rows = declared.types[kind]
    for name, content in value.items():
        element = rows.get(name)
        if element is not None:
            yield from _check_element(content, element, f"{path}.{name}", declared)
        elif content is None or content == "" or content in ([], {}):
            yield Finding(f"{path}.{name}", "empty")
    yield from _check_presence(value, rows, path)


def _check_presence(value: Mapping[str, Json], rows: Mapping[str, Element], path: str) -> Iterator[Finding]:
    choices: dict[str, int] = {}
    for element in rows.values():
        if element.required and element.name not in value and "_" + element.name not in value:
            yield Finding(f"{path}.{element.name}", "required")
        if element.choice and element.name in value:
            choices[element.choice] = choices.get(element.choice, 0) + 1
    for choice, count in choices.items():
        if count > 1:
            yield Finding(f"{path}.{choice}[x]", "more than one of a choice")


def _check_element(content: Json, element: Element, path: str, declared: Elements) -> Iterator[Finding]:
    if element.many:
        if not isinstance(content, list) or not content:
            yield Finding(path, "not a list, or an empty one")
            return
        for position, item in enumerate(content):
            yield from _check_value(item, element, f"{path}[{position}]", declared)
    else:
        yield from _check_value(content, element, path, declared)


def _check_value(content: Json, element: Element, path: str, declared: Elements) -> Iterator[Finding]:
    if content is None or content == "" or content == '""':
        yield Finding(path, "empty")
    elif element.binding and content not in declared.bindings[element.binding]:
        yield Finding(path, "code outside its required binding")
    elif element.type in _TIMES:
        if not _in_calendar(content):
            yield Finding(path, "not in the calendar")
    elif element.type in PRIMITIVES:
        if isinstance(content, str) and not content.strip():
            yield Finding(path, "empty")
    elif element.type == "Resource":
        kind = content.get("resourceType") if isinstance(content, dict) else None
        if not isinstance(kind, str) or kind not in declared.types:
            yield Finding(path, "unknown resource type")
        else:
            yield from _check(content, kind, path, declared)
    else:
        yield from _check(content, element.type, path, declared)


def _in_calendar(text: Json) -> bool:
    if not isinstance(text, str):
        return False
    day = _DAY.match(text)
    if day is None:
        return len(text) in (4, 7) and text[:4].isdigit()
    try:
        date(int(day[1]), int(day[2]), int(day[3]))
    except ValueError:
        return False
    return True


def _check_references(bundle: Resource) -> Iterator[Finding]:
    urls: set[str] = set()
    entries = _entries(bundle)
    for position, entry in enumerate(entries):
        url = entry.get("fullUrl")
        if not isinstance(url, str):
            yield Finding(f"Bundle.entry[{position}].fullUrl", "required")
        elif url in urls:
            yield Finding(f"Bundle.entry[{position}].fullUrl", "not unique")
        else:
            urls.add(url)
    for position, entry in enumerate(entries):
        for path, target in _references(entry.get("resource"), f"Bundle.entry[{position}].resource"):
            if target not in urls:
                yield Finding(path, "does not resolve in the bundle")


def _references(value: Json, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "reference" and isinstance(inner, str):
                yield f"{path}.reference", inner
            elif isinstance(inner, dict | list):
                yield from _references(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _references(inner, f"{path}[{position}]")


def _check_message(bundle: Resource) -> Iterator[Finding]:
    """Bundle rules of messages (https://hl7.org/fhir/R4/bundle.html, bdl-12) and of Da Vinci notifications 1.1.0."""
    for name in ("id", "timestamp"):
        if name not in bundle:
            yield Finding(f"Bundle.{name}", "required")
    kinds = [
        resource.get("resourceType") if isinstance(resource := entry.get("resource"), dict) else None
        for entry in _entries(bundle)
    ]
    if not kinds or kinds[0] != "MessageHeader":
        yield Finding("Bundle.entry[0]", "not a MessageHeader")
        return
    if kinds.count("MessageHeader") > 1:
        yield Finding("Bundle.entry", "more than one MessageHeader")
    header = _entries(bundle)[0]["resource"]
    if isinstance(header, dict):
        for name in ("id", "eventCoding", "focus"):
            if not header.get(name):
                yield Finding(f"Bundle.entry[0].resource.{name}", "required")
    if kinds.count("Patient") != 1:
        yield Finding("Bundle.entry", "a notification is about one patient")


def _entries(bundle: Resource) -> list[Resource]:
    entries = bundle.get("entry")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
