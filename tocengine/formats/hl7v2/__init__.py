"""Owns HL7 v2: bytes to fields and back. Import it as a module: ``hl7v2.parse(body).segment("PV1")[19]``."""

from tocengine.formats.hl7v2.encoding import STANDARD, Delimiters, Flag
from tocengine.formats.hl7v2.parser import HL7Message, parse
from tocengine.formats.hl7v2.segments import NULL, Field, Repetition, Segment

__all__ = [
    "NULL",
    "STANDARD",
    "Delimiters",
    "Field",
    "Flag",
    "HL7Message",
    "Repetition",
    "Segment",
    "parse",
]
