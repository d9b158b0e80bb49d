"""Owns what is taken out of texts that no FHIR may hold: control characters, blanks alone, and the ``""`` of HL7 v2."""

from tocengine.formats.fhir.resources import Json
from tocengine.formats.hl7v2.segments import NULL


def scrubbed(value: Json) -> Json:
    """`value` without control characters, blanks around its texts, and what is empty then; None if all is."""
    if isinstance(value, str):
        if not value.isprintable():
            value = "".join(each for each in value if each.isprintable() or each in "\t\r\n")
        value = value.strip()
        return value if value and value != NULL else None
    if isinstance(value, dict):
        return {name: kept for name, inner in value.items() if (kept := scrubbed(inner)) is not None} or None
    if isinstance(value, list):
        return [kept for inner in value if (kept := scrubbed(inner)) is not None] or None
    return value
