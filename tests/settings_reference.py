"""Owns what the settings' structs say of themselves: every key with its default, and their JSON Schema.

``python -m tests.settings_reference`` writes ``schemas/tocengine.v1.json``; a test compares it with the structs.
"""

import json
from collections.abc import Iterator
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
    made = msgspec.json.schema(Config, schema_hook=_hook, ref_template="#/$defs/{name}")
    definitions = made.pop("$defs")
    backoff = definitions["DeliverySettings"]["properties"]["max_age"]
    number = {key: backoff.pop(key) for key in ("type", "exclusiveMinimum") if key in backoff}
    backoff["anyOf"] = [number, {"type": "string", "pattern": r"^\d+(\.\d+)? ?[mhd]$"}]
    words = sorted([*PatientClass, *(name.lower() for name in PatientClass)])
    definitions["PatientClass"] = {"enum": words, "description": "In capitals or not."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:tocengine:schema:tocengine.v1",
        "title": "tocengine.toml",
        "description": "The settings of an engine. What one key says about another, `tocengine config check` knows.",
        **definitions.pop("Config"),
        "$defs": dict(sorted(definitions.items())),
    }


def _hook(kind: type) -> dict[str, Any]:
    assert issubclass(kind, Path), kind
    return {"type": "string", "description": "A path; a relative one starts at the file's folder."}


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
        value = field.default_factory()  # type: ignore[operator]
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "not set"
    return json.dumps(value, default=str)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
