"""Owns the compiled JSON Schema of what the engine writes, checked in Rust: structure, types, patterns, required
elements, choices, required bindings and the calendar.

It is generated from `elements.toml`. What a schema cannot see of a Bundle, references and message rules, is in
`checks`, which also turns what it finds wrong into places and rules.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import jsonschema_rs

from tocengine.formats.fhir.elements import PRIMITIVES, RESOURCES, Element, Elements, elements

Schema: TypeAlias = dict[str, Any]

_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
_YEAR = r"([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
"""A day of the calendar: months have their lengths, and only leap years a 29 February."""
_MONTH = rf"{_YEAR}(-(0[1-9]|1[0-2]))?"
_LEAST = {"positiveInt": 1, "unsignedInt": 0}
_BLANK = r"\t\n\x0b\x0c\r "  # \s of the standard means these: a no-break space or a byte order mark is text
_NULL = '""'
"""HL7 v2 for "delete": never a value."""
CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f"
"""Control characters that no text may hold, as a class of a regular expression. Other unprintable signs are text."""
_SIGN = rf"[^{CONTROLS}{_BLANK}]"
_PATTERNS = {
    "string": rf"^[\t\n\r ]*{_SIGN}[^{CONTROLS}]*$",
    "code": rf"^{_SIGN}+([{_BLANK}]{_SIGN}+)*$",
    "uri": rf"^{_SIGN}+$",
    "url": rf"^{_SIGN}+$",
    "base64Binary": rf"^[A-Za-z0-9+/={_BLANK}]+$",
    "date": rf"^({_MONTH}|{_DAY})$",
    "dateTime": rf"^({_MONTH}|{_DAY}(T{_TIME})?)$",
    "instant": rf"^{_DAY}T{_TIME}$",
}
"""Regular expressions of https://hl7.org/fhir/R4/datatypes.html in our own notation."""


@lru_cache(maxsize=1)
def validator() -> "jsonschema_rs.Draft202012Validator":
    """The compiled validator of a Bundle the engine writes; compiling takes some 10 ms, once."""
    return jsonschema_rs.Draft202012Validator(bundle_schema(), pattern_options=jsonschema_rs.RegexOptions())


@lru_cache(maxsize=1)
def received_validator() -> "jsonschema_rs.Draft202012Validator":
    """The compiled validator of a list of resources that came in: they may hold more than the engine writes."""
    return jsonschema_rs.Draft202012Validator(received_schema(), pattern_options=jsonschema_rs.RegexOptions())


def bundle_schema() -> Schema:
    """The JSON Schema (2020-12) of a Bundle of the resources the engine writes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/Bundle",
        "$defs": _definitions(closed=True),
    }


def received_schema() -> Schema:
    """Of a list of resources: what the engine would write again is as it must be; other elements and types are free."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "array",
        "items": {"$ref": "#/$defs/Resource"},
        "$defs": _definitions(closed=False),
    }


def _definitions(*, closed: bool) -> Schema:
    declared = elements()
    definitions = {name: _definition(name, declared, closed=closed) for name in declared.types}
    known: Schema = {"properties": {"resourceType": {"enum": list(RESOURCES)}}, "required": ["resourceType"]}
    definitions["Resource"] = _resource_of(RESOURCES, known if closed else {})
    return definitions


def _resource_of(names: Sequence[str], others: Schema) -> Schema:
    """The type a resource names decides alone how it is looked at: quick, and what is wrong is found in its place."""
    if not names:
        return others
    return {
        "if": {"properties": {"resourceType": {"const": names[0]}}, "required": ["resourceType"]},
        "then": {"$ref": f"#/$defs/{names[0]}"},
        "else": _resource_of(names[1:], others),
    }


def _definition(name: str, declared: Elements, *, closed: bool) -> Schema:
    rows = declared.types[name]
    properties: Schema = {"extension": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Extension"}}}
    for element in rows.values():
        properties[element.name] = _property(element, declared)
        if element.type in PRIMITIVES:
            properties["_" + element.name] = {"type": ["object", "array"], "minProperties": 1, "minItems": 1}
    required = [row.name for row in rows.values() if row.required and row.type not in PRIMITIVES]
    if declared.is_resource(name):
        properties["resourceType"] = {"const": name}
        properties["id"] = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
        properties["meta"] = {"$ref": "#/$defs/Meta"}
        required.append("resourceType")
    return {
        "type": "object",
        "properties": properties,
        **({"additionalProperties": False} if closed else {}),
        "minProperties": 1,
        **({"required": required} if required else {}),
        **_required_primitives(rows.values()),
        **_choices(rows.values()),
    }


def _required_primitives(rows: Iterable[Element]) -> Schema:
    """A primitive is also there where only its companion is, which says why there is no value."""
    names = [row.name for row in rows if row.required and row.type in PRIMITIVES]
    each = [{"if": {"not": {"required": ["_" + name]}}, "then": {"required": [name]}} for name in names]
    return {"allOf": each} if each else {}


def _choices(rows: Iterable[Element]) -> Schema:
    """One type of a choice (``deceased[x]``) shuts the others out."""
    choices: dict[str, list[str]] = {}
    for row in rows:
        if row.choice:
            choices.setdefault(row.choice, []).append(row.name)
    others = {
        name: {"properties": dict.fromkeys([each for each in names if each != name], False)}
        for names in choices.values()
        for name in names
        if len(names) > 1
    }
    return {"dependentSchemas": others} if others else {}


def _property(element: Element, declared: Elements) -> Schema:
    schema = _type_schema(element, declared)
    return {"type": "array", "minItems": 1, "items": schema} if element.many else schema


def _type_schema(element: Element, declared: Elements) -> Schema:
    if element.binding:
        return {"enum": sorted(declared.bindings[element.binding])}
    if element.type == "boolean":
        return {"type": "boolean"}
    if element.type in _LEAST:
        return {"type": "integer", "minimum": _LEAST[element.type]}
    if element.type in ("integer", "decimal"):
        return {"type": "integer" if element.type == "integer" else "number"}
    if element.type in PRIMITIVES:
        return {"type": "string", "pattern": _PATTERNS[element.type], "not": {"const": _NULL}}
    return {"$ref": f"#/$defs/{element.type}"}
