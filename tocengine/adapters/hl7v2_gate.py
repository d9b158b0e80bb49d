"""Owns what makes an HL7 v2 message unacceptable before anybody reads it, and which feed of a listener it belongs to.

Several feeds may share a listener: the sender's name (MSH-3, MSH-4) says whose profile reads a message. A sender that
none of them matches is not guessed at. Pure.
"""

import re
from collections.abc import Sequence
from typing import Final

from tocengine.errors import RefusedError, SyntaxRefusedError, UnsupportedError
from tocengine.formats.hl7v2 import Delimiters
from tocengine.formats.hl7v2.ack import Sent, read_sent
from tocengine.model.message import Message, Problem
from tocengine.model.profile import SenderMatch, Source
from tocengine.model.remembering import remembered

PROCESSING_IDS: Final = (b"", b"P", b"T", b"D", b"N", b"V")  # table 0103; the normalizer says what may be told
_VERSION: Final = re.compile(rb"[vV]?2(\.\d{1,2}){0,3}")
_SECOND_HEADER: Final = re.compile(rb"[\r\n]MSH[!-/:-@\[-`{-~]")
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"M\x00", b"\x00M", b"\x00\x00")  # UTF-16 and UTF-32, with and without mark


class Gate:
    """The feeds of one listener. The first one stands for senders that none of them knows."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._by_header = remembered(1024)(self._check_header)  # the same few headers come all day

    def admit(self, body: bytes, sent: Sent) -> tuple[Source, RefusedError | None]:
        """The feed a message belongs to, and why it is unacceptable, if it is (HL7 v2.5.1 section 2.9.2.2)."""
        refusal = self._malformed(body, sent)
        if refusal is not None:
            return self._sources[0], refusal
        return self._by_header(
            sent.field(3), sent.field(4), sent.field(9), sent.field(11), sent.field(12), sent.delimiters
        )

    def _malformed(self, body: bytes, sent: Sent) -> RefusedError | None:
        if not sent.fields or not body.startswith(b"MSH"):
            if body.startswith(_WIDE):
                return malformed("charset_unframeable", "UTF-16 and UTF-32 cannot be framed by MLLP", "MSH^1^18", "102")
            if not sent.fields:
                return malformed("no_header", "There is no MSH segment", "MSH^1")
        if not sent.readable:
            return malformed("no_control_id", "MSH-10 is empty", "MSH^1^10", "101")
        header = b"MSH" + sent.field(1)
        if b"\r" + header in body or b"\n" + header in body:
            start = body.find(header)
            if _SECOND_HEADER.search(body, start + 3):  # the first may stand behind blank lines
                return malformed("several_messages", "The frame holds more than one message", "MSH^2")
        return None

    def _check_header(
        self,
        application: bytes,
        facility: bytes,
        kind: bytes,
        processing: bytes,
        version: bytes,
        delimiters: Delimiters,
    ) -> tuple[Source, RefusedError | None]:
        def first(field: bytes) -> bytes:
            return field.split(delimiters.component.encode())[0].strip()

        source, refusal = self._sender(first(application), first(facility))
        if first(kind).upper() != b"ADT":
            refusal = _unsupported("message_type", "This feed takes ADT messages", "MSH^1^9")
        elif first(processing).upper() not in PROCESSING_IDS:
            refusal = _unsupported("processing_id", "MSH-11 is not of table 0103", "MSH^1^11", "202")
        elif first(version) and not _VERSION.fullmatch(first(version)):
            refusal = _unsupported("version", "This feed takes HL7 version 2", "MSH^1^12", "203")
        return source, refusal

    def _sender(self, application: bytes, facility: bytes) -> tuple[Source, RefusedError | None]:
        """The feed that names the most of the sender; where none matches, the field the first one misses."""
        fitting = [each for each in self._sources if _differs(each.profile.match, application, facility) is None]
        if fitting:
            return max(fitting, key=lambda each: _named(each.profile.match)), None
        number = _differs(self._sources[0].profile.match, application, facility)
        return self._sources[0], _unsupported(
            "unknown_sender", "The sender is not known on this feed", f"MSH^1^{number}", "207"
        )


def is_ignored(source: Source, refusal: RefusedError) -> bool:
    """What would be refused is to be stored and forgotten: its type is none the feed takes."""
    return refusal.problem.reason == "message_type" and source.profile.unsupported_types == "ignore"


def readmit(gate: Gate, message: Message) -> tuple[Source, RefusedError | None]:
    """As `Gate.admit`, of a message that was kept."""
    return gate.admit(message.body, read_sent(message.body))


def _differs(match: SenderMatch, application: bytes, facility: bytes) -> int | None:
    """The first MSH field in which a sender is not the one that is expected."""
    for number, stated, expected in ((3, application, match.msh3), (4, facility, match.msh4)):
        if expected and stated != expected.encode():
            return number
    return None


def _named(match: SenderMatch) -> int:
    return bool(match.msh3) + bool(match.msh4)


def malformed(reason: str, text: str, location: str, code: str = "100") -> SyntaxRefusedError:
    """A refusal because of what the bytes are."""
    return SyntaxRefusedError(Problem(reason=reason, text=text, location=location, code=code, stage="syntax"))


def _unsupported(reason: str, text: str, location: str, code: str = "200") -> UnsupportedError:
    return UnsupportedError(Problem(reason=reason, text=text, location=location, code=code, stage="gate"))
