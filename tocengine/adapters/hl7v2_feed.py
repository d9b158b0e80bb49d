"""Owns what an HL7 v2 feed takes and how it answers: whatever carried the bytes, one message in, one answer out."""

import hashlib
import itertools
import re
import secrets
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec
import structlog

from tocengine.errors import FramingError, RefusedError, SyntaxRefusedError, UnavailableError, UnsupportedError
from tocengine.formats.hl7v2 import Delimiters
from tocengine.formats.hl7v2.ack import Sent, Verdict, build, code_for, codes, read_sent
from tocengine.formats.mllp import Broken, BrokenFrame
from tocengine.model.ids import MessageId, derive
from tocengine.model.message import MAX_CONTROL_ID, ContentType, Disposition, Message, Problem
from tocengine.model.profile import Source
from tocengine.ports import Clock, Intake
from tocengine.telemetry import Metrics

_log = structlog.get_logger()
_PROCESSING_IDS: Final = (b"", b"P", b"T", b"D", b"N", b"V")  # table 0103; the normalizer says what may be told
_VERSION: Final = re.compile(rb"[vV]?2(\.\d{1,2}){0,3}")
_SECOND_HEADER: Final = re.compile(rb"[\r\n]MSH[!-/:-@\[-`{-~]")
_BATCH: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?[FB]HS")
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"M\x00", b"\x00M", b"\x00\x00")  # UTF-16 and UTF-32, with and without mark
_BROKEN_TEXTS: Final = {
    Broken.EMPTY: "The frame is empty",
    Broken.END_MISSING: "The next frame began before this one ended (0x1C 0x0D)",
    Broken.START_MISSING: "The message does not begin with 0x0B",
    Broken.TOO_LARGE: "The frame is larger than this feed allows",
    Broken.CUT_OFF: "The connection was closed in the middle of the frame",
    Broken.TIMED_OUT: "The frame was not finished in time",
}


class Answer(msgspec.Struct, frozen=True):
    """What goes back. `body` is None where the sender wants no answer; unreadable means it had no control id; refused
    means that its sender keeps it."""

    body: bytes | None
    readable: bool = True
    refused: bool = False


def message_id(feed: str, sent: Sent, body: bytes) -> MessageId:
    """The id of a transmission: the same feed, sender, control id, MSH-7 and bytes give the same id everywhere."""
    digest = hashlib.sha256(body).digest()
    return MessageId(derive("message", feed, sent.field(3), sent.field(4), sent.control_id, sent.field(7), digest))


