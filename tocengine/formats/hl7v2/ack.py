"""Owns the acknowledgment: which code a sender is owed, and the message that carries it, in the sender's own encoding.

HL7 v2.5.1 sections 2.9.2 (original mode) and 2.9.3 (enhanced mode), 2.15 (MSA, ERR). Exactly one answer is given on
the connection, or none where the sender asked for none: in enhanced mode the accept acknowledgment, or, where
MSH-15 wants none and MSH-16 does, the application acknowledgment in its place. Works on bytes, so that what is
echoed is what came, also from messages that cannot be parsed.
"""

import re
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from tocengine.errors import RefusedError, SyntaxRefusedError
from tocengine.formats.hl7v2.encoding import STANDARD, Delimiters, escape, read_delimiters
from tocengine.formats.hl7v2.parser import parse
from tocengine.model.message import Problem

_HEADER: Final = re.compile(rb"MSH[!-/:-@\[-`{-~]")
_LINE_END: Final = re.compile(rb"[\r\n]")
_NO_ANSWER_TO: Final = (b"ACK", b"MCF", b"NAK")
ERROR_LABELS: Final = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "207": "Application internal error",
}
"""HL7 table 0357, as far as we give its codes."""


class Verdict(StrEnum):
    """What is said of a message; the second letter of its code."""

    ACCEPT = "A"
    ERROR = "E"
    REJECT = "R"


def verdict_of(error: RefusedError) -> Verdict:
    """The verdict that an error's `ack_code` means."""
    return Verdict(error.ack_code[1])


class Sent(msgspec.Struct, frozen=True):
    """The header of a received message as bytes: enough to answer it. `fields` start at MSH-1 = index 1."""

    fields: tuple[bytes, ...]
    delimiters: Delimiters

    def field(self, number: int) -> bytes:
        """MSH field `number` exactly as it came, still escaped."""
        return self.fields[number] if number < len(self.fields) else b""

    def component(self, number: int, part: int) -> bytes:
        """Component `part` of MSH field `number`, as it came."""
        parts = self.field(number).split(self.delimiters.component.encode())
        return parts[part - 1].strip() if part <= len(parts) else b""

    @property
    def readable(self) -> bool:
        """There is a control id: the sender can tell what is answered."""
        return bool(self.control_id)

    @property
    def control_id(self) -> bytes:
        """MSH-10, verbatim."""
        return self.field(10)

    @property
    def is_acknowledgment(self) -> bool:
        """It must never be answered."""
        return self.component(9, 1).upper() in _NO_ANSWER_TO

    @property
    def version(self) -> tuple[int, ...]:
        """MSH-12 as numbers, (2, 5, 1); 2.5.1 where it is missing or none."""
        return _version(self.field(12))

    @property
    def enhanced(self) -> bool:
        """MSH-15 or MSH-16 is valued."""
        return bool(self.field(15).strip() or self.field(16).strip())


_NOTHING_SENT: Final = Sent((), STANDARD)


def read_sent(body: bytes) -> Sent:
    """The header fields of `body`, wherever in it an MSH is. Never fails: there may be none in it."""
    match = _HEADER.search(body)
    return _NOTHING_SENT if match is None else read_segment(body, match.start())


def read_segment(body: bytes, start: int = 0) -> Sent:
    """The fields of the header segment (MSH, BHS, FHS) that begins at `start`; all three begin alike."""
    end = _LINE_END.search(body, start)
    line = body[start : end.start() if end else len(body)]
    separator = line[3:4]
    _, *rest = line.split(separator)
    try:
        delimiters = read_delimiters(separator.decode(), rest[0].decode("utf-8") if rest else "")
    except (SyntaxRefusedError, UnicodeDecodeError):  # the answer is then in the standard ones
        delimiters = STANDARD
    return Sent((line[:3], separator, *rest), delimiters)


def code_for(sent: Sent, verdict: Verdict) -> str:
    """The acknowledgment code owed, "" where nothing may be sent (HL7 table 0155: AL, NE, ER, SU)."""
    return "" if sent.is_acknowledgment else _code(sent.field(15), sent.field(16), verdict)


def codes(sent: Sent) -> tuple[str, str, str]:
    """What is owed when it is accepted, in error, rejected."""
    if sent.is_acknowledgment:
        return "", "", ""
    wishes = sent.field(15), sent.field(16)
    return _code(*wishes, Verdict.ACCEPT), _code(*wishes, Verdict.ERROR), _code(*wishes, Verdict.REJECT)


