"""Owns the comparison of HL7 v2 parsers: the same messages and the same 25 fields, in one process, by each library."""

from collections.abc import Sequence

import hl7
from hl7apy.parser import parse_message

from tests.benchmarks.timing import Row, row
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.parser import read_path

READ = (
    "MSH-7 MSH-9.2 MSH-10 EVN-2 EVN-6 PID-3.1 PID-3.4 PID-5.1 PID-5.2 PID-7 PID-8 PID-11.1 PID-13.6 PID-18 "
    "PV1-2 PV1-3.1 PV1-3.2 PV1-7.1 PV1-7.2 PV1-10 PV1-19.1 PV1-36 PV1-37 PV1-44 PV1-45"
).split()
SLOW = 3  # messages for the library that needs 50 ms each


def measure(bodies: Sequence[bytes]) -> list[Row]:
    """One row per library. Raises AssertionError where they do not read the same."""
    apart = [
        (ours, theirs) for body in bodies[:SLOW] for ours, theirs in zip(read(body), read_hl7apy(body), strict=True)
    ]
    assert all(ours == theirs for ours, theirs in apart)
    assert all(read(body) == read_python_hl7(body) for body in bodies)
    return [
        row("tocengine", lambda: [read(body) for body in bodies]),
        row("python-hl7", lambda: [read_python_hl7(body) for body in bodies]),
        row("hl7apy (no groups)", lambda: [read_hl7apy(body) for body in bodies[:SLOW]], rounds=3),
    ]


def read(body: bytes) -> list[str]:
    """The fields by our parser."""
    message = hl7v2.parse(body)
    return [message.get(path) for path in READ]


def read_python_hl7(body: bytes) -> list[str]:
    """The fields by python-hl7; a whole field is written out again, as it has no text of its own."""
    message = hl7.parse(body.decode())
    found = []
    for path in READ:
        name, field, component, _ = read_path(path)
        if component:
            found.append(message.extract_field(name, 1, field, 1, component, 1))
        else:
            segment = message.segment(name)
            found.append(message.unescape(str(segment[field])) if field < len(segment) else "")
    return found


def read_hl7apy(body: bytes) -> list[str]:
    """The fields by hl7apy, without validation and groups: the fastest it offers."""
    message = parse_message(body.decode(), find_groups=False)
    found = []
    for path in READ:
        name, field, component, _ = read_path(path)
        element = getattr(getattr(message, name.lower()), f"{name}_{field}".lower())
        if component:
            element = getattr(element, f"{name}_{field}_{component}".lower())
        found.append(str(element.value))
    return found
