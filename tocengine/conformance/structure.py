"""Owns what the standard says of a message, by hl7apy and by the version the message states.

Segments are judged one by one, as from hl7apy's ``find_groups=False``: its search for groups drops the segments it
does not expect. Senders deviate from the structure all the time and are understood, so every finding is a warning.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from hl7apy import SUPPORTED_LIBRARIES, load_reference
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_segment
from hl7apy.validation import Validator

from tocengine.conformance.findings import Finding, Severity
from tocengine.formats.hl7v2 import HL7Message, Segment
from tocengine.model.event import CODE

FALLBACK_VERSION: Final = "2.5.1"
MAX_SEGMENTS: Final = 500
"""Segments of one message that are judged: hl7apy needs up to 5 ms for each."""

_CODING_SYSTEMS: Final = "HL70396"
"""hl7apy's copy of this table lacks most of it, the names of HL7's own tables too."""
_MISSING: Final = re.compile(r"Missing required child (\w+)\.(\w+)")
_TOO_MANY: Final = re.compile(r"Child limit exceeded (\w+)\.(\w+)")
_TABLE: Final = re.compile(r"Value (.*) not in table (\w+) in element (\w+)\.(\w+)", re.DOTALL)
_LENGTH: Final = re.compile(r"Exceeded max length \((\d+)\) of (\w+)\.(\w+)")
_TYPE: Final = re.compile(r"Datatype \S+ is not correct for (\w+)\.(\w+)")
_ELEMENT: Final = re.compile(r"([A-Z][A-Z0-9]{2})_(\d+)(?:_(\d+))?")


def version_of(message: HL7Message) -> str:
    """MSH-12.1 where hl7apy knows that version, else the one it is judged by."""
    stated = message.get("MSH-12.1").strip()
    return stated if stated in SUPPORTED_LIBRARIES else FALLBACK_VERSION


def structure_findings(message: HL7Message) -> Iterator[Finding]:
    """What the message's own version of the standard would have otherwise."""
    version = version_of(message)
    stated = message.get("MSH-12.1").strip()
    if stated != version:
        yield _warning("version", "MSH^1^12", f"no version of HL7 that is known; judged as {version}")
    yield from _segments_of(message, version)
    with tempfile.TemporaryDirectory(prefix="tocengine-check-") as folder:
        for number, segment in enumerate(message):
            if number == MAX_SEGMENTS:
                yield _warning("long_message", _whole(segment), f"only the first {MAX_SEGMENTS} segments are judged")
                return
            if not segment.name.startswith("Z"):
                yield from _segment_findings(segment, version, Path(folder) / "report")


def _segments_of(message: HL7Message, version: str) -> Iterator[Finding]:
    """Segments the structure of the message does not have, and those it requires outside of any group."""
    structure = _structure(message, version)
    if structure is None:
        return
    known, required = structure
    names = {segment.name for segment in message}
    for name in sorted(required - names):
        yield _warning("segment_missing", name, "required by the structure of the message")
    for name in sorted(names - known):
        if not name.startswith("Z") and re.fullmatch(r"[A-Z][A-Z0-9]{2}", name):
            yield _warning("segment_unexpected", name, "not in the structure of the message; it is kept")


def _structure(message: HL7Message, version: str) -> tuple[frozenset[str], frozenset[str]] | None:
    kind, trigger, stated = (message.get(f"MSH-9.{part}").strip() for part in (1, 2, 3))
    for name in (stated, f"{kind}_{trigger}"):
        if re.fullmatch(r"[A-Z0-9]{3}_[A-Z0-9]{2,3}", name):
            found = _structure_named(name, version)
            if found is not None:
                return found
    return None


@lru_cache(maxsize=256)
def _structure_named(name: str, version: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """All segments of a structure, and those it requires at its top; None where the version has no such structure."""
    with suppress(HL7apyException, KeyError):
        children = load_reference(name, "Message", version)[1]
        required = frozenset(child[0] for child in children if child[3] == "SEG" and child[2][0] > 0)
        return frozenset(_flat(children)), required
    return None


def _flat(children: tuple[tuple[object, ...], ...]) -> Iterator[str]:
    for name, reference, _, kind in children:
        if kind == "SEG":
            yield str(name)
        else:
            yield from _flat(reference[1])  # type: ignore[index]


def _segment_findings(segment: Segment, version: str, path: Path) -> Iterator[Finding]:
    path.unlink(missing_ok=True)
    try:
        parsed = parse_segment(segment.raw, version=version, encoding_chars=_encoding(segment))
        with suppress(HL7apyException):  # it raises the first of what it writes
            Validator.validate(parsed, report_file=str(path))
    except Exception as error:
        yield _warning("segment_unreadable", _whole(segment), f"hl7apy gives up on it: {type(error).__name__}")
        return
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    yield from dict.fromkeys(found for line in lines if (found := _finding(segment, line)))


def _encoding(segment: Segment) -> dict[str, str]:
    used = segment.coding.delimiters
    return {
        "SEGMENT": "\r",
        "FIELD": used.field,
        "COMPONENT": used.component,
        "SUBCOMPONENT": used.subcomponent or "&",
        "REPETITION": used.repetition or "~",
        "ESCAPE": used.escape or "\\",
    }


def _finding(segment: Segment, line: str) -> Finding | None:
    """A line of hl7apy's report without the value in it; None for what says nothing of a place."""
    if found := _MISSING.search(line):
        return _warning("required", _place(segment, found[2]), "required by the standard")
    if found := _TOO_MANY.search(line):
        return _warning("repeated", _place(segment, found[2]), "repeated more often than the standard allows")
    if found := _TABLE.search(line):
        if found[2] == _CODING_SYSTEMS:
            return None
        code = f"{found[1]!r} is" if CODE.fullmatch(found[1]) else "what was sent is"
        return _warning("table", _place(segment, found[4]), f"{code} not in table {found[2]}")
    if found := _LENGTH.search(line):
        return _warning("length", _place(segment, found[3]), f"longer than {found[1]} characters")
    if found := _TYPE.search(line):
        return _warning("type", _place(segment, found[2]), "not of its data type")
    if "Invalid children" in line or "Unknown element" in line:
        place = next(iter(_ELEMENT.finditer(line)), None)
        return _warning(
            "unknown_element", _place(segment, place[0] if place else ""), "the standard has no such element"
        )
    return None


def _place(segment: Segment, element: str) -> str:
    """``PV1_36`` or ``PV1_3_4`` of hl7apy as an ERL; a component of a type (``CX_4``) stays with its segment."""
    match = _ELEMENT.fullmatch(element)
    if match is None or match[1] != segment.name:
        return f"{_whole(segment)} ({element})" if element else _whole(segment)
    return segment.location(int(match[2]), int(match[3] or 0))


def _whole(segment: Segment) -> str:
    return f"{segment.name[:3]}^{segment.occurrence}"


def _warning(rule: str, location: str, text: str) -> Finding:
    return Finding(Severity.WARNING, rule, location, text)
