"""Owns what makes an HL7 v2 message unacceptable to a feed before anybody reads it. Pure."""

import re
from functools import lru_cache
from typing import Final

from tocengine.errors import RefusedError, SyntaxRefusedError, UnsupportedError
from tocengine.formats.hl7v2 import Delimiters
from tocengine.formats.hl7v2.ack import Sent
from tocengine.model.message import Problem
from tocengine.model.profile import SourceProfile

_PROCESSING_IDS: Final = (b"", b"P", b"T", b"D", b"N", b"V")  # table 0103; the normalizer says what may be told
_VERSION: Final = re.compile(rb"[vV]?2(\.\d{1,2}){0,3}")
_SECOND_HEADER: Final = re.compile(rb"[\r\n]MSH[!-/:-@\[-`{-~]")
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"M\x00", b"\x00M", b"\x00\x00")  # UTF-16 and UTF-32, with and without mark


class Gate:
    """The gate of one feed, by its profile."""

    def __init__(self, profile: SourceProfile) -> None:
        self._profile = profile
        self._by_header = lru_cache(maxsize=1024)(self._read_header)

    def is_ignored(self, refusal: RefusedError) -> bool:
        """What would be refused is to be stored and forgotten: its type is none the feed takes."""
        return refusal.problem.reason == "message_type" and self._profile.unsupported_types == "ignore"

    def refusal(self, body: bytes, sent: Sent) -> RefusedError | None:
        """What makes the message unacceptable before anybody reads it (HL7 v2.5.1 section 2.9.2.2)."""
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
        return self._by_header(
            sent.field(3), sent.field(4), sent.field(9), sent.field(11), sent.field(12), sent.delimiters
        )

    def _read_header(
        self,
        application: bytes,
        facility: bytes,
        kind: bytes,
        processing: bytes,
        version: bytes,
        delimiters: Delimiters,
    ) -> UnsupportedError | None:
        """The same few headers come all day, so the answer is kept."""

        def first(field: bytes) -> bytes:
            return field.split(delimiters.component.encode())[0].strip()

        if first(kind).upper() != b"ADT":
            return _unsupported("message_type", "This feed takes ADT messages", "MSH^1^9")
        if first(processing).upper() not in _PROCESSING_IDS:
            return _unsupported("processing_id", "MSH-11 is not of table 0103", "MSH^1^11", "202")
        if first(version) and not _VERSION.fullmatch(first(version)):
            return _unsupported("version", "This feed takes HL7 version 2", "MSH^1^12", "203")
        match = self._profile.match
        for number, stated, expected in ((3, application, match.msh3), (4, facility, match.msh4)):
            if expected and first(stated) != expected.encode():
                return _unsupported("unknown_sender", "The sender is not known on this feed", f"MSH^1^{number}", "207")
        return None


def malformed(reason: str, text: str, location: str, code: str = "100") -> SyntaxRefusedError:
    """A refusal because of what the bytes are."""
    return SyntaxRefusedError(Problem(reason=reason, text=text, location=location, code=code, stage="syntax"))


def _unsupported(reason: str, text: str, location: str, code: str = "200") -> UnsupportedError:
    return UnsupportedError(Problem(reason=reason, text=text, location=location, code=code, stage="gate"))
