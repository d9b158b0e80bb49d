"""Owns the one door: what comes in is normalized and durable in the event log before anybody is told that it was taken.

Nothing received is dropped: what cannot be normalized is appended to the quarantine topic with its reason.
"""

import asyncio
from collections.abc import Collection, Hashable, Sequence
from functools import lru_cache

import msgspec
import structlog

from tocengine.adapters.turns import Turns
from tocengine.errors import BatchRefusedError, ContentError, RefusedError, SetAsideError
from tocengine.model.event import EventRecord
from tocengine.model.ids import FeedName
from tocengine.model.message import ContentType, Disposition, Message, Problem, Receipt
from tocengine.ports import EventLog, LogRecord, Normalizer, RecordBuilder
from tocengine.telemetry import Metrics, origin_of

_log = structlog.get_logger()
LARGE_BYTES = 128 * 1024
"""A FHIR body beyond this is read in a thread: it takes tens of milliseconds a megabyte, and others go on meanwhile."""
_ANSWER_TO = {"AA": 0, "AE": 1, "AR": 2}  # where an ack code's counterpart is in `Message.answers`


class Intake:
    """Implements `ports.Intake`. Keeps no state between messages, so that any number of them can run.

    Feeds take turns at what occupies the process (`turns`); who waits for the log waits together with others.

    `strict` are the feeds that want content errors answered negatively (``ack_policy = "strict"``); others get a
    positive answer and the message waits in quarantine, because many senders block on a negative one.
    """

    def __init__(
        self,
        event_log: EventLog,
        normalizer: Normalizer,
        records: RecordBuilder,
        metrics: Metrics,
        strict: Collection[FeedName] = (),
        turns: Turns | None = None,
    ) -> None:
        self._event_log = event_log
        self._normalizer = normalizer
        self._records = records
        self._metrics = metrics
        self._strict = frozenset(strict)
        self._turns = turns or Turns()
        self._received = lru_cache(maxsize=1024)(metrics.received.labels)
        self._last_received = lru_cache(maxsize=1024)(metrics.last_received.labels)

    async def turn(self, message: Message) -> None:
        """Returns when its feed may occupy the process with it."""
        await self._turns.take(message.feed, len(message.body), counts=False)

    async def accept(self, message: Message, line: Hashable = None) -> Receipt:
        """Returns once raw message and events, or message and reason, are durable. Raises UnavailableError."""
        self._count(message)
        await self._turns.take(message.feed, len(message.body), line)
        try:
            if message.content_type is ContentType.FHIR and len(message.body) > LARGE_BYTES:
                records, problem = await asyncio.to_thread(self._prepare, message)
            else:
                records, problem = self._prepare(message)
        except RefusedError as error:
            return await self._store_refused(message, error)
        try:
            await self._event_log.append(records)
        except ContentError as error:  # the log does not take its events: unanswered, it would be sent forever
            if not self._takes_anyway(message, error):
                return await self._store_refused(message, error)
            problem = error.problem
            await self._event_log.append(self._set_aside(message, problem))
        return self._taken(message, problem)

    async def accept_whole(self, messages: Sequence[Message], ignored: Collection[int] = ()) -> Sequence[Receipt]:
        """A batch in one append. Raises UnavailableError; BatchRefusedError where one would have to be refused."""
        records: list[LogRecord] = []
        problems: list[Problem | None] = []
        refusals: dict[int, RefusedError] = {}
        until = self._turns.until()
        for number, message in enumerate(messages):
            self._count(message)
            await self._turns.take(message.feed, len(message.body), until=until)  # others come in between
            try:
                prepared = ([self._records.message(message)], None) if number in ignored else self._prepare(message)
            except RefusedError as error:
                refusals[number] = error
                continue
            records += prepared[0]
            problems.append(prepared[1])
        if refusals:
            raise BatchRefusedError(refusals)
        if records:
            try:
                await self._event_log.append(records)
            except ContentError as error:
                raise BatchRefusedError({0: error}) from error
        return [
            self._ignored(message) if number in ignored else self._taken(message, problem)
            for number, (message, problem) in enumerate(zip(messages, problems, strict=True))
        ]

    async def refuse(self, message: Message, error: RefusedError, line: Hashable = None) -> Receipt:
        """Keeps what an adapter refuses by itself. Raises UnavailableError where it could not be kept."""
        self._count(message)
        await self._turns.take(message.feed, len(message.body), line)
        return await self._store_refused(message, error)

    async def ignore(self, message: Message, line: Hashable = None) -> Receipt:
        """Keeps the raw bytes of what the feed is told to ignore. Raises UnavailableError."""
        self._count(message)
        await self._turns.take(message.feed, len(message.body), line)
        await self._event_log.append([self._records.message(message)])
        return self._ignored(message)

    def _prepare(self, message: Message) -> tuple[list[LogRecord], Problem | None]:
        """What is to be appended, and why the message is set aside if it is. Raises RefusedError."""
        answered = message.answers[0]
        try:
            events = [_told(each, answered) for each in self._normalizer.normalize(message)]
            return [self._records.message(message), *self._records.events(message, events)], None
        except RefusedError as error:
            if not self._takes_anyway(message, error):
                raise
            problem = error.problem
        except Exception as error:  # a defect of ours must neither lose the message nor block its sender
            _log.error("normalize_failed", feed=message.feed, message_id=message.message_id, **origin_of(error))
            problem = Problem(
                reason="internal", text=f"The engine failed to read it: {type(error).__name__}", code="207"
            )
        return self._set_aside(message, problem), problem

    def _set_aside(self, message: Message, problem: Problem) -> list[LogRecord]:
        """Taken over from the sender: kept among the messages too, for the day they are normalized anew."""
        set_aside = self._records.quarantined(message, problem, message.answers[0])
        return [self._records.message(message), set_aside]

    def _taken(self, message: Message, problem: Problem | None) -> Receipt:
        answered = message.answers[0]
        if problem is None:
            return Receipt(message_id=message.message_id, disposition=Disposition.ACCEPTED, answered=answered)
        self._tell_of(message, problem)
        return Receipt(
            message_id=message.message_id, disposition=Disposition.QUARANTINED, problem=problem, answered=answered
        )

    def _ignored(self, message: Message) -> Receipt:
        return Receipt(message_id=message.message_id, disposition=Disposition.IGNORED, answered=message.answers[0])

    def _takes_anyway(self, message: Message, error: RefusedError) -> bool:
        if isinstance(error, SetAsideError):
            return True
        return message.content_type is ContentType.HL7V2 and error.ack_code == "AE" and message.feed not in self._strict

    async def _store_refused(self, message: Message, error: RefusedError) -> Receipt:
        answered = message.answers[_ANSWER_TO.get(error.ack_code, 1)]
        if message.content_type is ContentType.FHIR:
            answered = str(error.http_status)
        refused = self._records.quarantined(message, error.problem, answered)
        await self._event_log.append([refused])
        self._tell_of(message, error.problem)
        return Receipt(
            message_id=message.message_id,
            disposition=Disposition.REFUSED,
            problem=error.problem,
            answered=answered,
        )

    def _tell_of(self, message: Message, problem: Problem) -> None:
        self._metrics.quarantined.labels(message.feed, problem.stage, problem.reason).inc()
        _log.warning(
            "message_set_aside",
            feed=message.feed,
            message_id=message.message_id,
            stage=problem.stage,
            reason=problem.reason,
            location=problem.location,
        )

    def _count(self, message: Message) -> None:
        self._received(message.feed).inc()
        self._last_received(message.feed).set(message.received_at.timestamp())


def _told(record: EventRecord, answered: str) -> EventRecord:
    """The event with the answer its sender gets, which the normalizer cannot know."""
    if record.summary.answered == answered:
        return record
    return EventRecord(summary=msgspec.structs.replace(record.summary, answered=answered), fhir=record.fhir)
