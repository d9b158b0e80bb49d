"""Owns what is taken out of texts that no FHIR may hold: control characters, blanks alone, and the ``""`` of HL7 v2."""

import re
from typing import Final

from tocengine.formats.fhir.resources import Json
from tocengine.formats.fhir.schema import CONTROLS
from tocengine.formats.hl7v2.segments import NULL

CONTROL: Final = re.compile(f"[{CONTROLS}]")
_BLANKS: Final = "\t\n\r "


def scrubbed(value: Json) -> Json:
    """`value` without control characters, blanks around its texts, and what is empty then; None if all is.

    Nothing else goes: no-break spaces and joiners are part of names and numbers.
    """
    if isinstance(value, str):
        value = CONTROL.sub("", value).strip(_BLANKS)
        return value if value and value != NULL else None
    if isinstance(value, dict):
        return {name: kept for name, inner in value.items() if (kept := scrubbed(inner)) is not None} or None
    if isinstance(value, list):
        return [kept for inner in value if (kept := scrubbed(inner)) is not None] or None
    return value
