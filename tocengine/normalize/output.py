"""Owns the way out: the resources of a reading as one collection Bundle, free of anything FHIR cannot hold."""

import orjson

from tocengine.formats.fhir.resources import Json, collection
from tocengine.formats.hl7v2.parser import NULL
from tocengine.normalize.reading import Reading

_SUSPICIOUS = (b"\\b", b"\\f", b"\\u00", b'"\\"\\""', b'""', b'" "')


def bundle(reading: Reading) -> bytes:
    """The collection Bundle: Encounter and Patient first, then what they refer to.

    Control characters and stray ``""`` hide in few messages; only the bytes of those are looked at again.
    """
    built = collection([resource for resource in (reading.encounter, reading.patient) if resource] + reading.resources)
    if any(mark in built for mark in _SUSPICIOUS):
        return orjson.dumps(_scrubbed(orjson.loads(built)))
    return built


def _scrubbed(value: Json) -> Json:
    if isinstance(value, str):
        if not value.isprintable():
            value = "".join(each for each in value if each.isprintable() or each in "\t\r\n")
        value = value.strip()
        return value if value and value != NULL else None
    if isinstance(value, dict):
        return {name: kept for name, inner in value.items() if (kept := _scrubbed(inner)) is not None} or None
    if isinstance(value, list):
        return [kept for inner in value if (kept := _scrubbed(inner)) is not None] or None
    return value
