"""Owns the pairs of the corpus: an HL7 v2 input and what another converter, or the published map, makes of it.

A pair whose input is no ADT message is read as an update (A08), and one that names no patient or visit gets made-up
numbers, so that the segments they are about can be compared all the same.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.fixtures.adt import SHARED

PAIRS = SHARED / "corpus" / "pairs"
_MADE_UP = {"PID-3": "PAIR0001^^^PAIRS^MR", "PV1-19": "PAIRV001^^^PAIRS^VN"}
_STARTS = "MSH|^~\\&|PAIRS|PAIRS|||20260301120000-0500||ADT^A08|1|P|2.5.1"


class Pair(msgspec.Struct, frozen=True):
    """One pair. `resources` are those expected, `facts` single assertions, `made_up` the numbers put in."""

    name: str
    body: bytes = b""
    trigger: str = ""
    resources: tuple[dict[str, object], ...] = ()
    counts: dict[str, int] = {}
    facts: tuple[dict[str, str], ...] = ()
    made_up: frozenset[str] = frozenset()
    unread: str = ""  # why there is nothing to compare


def pairs() -> Iterator[Pair]:
    """Every pair, in order of name."""
    for expectation in sorted(PAIRS.rglob("expect*.json")):
        folder = expectation.parent
        name = str(folder.relative_to(PAIRS))
        inputs = [folder / each for each in ("input.hl7", "input.rendered.hl7") if (folder / each).is_file()]
        body = inputs[0].read_bytes() if inputs else _from_parsed(folder / "input.parsed.json")
        if body is None:
            yield Pair(name, unread="a data type without a segment")
            continue
        yield _pair(name, body, json.loads(expectation.read_text("utf-8")))


def _pair(name: str, body: bytes, expected: object) -> Pair:
    body, trigger, made_up = as_adt(body)
    if isinstance(expected, dict) and "resource_counts" in expected:
        return Pair(
            name,
            body,
            trigger,
            counts=expected["resource_counts"],
            facts=tuple(expected.get("facts", ())),
            made_up=made_up,
        )
    if isinstance(expected, dict):
        found = [entry["resource"] for entry in expected.get("entry", ())] if "entry" in expected else [expected]
    else:
        found = expected if isinstance(expected, list) else []
    return Pair(name, body, trigger, resources=tuple(found), made_up=made_up)


def as_adt(body: bytes) -> tuple[bytes, str, frozenset[str]]:
    """`body` as an ADT message about a patient's visit, its trigger, and which numbers were put in for that."""
    text = body.decode("utf-8", "surrogateescape").lstrip("\x0b\ufeff").replace("\x1c", "")
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not lines or not lines[0].startswith("MSH"):
        lines.insert(0, _STARTS)
    separator = lines[0][3]
    header = lines[0].split(separator)
    header += [""] * (11 - len(header))
    if not header[8].startswith("ADT"):
        header[8] = "ADT^A08"
    lines[0] = separator.join(header)
    if not header[8].partition("^")[2]:
        return body, "", frozenset()
    made_up = set()
    for path, value in _MADE_UP.items():
        segment, number = path.split("-")
        at = next((index for index, line in enumerate(lines) if line.startswith(segment + separator)), None)
        if at is None:
            lines.append(segment)
            at = len(lines) - 1
        fields = lines[at].split(separator)
        fields += [""] * (int(number) + 1 - len(fields))
        if not fields[int(number)].split("^")[0].strip():
            fields[int(number)] = value
            made_up.add(path)
        lines[at] = separator.join(fields)
    trigger = header[8].split("^")[1]
    return "\r".join([*lines, ""]).encode("utf-8", "surrogateescape"), trigger, frozenset(made_up)


def _from_parsed(file: Path) -> bytes | None:
    """Segments written from their parsed form; None for a data type, which belongs to no field."""
    content = json.loads(file.read_text("utf-8"))
    segments = {name: each for name, each in content.items() if re.fullmatch(r"[A-Z][A-Z0-9]{2}", name)}
    if not segments:
        return None
    order = ["MSH", "EVN", "PID", "PV1"]
    names = sorted(segments, key=lambda name: order.index(name) if name in order else len(order))
    lines = []
    for name in names:
        for each in segments[name] if isinstance(segments[name], list) else [segments[name]]:
            if isinstance(each, dict) and name != "MSH":
                lines.append(_line(name, each))
    return "\r".join([_STARTS, *lines, ""]).encode() if lines else None


def _line(name: str, fields: dict[str, object]) -> str:
    numbers = [int(number) for number in fields if number.isdigit() and number != "0"]
    return "|".join([name, *(_text(fields.get(str(number)), "^") for number in range(1, max(numbers, default=0) + 1))])


def _text(value: object, joint: str) -> str:
    if isinstance(value, list):
        return "~".join(_text(each, joint) for each in value)
    if isinstance(value, dict):
        numbers = [int(number) for number in value if number.isdigit()]
        return joint.join(_text(value.get(str(number)), "&") for number in range(1, max(numbers, default=0) + 1))
    return "" if value is None else str(value)
