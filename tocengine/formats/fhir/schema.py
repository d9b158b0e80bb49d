"""Owns the compiled JSON Schema of what the engine writes: structure, types and patterns, checked in Rust.

The schema is generated from `elements.toml`. It cannot see everything (`checks` says what); run the checks first.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import jsonschema_rs

from tocengine.formats.fhir.elements import PRIMITIVES, RESOURCES, Element, Elements, elements

Schema: TypeAlias = dict[str, Any]

_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
_LEAST = {"positiveInt": 1, "unsignedInt": 0}
_BLANK = r"\t\n\x0b\x0c\r "  # \s of the standard means these: a no-break space or a byte order mark is text
_PATTERNS = {
    "string": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f]+$",
    "code": rf"^[^{_BLANK}]+([{_BLANK}][^{_BLANK}]+)*$",
    "uri": rf"^[^{_BLANK}]+$",
    "url": rf"^[^{_BLANK}]+$",
    "base64Binary": rf"^[A-Za-z0-9+/={_BLANK}]+$",
    "date": r"^[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?$",
    "dateTime": rf"^[0-9]{{4}}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01])(T{_TIME})?)?)?$",
    "instant": rf"^[0-9]{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T{_TIME}$",
}
"""Regular expressions of https://hl7.org/fhir/R4/datatypes.html in our own notation."""


@lru_cache(maxsize=1)
def validator() -> "jsonschema_rs.Draft202012Validator":
    """The compiled validator of a Bundle the engine writes; compiling takes some 10 ms, once."""
    return jsonschema_rs.Draft202012Validator(bundle_schema())


def bundle_schema() -> Schema:
    """The JSON Schema (2020-12) of a Bundle of the resources the engine writes."""
    declared = elements()
    definitions = {name: _definition(name, declared) for name in declared.types}
    definitions["Resource"] = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in sorted(RESOURCES)]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/Bundle",
        "$defs": definitions,
    }


def _definition(name: str, declared: Elements) -> Schema:
    properties: Schema = {"extension": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Extension"}}}
    for element in declared.types[name].values():
        properties[element.name] = _property(element, declared)
        if element.type in PRIMITIVES:
            properties["_" + element.name] = {"type": ["object", "array"]}
    definition: Schema = {"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 1}
    if declared.is_resource(name):
        properties["resourceType"] = {"const": name}
        properties["id"] = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
        properties["meta"] = {"$ref": "#/$defs/Meta"}
        definition["required"] = ["resourceType"]
    return definition


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
        return {"type": "string", "pattern": _PATTERNS[element.type]}
    return {"$ref": f"#/$defs/{element.type}"}
