"""Owns the second opinion on a message that was set aside: what the libraries of the field say of its structure.

It costs 50 ms and more a message, so it is made when a person looks. It speaks of segments, fields and elements, never
of values.
"""

import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tocengine.adapters.fhir.request import check_message
from tocengine.model.message import ContentType

TIME_LIMIT_S = 10.0
MAX_LINES = 40
_NAME = re.compile(
    r"\b[A-Z][A-Z0-9]{1,2}_[A-Z0-9]{1,3}\b|(?<=Segment: )[A-Z][A-Z0-9]{2}\b|(?<=Segment )[A-Z][A-Z0-9]{2}\b"
)
"""What hl7apy calls fields, components and structures (PV1_19, CX_1, ADT_A01), and segments where it says so."""

_SAID = (
    "Missing required child",
    "Invalid children detected",
    "Child limit exceeded",
    "Invalid value",
    "is not valid",
    "Invalid name",
    "not allowed",
)


def diagnosis(content_type: str, body: bytes, time_limit_s: float = TIME_LIMIT_S) -> list[str]:
    """Findings about `body`, for a person; an empty list where the library has nothing against it."""
    makers: dict[str, Callable[[bytes], list[str]]] = {ContentType.HL7V2: _of_hl7v2, ContentType.FHIR: _of_fhir}
    maker = makers.get(content_type)
    return _within(time_limit_s, maker, body) if maker else []


def _within(time_limit_s: float, maker: Callable[[bytes], list[str]], body: bytes) -> list[str]:
    """In a thread that is left behind where it takes too long: a message may be made to."""
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(maker(body)[:MAX_LINES])
        except Exception as error:  # the library's own troubles with what a sender invented
            answers.put([f"the structure cannot be examined: {type(error).__name__}"])

    threading.Thread(target=work, daemon=True, name="diagnosis").start()
    try:
        return answers.get(timeout=time_limit_s)
    except queue.Empty:
        return [f"the structure was not examined within {time_limit_s:g} s"]


def _of_hl7v2(body: bytes) -> list[str]:
    from hl7apy.exceptions import HL7apyException, InvalidName
    from hl7apy.parser import parse_message

    lines = [line for line in re.split("[\r\n]+", body.decode("utf-8", "replace").lstrip("\ufeff \r\n")) if line]
    findings: list[str] = []
    for _ in range(MAX_LINES):
        try:
            message = parse_message("\r".join(lines) + "\r", find_groups=False)
        except InvalidName as error:  # a segment of no HL7 version: the others may be examined without it
            kept = [line for line in lines if line[:3] not in _NAME.findall(str(error))]
            findings.append(_told(error))
            if len(kept) == len(lines) or not kept:
                return findings
            lines = kept
        except HL7apyException as error:
            return [*findings, _told(error)]
        else:
            return list(dict.fromkeys([*findings, *_validated(message.validate)]))
    return findings


def _validated(validate: Callable[..., object]) -> list[str]:
    """Every finding of the library, which writes them to a file and raises the first."""
    from hl7apy.exceptions import HL7apyException

    with TemporaryDirectory(prefix="tocengine-") as folder:
        report = Path(folder) / "report"
        try:
            validate(report_file=str(report))
        except HL7apyException as error:
            if not report.exists():
                return [_told(error)]
        lines = report.read_text("utf-8", "replace").splitlines()
    return [_named(line.partition(":")[0], line.partition(":")[2]) for line in lines if ":" in line]


def _told(error: Exception) -> str:
    return _named(type(error).__name__, str(error))


def _named(kind: str, text: str) -> str:
    """What kind of finding it is, and the names in its text; the rest of the text may quote the message."""
    said = next((words for words in _SAID if words in text), "")
    names = ", ".join(dict.fromkeys(_NAME.findall(text[:500])))
    return " ".join(part for part in (f"{kind}:", said, names) if part)


def _of_fhir(body: bytes) -> list[str]:
    found = check_message(body)
    if found is None:
        return []
    return [f"{found.problem.text} ({found.problem.reason}) at {found.problem.location or '-'}"]
