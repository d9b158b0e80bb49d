"""Owns what an HL7 v2 feed takes and how it answers: whatever carried the bytes, one message or batch in, one answer
out."""

import hashlib
import itertools
import secrets
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec
import structlog

from tocengine.adapters.hl7v2_gate import Gate, is_ignored, malformed
from tocengine.config import MAX_MESSAGE_BYTES
from tocengine.errors import BatchRefusedError, FramingError, RefusedError, UnavailableError
from tocengine.formats.hl7v2.ack import Sent, Verdict, build, code_for, codes, read_sent, verdict_of
from tocengine.formats.hl7v2.batch import (
    as_message_header,
    build_answer,
    grouped,
    is_batch,
    read_batch,
    read_remains,
)
from tocengine.formats.mllp import KEPT_OF_OVERSIZE, Broken, BrokenFrame
from tocengine.model.ids import MessageId, derive
from tocengine.model.message import MAX_CONTROL_ID, ContentType, Disposition, Message, Problem, Receipt
from tocengine.model.profile import Source
from tocengine.ports import Clock, Intake
from tocengine.telemetry import Metrics

_log = structlog.get_logger()
_BROKEN_TEXTS: Final = {
    Broken.EMPTY: "The frame is empty",
    Broken.END_MISSING: "The next frame began before this one ended (0x1C 0x0D)",
    Broken.START_MISSING: "The message does not begin with 0x0B",
    Broken.AFTER_END: "More came of a frame that was taken as complete: there is a 0x1C in its data",
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
    """What a listener does with what comes in. `source` is the feed's name, facility and profile; `others` are those of
    further feeds on the same listener, told apart by who sends."""

    def __init__(
        self,
        source: Source,
        intake: Intake,
        clock: Clock,
        metrics: Metrics,
        others: Sequence[Source] = (),
        *,
        max_batch_messages: int = 1000,
    ) -> None:
        self._max_batch_messages = max_batch_messages
        self._source = source
        self._intake = intake
        self._clock = clock
        self._metrics = metrics
        self._gate = Gate((source, *others))
        self._answered = lru_cache(maxsize=64)(metrics.answered.labels)
        self._answer_seconds = lru_cache(maxsize=64)(metrics.answer_seconds.labels)
        self._run = secrets.token_hex(4)  # makes our own control ids unique over processes
        self._numbers = itertools.count(1)

    async def take(self, body: bytes, peer: str = "", line: Hashable = None) -> Answer:
        """Takes a message and answers it. Raises UnavailableError where it is not durable: answer nothing then.

        Calls with the same `line` keep their order in the event log: nothing is awaited before but the line's turn.
        """
        received_at = self._clock()
        if is_batch(body):
            return await self._take_batch(body, received_at, peer)
        sent = read_sent(body)
        source, refusal = self._gate.admit(body, sent)
        message = self._message(source, body, sent, received_at, peer)
        if refusal is None:
            receipt = await self._intake.accept(message, line)
        elif is_ignored(source, refusal):
            receipt = await self._intake.ignore(message, line)
        else:
            receipt = await self._intake.refuse(message, refusal, line)
        problem = receipt.problem if receipt.disposition is Disposition.REFUSED else None
        return self._answer(source, sent, receipt.answered, received_at, problem)

    async def _take_batch(self, body: bytes, received_at: datetime, peer: str) -> Answer:
        """Takes a batch whole, or refuses and keeps it whole; the answer is a batch of acknowledgments."""
        batch = read_remains(body)
        sent = [read_sent(each) for each in batch.messages]
        refusals: Mapping[int, RefusedError] = {}
        try:
            checked = read_batch(body)
            if len(sent) > self._max_batch_messages:
                raise malformed("batch_too_long", "The batch has more messages than this feed allows", "BHS^1", "207")
            receipts = await self._take_whole(checked.messages, sent, received_at, peer)
            problem: Problem | None = None
        except RefusedError as error:
            refusals, problem = (error.refusals if isinstance(error, BatchRefusedError) else {}), error.problem
            header = as_message_header(batch)
            kept = body if len(body) <= MAX_MESSAGE_BYTES else body[:KEPT_OF_OVERSIZE]  # the rest is in its file
            await self._intake.refuse(self._message(self._source, kept, header, received_at, peer), error)
            receipts = []
        answers = []
        for number, each in enumerate(sent):
            if receipts:
                answers.append(self._acknowledgment(self._source, each, receipts[number].answered, received_at, None))
                continue
            refusal = refusals.get(number)
            code = code_for(each, verdict_of(refusal) if refusal else Verdict.REJECT)
            told = refusal.problem if refusal else problem
            answers.append(self._acknowledgment(self._source, each, code, received_at, told))
        comment = problem.text if problem else ""
        body_of_answers = build_answer(batch, grouped(batch, answers), now=self._clock(), comment=comment)
        return Answer(body_of_answers, refused=problem is not None)

    async def _take_whole(
        self, bodies: Sequence[bytes], sent: Sequence[Sent], received_at: datetime, peer: str
    ) -> Sequence[Receipt]:
        """Raises BatchRefusedError where one message is unacceptable, UnavailableError where it is not durable."""
        ignored, refusals, messages = set(), {}, []
        for number, (body, each) in enumerate(zip(bodies, sent, strict=True)):
            source, refusal = self._gate.admit(body, each)
            messages.append(self._message(source, body, each, received_at, peer))
            if refusal is not None and is_ignored(source, refusal):
                ignored.add(number)
            elif refusal is not None:
                refusals[number] = refusal
        if refusals:
            raise BatchRefusedError(refusals)
        return await self._intake.accept_whole(messages, ignored)

    async def take_broken(self, broken: BrokenFrame, peer: str = "") -> Answer:
        """Keeps what came of a broken frame and rejects it, so that its sender sends it again.

        An empty frame is rejected and not kept: there is nothing in it. The rest of a frame that was answered before
        is kept and not answered: its sender has the one answer it waits for.
        """
        received_at = self._clock()
        self._metrics.frames_broken.labels(self._source.feed, broken.reason).inc()
        sent = read_sent(broken.payload)
        answered_before = broken.reason is Broken.AFTER_END
        problem = Problem(
            reason=f"frame_{broken.reason}", text=_BROKEN_TEXTS[broken.reason], code="207", stage="framing"
        )
        if broken.payload:
            message = self._message(self._source, broken.payload, sent, received_at, peer)
            if answered_before:
                message = msgspec.structs.replace(message, answers=("", "", ""))
            try:
                await self._intake.refuse(message, FramingError(problem))
            except UnavailableError:  # a rejection may be given all the same: its sender keeps the message
                _log.warning("broken_frame_not_kept", feed=self._source.feed, reason=problem.reason)
        code = "" if answered_before else code_for(sent, Verdict.REJECT)
        return self._answer(self._source, sent, code, received_at, problem)

    def _message(self, source: Source, body: bytes, sent: Sent, received_at: datetime, peer: str) -> Message:
        return Message(
            message_id=message_id(source.feed, sent, body),
            feed=source.feed,
            facility=source.facility.id,
            content_type=ContentType.HL7V2,
            control_id=sent.control_id.decode("utf-8", "replace")[:MAX_CONTROL_ID],
            received_at=received_at,
            body=body,
            peer=peer,
            answers=codes(sent),
        )

    def _answer(self, source: Source, sent: Sent, code: str, received_at: datetime, problem: Problem | None) -> Answer:
        body = self._acknowledgment(source, sent, code, received_at, problem)
        return Answer(body, readable=sent.readable, refused=problem is not None)

    def _acknowledgment(
        self, source: Source, sent: Sent, code: str, received_at: datetime, problem: Problem | None
    ) -> bytes | None:
        now = self._clock()
        self._answered(source.feed, code or "none").inc()
        self._answer_seconds(source.feed).observe((now - received_at).total_seconds())
        if not code:
            return None
        control_id = f"{self._run}{next(self._numbers):x}"
        return build(sent, code, now=now, control_id=control_id, problem=problem)

    @property
    def certificates(self) -> tuple[str, ...]:
        """The client certificates this feed is for; none named, all of the authority."""
        return self._source.profile.match.certificates
