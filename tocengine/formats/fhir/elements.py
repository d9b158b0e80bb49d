"""Owns the declaration of the FHIR R4 elements that the engine writes, read from `elements.toml`."""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import msgspec


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
        return name in _RESOURCES


_RESOURCES = frozenset(
    """Patient Encounter Practitioner Organization Location Condition AllergyIntolerance Coverage RelatedPerson
    Procedure Observation MessageHeader Provenance Bundle""".split()
)
RESOURCES = _RESOURCES - {"Bundle"}
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
