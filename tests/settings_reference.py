"""Owns what the settings' structs say of themselves: every key with its default, and their JSON Schema.

``python -m tests.settings_reference`` writes ``schemas/tocengine.v1.json``; a test compares it with the structs.
"""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

import msgspec

from tocengine.config import Config
from tocengine.model.facts import PatientClass

SCHEMA = Path(__file__).parent.parent / "schemas" / "tocengine.v1.json"
ENTRY_NAMES = {"profiles": "NAME", "location_map": "UNIT"}


def reference(struct: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key as it is written down, such as ``feeds[].tls.certfile``, with its default in TOML, or "required"."""
    for field in msgspec.structs.fields(struct):
        name = f"{prefix}{field.encode_name}"
        plain = _plain(field.type)
        if _is_struct(plain):
            yield from reference(plain, f"{name}.")
        elif get_origin(plain) is tuple and _is_struct(get_args(plain)[0]):
            yield from reference(get_args(plain)[0], f"{name}[].")
        elif get_origin(plain) is dict and _is_struct(get_args(plain)[1]):
            yield from reference(get_args(plain)[1], f"{name}.{ENTRY_NAMES[field.encode_name]}.")
        else:
            yield name, _default(field)


def schema() -> dict[str, Any]:
    """The JSON Schema of a whole `tocengine.toml`."""
    made = _object(Config)
    made["description"] = "The settings of an engine. What one key says about another, `tocengine config check` knows."
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:tocengine:schema:tocengine.v1",
        "title": "tocengine.toml",
        **made,
    }


def _object(struct: type[msgspec.Struct]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    fields = msgspec.structs.fields(struct)
    for field in fields:
        properties[field.encode_name] = _value(field.type)
        if not _is_struct(_plain(field.type)) and (default := _default(field)) not in ("required", "not set"):
            properties[field.encode_name]["default"] = json.loads(default)
    if "max_age" in properties:
        default = properties["max_age"].pop("default")
        text = {"type": "string", "pattern": r"^\d+(\.\d+)? ?[mhd]$"}
        properties["max_age"] = {"anyOf": [properties["max_age"], text], "default": default}
    required = [field.encode_name for field in fields if field.required]
    return {
        "description": (struct.__doc__ or "").split("\n")[0].replace("``", "`"),
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": properties,
    }


def _value(annotation: Any) -> dict[str, Any]:
    plain = _plain(annotation)
    if _is_struct(plain):
        return _object(plain)
    if get_origin(plain) is tuple:
        return {"type": "array", "items": _value(get_args(plain)[0])}
    if get_origin(plain) is dict:
        return {"type": "object", "additionalProperties": _value(get_args(plain)[1])}
    if plain is PatientClass:
        return {"enum": sorted([*PatientClass, *(name.lower() for name in PatientClass)])}
    if isinstance(plain, type) and issubclass(plain, StrEnum):
        return {"enum": sorted(plain)}
    if plain is Path:
        return {"type": "string", "description": "A path; a relative one starts at the file's folder."}
    return {key: value for key, value in msgspec.json.schema(_stated(annotation)).items() if key != "$ref"}


def _stated(annotation: Any) -> Any:
    """The annotation without ``| None``: TOML has no null."""
    if isinstance(annotation, UnionType):
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if isinstance(annotation, UnionType):
        return _plain(next(part for part in get_args(annotation) if part is not NoneType))
    return annotation


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _default(field: msgspec.structs.FieldInfo) -> str:
    value: Any = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "not set"
    return json.dumps(value, default=str)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