@lru_cache(maxsize=256)
def _code(accept: bytes, application: bytes, verdict: Verdict) -> str:
    wishes = [(wish.strip().upper(), level) for wish, level in ((accept, "C"), (application, "A"))]
    if not any(wish for wish, _ in wishes):
        return f"A{verdict}"  # original mode
    for wish, level in wishes:
        if wish == b"ER":
            wanted = verdict is not Verdict.ACCEPT
        elif wish == b"SU":
            wanted = verdict is Verdict.ACCEPT
        else:
            wanted = wish not in (b"", b"NE")  # anything else is read as AL: an answer too many does no harm
        if wanted:
            return f"{level}{verdict}"
    return ""


def stamp(now: datetime) -> bytes:
    """An aware time as it is written in our headers, with its offset."""
    return _stamp(now.replace(microsecond=0))


@lru_cache(maxsize=8)
def _stamp(second: datetime) -> bytes:
    return second.strftime("%Y%m%d%H%M%S%z").encode()


@lru_cache(maxsize=256)
def _version(stated: bytes) -> tuple[int, ...]:
    match = re.match(rb"\s*(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?", stated)
    return tuple(int(part) for part in match.groups() if part) if match else (2, 5, 1)


def build(sent: Sent, code: str, *, now: datetime, control_id: str, problem: Problem | None = None) -> bytes:
    """The acknowledgment of `sent`: `now` (aware) is its MSH-7, `control_id` its MSH-10.

    In the sender's delimiters and character set; ERR by the sender's version where there is a `problem`.
    """
    delimiters = sent.delimiters
    component = delimiters.component.encode()
    version = sent.version
    trigger = sent.component(9, 2)
    kind = [b"ACK", trigger] if trigger else [b"ACK"]
    if version >= (2, 3, 1) and trigger:
        kind.append(b"ACK")
    mode = b"NE" if sent.enhanced else b""
    header = [
        b"MSH",
        delimiters.characters.encode(),
        sent.field(5),
        sent.field(6),
        sent.field(3),
        sent.field(4),
        stamp(now),
        b"",
        component.join(kind),
        control_id.encode(),
        sent.field(11) or b"P",
        sent.field(12) or b"2.5.1",
        b"",
        b"",
        mode,
        mode,
        b"",
        sent.field(18),
    ]
    answer = [b"MSA", code.encode(), sent.control_id]
    segments = [header, answer]
    if problem is not None:
        if version < (2, 7):
            answer.append(escape(problem.text, delimiters).encode("ascii", "replace"))
        segments.append(_error(problem, delimiters, version))
    separator = delimiters.field.encode()
    return b"".join(separator.join(_trimmed(segment)) + b"\r" for segment in segments)


def _trimmed(fields: list[bytes]) -> list[bytes]:
    while fields and not fields[-1]:
        fields.pop()
    return fields


def _error(problem: Problem, delimiters: Delimiters, version: tuple[int, ...]) -> list[bytes]:
    """ERR: of 2.4 and before only ERR-1 (type ELD), since 2.5 location, code and severity in fields of their own."""
    code = problem.code if problem.code in ERROR_LABELS else "207"
    coded = (code, ERROR_LABELS[code], "HL70357")
    place = [escape(part, delimiters) for part in problem.location.split("^")] if problem.location else []
    component = delimiters.component
    if version < (2, 5):
        place = [*place[:3], *[""] * (3 - len(place[:3]))]
        texts = ["ERR", component.join([*place, (delimiters.subcomponent or " ").join(coded)])]
    else:
        texts = [
            "ERR",
            "",
            component.join(place),
            component.join(coded),
            "E",
            "",
            "",
            escape(f"{problem.stage}: {problem.reason}", delimiters),
            escape(problem.text, delimiters),
        ]
    return [text.encode("ascii", "replace") for text in texts]


class Acknowledgment(msgspec.Struct, frozen=True):
    """A received acknowledgment: its code, the control id it answers, and what it says."""

    code: str
    control_id: str
    text: str = ""

    @property
    def positive(self) -> bool:
        """AA or CA."""
        return self.code in ("AA", "CA")


def read_ack(payload: bytes) -> Acknowledgment:
    """The acknowledgment in `payload`. Raises SyntaxRefusedError where it is no HL7 v2 message; the code is
    empty where it has no MSA."""
    message = parse(payload)
    answer, error = message.segment("MSA"), message.segment("ERR")
    text = answer[3].text or error[8].text or error[3].component(2)
    return Acknowledgment(answer[1].text.strip(), answer[2].raw, text)
