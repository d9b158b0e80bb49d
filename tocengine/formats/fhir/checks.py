"""Owns what may not leave: everything wrong with a Bundle, by place and rule, never a value: it may be PHI.

The schema sees elements one by one; here is what it cannot see: references, and the rules of messages.
"""

from collections.abc import Iterator, Sequence

import jsonschema_rs
import msgspec

from tocengine.formats.fhir.resources import Json, Resource
from tocengine.formats.fhir.schema import validator

RULES = {
    "required": "required",
    "minItems": "empty",
    "minProperties": "empty",
    "type": "not of its type",
    "pattern": "not of its type",
    "minimum": "not of its type",
    "enum": "not one of the codes",
    "additionalProperties": "unknown element",
    "falseSchema": "more than one of a choice",
}
"""What to call each kind of error the schema finds."""


class Finding(msgspec.Struct, frozen=True):
    """Something wrong with a Bundle: `path` is a FHIRPath, `rule` a stable word."""

    path: str
    rule: str


def check_bundle(bundle: Resource) -> list[Finding]:
    """Everything wrong with `bundle`; empty if it may leave. For people: `validity` finds sooner that all is well."""
    findings = [found_in("Bundle", error, error.instance_path) for error in validator().iter_errors(bundle)]
    findings.extend(_check_references(bundle))
    if bundle.get("type") == "message":
        findings.extend(check_message(bundle))
    return findings


def found_in(root: str, error: jsonschema_rs.ValidationError, parts: Sequence[str | int]) -> Finding:
    """What the schema finds wrong at `parts` below `root`."""
    path = root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    missing = getattr(error.kind, "property", None)
    return Finding(f"{path}.{missing}" if missing else path, RULES.get(error.kind.name, "not valid"))


def _check_references(bundle: Resource) -> Iterator[Finding]:
    urls: set[str] = set()
    entries = entries_of(bundle)
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


def check_message(bundle: Resource) -> Iterator[Finding]:
    """Bundle rules of messages (https://hl7.org/fhir/R4/bundle.html, bdl-12) and of Da Vinci notifications 1.1.0."""
    for name in ("id", "timestamp"):
        if name not in bundle:
            yield Finding(f"Bundle.{name}", "required")
    kinds = [
        resource.get("resourceType") if isinstance(resource := entry.get("resource"), dict) else None
        for entry in entries_of(bundle)
    ]
    if not kinds or kinds[0] != "MessageHeader":
        yield Finding("Bundle.entry[0]", "not a MessageHeader")
        return
    if kinds.count("MessageHeader") > 1:
        yield Finding("Bundle.entry", "more than one MessageHeader")
    header = entries_of(bundle)[0]["resource"]
    if isinstance(header, dict):
        for name in ("id", "eventCoding", "focus"):
            if not header.get(name):
                yield Finding(f"Bundle.entry[0].resource.{name}", "required")
    if kinds.count("Patient") != 1:
        yield Finding("Bundle.entry", "a notification is about one patient")


def entries_of(bundle: Resource) -> list[Resource]:
    entries = bundle.get("entry")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