class HL7Feed:
    """One configured feed. `source` is its name, facility and profile."""

    def __init__(self, source: Source, intake: Intake, clock: Clock, metrics: Metrics) -> None:
        self._source = source
        self._intake = intake
        self._clock = clock
        self._metrics = metrics
        self._feed = source.feed
        self._gate = lru_cache(maxsize=1024)(self._gate_by_header)
        self._answered = lru_cache(maxsize=16)(metrics.answered.labels)
        self._answer_seconds = metrics.answer_seconds.labels(source.feed)
        self._run = secrets.token_hex(4)  # makes our own control ids unique over processes
        self._numbers = itertools.count(1)

    async def take(self, body: bytes, peer: str = "") -> Answer:
        """Takes a message and answers it. Raises UnavailableError where it is not durable: answer nothing then.

        Reaches the event log without awaiting anything before, so that calls keep their order in it.
        """
        received_at = self._clock()
        sent = read_sent(body)
        message = self._message(body, sent, received_at, peer)
        refusal = self._refusal(body, sent)
        if refusal is None:
            receipt = await self._intake.accept(message)
        elif self._is_ignored(refusal):
            receipt = await self._intake.ignore(message)
        else:
            receipt = await self._intake.refuse(message, refusal)
        problem = receipt.problem if receipt.disposition is Disposition.REFUSED else None
        return self._answer(sent, receipt.answered, received_at, problem)

    async def take_broken(self, broken: BrokenFrame, peer: str = "") -> Answer:
        """Keeps what came of a broken frame and rejects it, so that its sender sends it again.

        An empty frame is rejected and not kept: there is nothing in it.
        """
        received_at = self._clock()
        self._metrics.frames_broken.labels(self._feed, broken.reason).inc()
        sent = read_sent(broken.payload)
        problem = Problem(
            reason=f"frame_{broken.reason}", text=_BROKEN_TEXTS[broken.reason], code="207", stage="framing"
        )
        if broken.payload:
            message = self._message(broken.payload, sent, received_at, peer)
            try:
                await self._intake.refuse(message, FramingError(problem))
            except UnavailableError:  # a rejection may be given all the same: its sender keeps the message
                _log.warning("broken_frame_not_kept", feed=self._feed, reason=problem.reason)
        return self._answer(sent, code_for(sent, Verdict.REJECT), received_at, problem)

    def _message(self, body: bytes, sent: Sent, received_at: datetime, peer: str) -> Message:
        return Message(
            message_id=message_id(self._feed, sent, body),
            feed=self._feed,
            facility=self._source.facility.id,
            content_type=ContentType.HL7V2,
            control_id=sent.control_id.decode("utf-8", "replace")[:MAX_CONTROL_ID],
            received_at=received_at,
            body=body,
            peer=peer,
            answers=codes(sent),
        )

    def _answer(self, sent: Sent, code: str, received_at: datetime, problem: Problem | None) -> Answer:
        now = self._clock()
        self._answered(self._feed, code or "none").inc()
        self._answer_seconds.observe((now - received_at).total_seconds())
        if not code:
            return Answer(None, readable=sent.readable, refused=problem is not None)
        control_id = f"{self._run}{next(self._numbers):x}"
        body = build(sent, code, now=now, control_id=control_id, problem=problem)
        return Answer(body, readable=sent.readable, refused=problem is not None)

    @property
    def certificates(self) -> tuple[str, ...]:
        """The client certificates this feed is for; none named, all of the authority."""
        return self._source.profile.match.certificates

    def _is_ignored(self, refusal: RefusedError) -> bool:
        return refusal.problem.reason == "message_type" and self._source.profile.unsupported_types == "ignore"

    def _refusal(self, body: bytes, sent: Sent) -> RefusedError | None:
        """What makes the message unacceptable before anybody reads it (HL7 v2.5.1 section 2.9.2.2)."""
        if not sent.fields or not body.startswith(b"MSH"):
            if _BATCH.match(body):
                return _unsupported("batch", "Batches are not taken by this feed", "", "200")
            if body.startswith(_WIDE):
                return _malformed(
                    "charset_unframeable", "UTF-16 and UTF-32 cannot be framed by MLLP", "MSH^1^18", "102"
                )
            if not sent.fields:
                return _malformed("no_header", "There is no MSH segment", "MSH^1")
        if not sent.readable:
            return _malformed("no_control_id", "MSH-10 is empty", "MSH^1^10", "101")
        header = b"MSH" + sent.field(1)
        if b"\r" + header in body or b"\n" + header in body:
            start = body.find(header)
            if _SECOND_HEADER.search(body, start + 3):  # the first may stand behind blank lines
                return _malformed("several_messages", "The frame holds more than one message", "MSH^2")
        return self._gate(sent.field(3), sent.field(4), sent.field(9), sent.field(11), sent.field(12), sent.delimiters)

    def _gate_by_header(
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
        match = self._source.profile.match
        for number, stated, expected in ((3, application, match.msh3), (4, facility, match.msh4)):
            if expected and first(stated) != expected.encode():
                return _unsupported("unknown_sender", "The sender is not known on this feed", f"MSH^1^{number}", "207")
        return None


def _malformed(reason: str, text: str, location: str, code: str = "100") -> SyntaxRefusedError:
    return SyntaxRefusedError(Problem(reason=reason, text=text, location=location, code=code, stage="syntax"))


def _unsupported(reason: str, text: str, location: str, code: str = "200") -> UnsupportedError:
    return UnsupportedError(Problem(reason=reason, text=text, location=location, code=code, stage="gate"))
