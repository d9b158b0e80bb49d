"""Owns the declaration of the FHIR R4 elements that the engine writes, read from `elements.toml`."""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import msgspec

from tocengine.formats.fhir.resources import Json, Resource


class Element(msgspec.Struct, frozen=True):
    """One JSON property: ``deceased[x]`` is there once per type, under `choice` ``deceased``."""

    name: str
    type: str
    many: bool = False
    required: bool = False
    binding: str = ""
    choice: str = ""


class Elements(msgspec.Struct, frozen=True):
    """Element declarations by type name, and the codes of each required binding."""

    types: Mapping[str, Mapping[str, Element]]
    bindings: Mapping[str, frozenset[str]]

    def is_resource(self, name: str) -> bool:
        """Whether the type stands by itself (has `resourceType` and `id`)."""
        return name in RESOURCES or name == "Bundle"


RESOURCES = tuple(
    """Condition Practitioner Organization Location Encounter Patient AllergyIntolerance Observation Coverage
    RelatedPerson Procedure PractitionerRole MessageHeader Provenance DocumentReference""".split()
)
"""The resources of a Bundle, those that there are most of first."""
PRIMITIVES = frozenset(
    "string code uri url boolean date dateTime instant positiveInt unsignedInt integer decimal base64Binary".split()
)


@lru_cache(maxsize=1)
def elements() -> Elements:
    """The declaration."""
    declared = tomllib.loads(files(__package__).joinpath("elements.toml").read_text("utf-8"))
    types = {
        name: {element.name: element for spec in rows.items() for element in _read(*spec)}
        for name, rows in declared["types"].items()
    }
    return Elements(types, {name: frozenset(codes) for name, codes in declared["bindings"].items()})


def _read(name: str, spec: str) -> list[Element]:
    if name.endswith("[x]"):
        choice = name[:-3]
        return [Element(choice + kind[0].upper() + kind[1:], kind, choice=choice) for kind in spec.split()]
    required, spec = spec.endswith("!"), spec.rstrip("!")
    many, spec = spec.endswith("[]"), spec.removesuffix("[]")
    kind, _, binding = spec.partition("@")
    many = many or binding.endswith("[]")
    return [Element(name, kind, many, required, binding.removesuffix("[]"))]


def declared(resource: Resource, kind: str) -> Resource:
    """A resource of type `kind` with the elements declared here alone.

    What FHIR senders say beyond them (extensions, notes, flags of a coding) is valid, and nothing that a notice of the
    engine's own repeats.
    """
    kept = _pruned(resource, kind)
    return kept if isinstance(kept, dict) else {}


def _pruned(value: Json, kind: str) -> Json:
    rows = elements().types.get(kind)
    if rows is None or not isinstance(value, dict):
        return value
    own = ("resourceType", "id", "meta") if elements().is_resource(kind) else ()  # an element's id is its sender's
    kept: Resource = {name: value[name] for name in own if name in value}
    for name, row in rows.items():
        companion, content = value.get("_" + name), value.get(name)
        if isinstance(content, list):
            content = [inner for item in content if (inner := _pruned(item, row.type)) not in ({}, None)]
        elif content is not None:
            content = _pruned(content, row.type)
        if content not in ({}, [], None):
            kept[name] = content
        elif companion is not None:
            kept["_" + name] = companion
    return kept
