"""Owns the seams: the few interfaces through which a stage reaches the next one. `roles` hands them out."""

from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeAlias

import asyncpg
import asyncpg.pool
import msgspec

from tocengine.errors import RefusedError
from tocengine.model.audit import AuditRecord
from tocengine.model.codes import NotedCodes
from tocengine.model.directory import Recipient
from tocengine.model.encounter import Snapshot, TrackedEncounter, Transition
from tocengine.model.event import Event, EventRecord
from tocengine.model.facts import Destination
from tocengine.model.ids import FeedName, MessageId, RecipientId
from tocengine.model.message import Message, Problem, Quarantined, Receipt
from tocengine.model.notice import Notice, Outcome
from tocengine.model.work import WorkItem, WorkKind

Transaction: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
"""A connection with an open transaction, owned by the caller."""
Clock = Callable[[], datetime]
"""Returns an aware UTC time. Pure modules take `now` instead."""


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a topic. `key` is the keyed hash of the patient key; `headers` carry no PHI."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive records of one partition, read under `epoch`; applying it moves the position to `next_offset`."""

    topic: str
    partition: int
    first_offset: int  # the position before the batch
    next_offset: int
    epoch: int
    records: tuple[LogRecord, ...]


class EventLog(Protocol):
    """The writing side of the log."""

    async def append(self, records: Sequence[LogRecord]) -> None:
        """Returns when all records are durable, in order per key. Raises UnavailableError when that is not certain;
        the records may then be in the log nevertheless (consumers drop repeats by id)."""

    async def close(self) -> None:
        """Flushes what is under way, bounded in time."""


class LogConsumer(Protocol):
    """The reading side: partitions are taken in the poll loop and positions live in PostgreSQL."""

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        """At most one batch per partition; empty after `timeout_s` without records. Raises UnavailableError."""

    async def commit(self, transaction: Transaction, batches: Sequence[Batch]) -> None:
        """Moves the positions inside the caller's transaction; raises PositionLostError if one is no longer ours."""

    async def rewind(self) -> None:
        """Forgets what was polled and not committed: the next poll starts at the stored positions."""

    async def lag(self) -> Mapping[tuple[str, int], int]:
        """Records not yet committed, by (topic, partition)."""

    async def idle(self) -> Sequence[Batch]:
        """An empty batch of every partition that is ours and has no record left to apply. Committing it moves nothing
        and proves that the partition is still ours. Raises UnavailableError."""

    async def close(self) -> None:
        """Gives the partitions back."""


class Progress(msgspec.Struct, frozen=True):
    """Records appended to a topic since it began, and how many of them routing has applied."""

    appended: int
    applied: int


class LogProgress(Protocol):
    """Says how far routing is, to whoever does not read the log."""

    async def look(self) -> Progress:
        """Over all partitions, whoever appends and reads them. Raises UnavailableError where that cannot be known."""

    async def close(self) -> None:
        """Ends its connections."""


class MessageScanner(Protocol):
    """Reads messages of the log again, beside whoever reads it for routing."""

    def messages(
        self, since: datetime, until: datetime, portion: int = 200
    ) -> AsyncGenerator[Sequence[LogRecord], None]:
        """Records of ``toc.messages.v1`` appended from `since` until `until`, at most `portion` at a time, each feed's
        in its order; what is appended later is left out. Raises UnavailableError."""


class RecordReader(Protocol):
    """Decodes what the log holds. Each method raises EventDataError for a record that is not what its topic says."""

    def event(self, record: LogRecord) -> EventRecord:
        """Of a `toc.events.v1` record; the FHIR content stays undecoded."""

    def quarantined(self, record: LogRecord) -> Quarantined:
        """Of a `toc.quarantine.v1` record."""


class Normalizer(Protocol):
    """Turns a message into events. Pure. Raises RefusedError for what cannot be normalized."""

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        """One event per patient the message is about."""


class RecordBuilder(Protocol):
    """Turns what the door takes in into log records: topic, key hash, CloudEvents envelope. Pure."""

    def message(self, message: Message) -> LogRecord:
        """The raw bytes, for ``toc.messages.v1``."""

    def events(self, message: Message, records: Sequence[EventRecord]) -> list[LogRecord]:
        """One record per event, for ``toc.events.v1``, each keyed by its own patient."""

    def quarantined(self, message: Message, problem: Problem, answered: str) -> LogRecord:
        """The raw bytes with the reason, for ``toc.quarantine.v1``; `answered` is the code or HTTP status given."""


class TransitionRecords(Protocol):
    """Turns what happened to an encounter into the log record the outbox keeps until it is published. Pure."""

    def transition(self, transition: Transition, snapshot: Snapshot, fhir: bytes) -> LogRecord:
        """For ``toc.transitions.v1``, keyed by the patient; `fhir` is the snapshot's chart, a Bundle in JSON."""


class Intake(Protocol):
    """The one door. Feeds take turns at it; what comes on the same `line` (a connection) keeps its order."""

    async def turn(self, message: Message) -> None:
        """Returns when the message may occupy the process: for adapters whose own checks take a millisecond or more."""

    async def accept(self, message: Message, line: Hashable = None) -> Receipt:
        """Returns once the message is durable. Raises UnavailableError when it is not: give no positive answer."""

    async def refuse(self, message: Message, error: RefusedError, line: Hashable = None) -> Receipt:
        """Keeps in quarantine what the adapter itself refuses (broken frame, unknown sender, unsupported type).

        Raises UnavailableError when it is not durable; the refusal may be given to the sender all the same.
        """

    async def accept_whole(self, messages: Sequence[Message], ignored: Collection[int] = ()) -> Sequence[Receipt]:
        """A batch: all of it in one append, or nothing; `ignored` are the numbers of messages to `ignore`.

        Raises UnavailableError, and BatchRefusedError where one of them would have to be refused.
        """

    async def ignore(self, message: Message, line: Hashable = None) -> Receipt:
        """Keeps the raw bytes and nothing else of what the feed is told to ignore. Raises UnavailableError."""


class DestinationResolver(Protocol):
    """Names the directory's recipient a message's destination means, if exactly one."""

    def resolve(self, feed: FeedName, destination: Destination) -> RecipientId | None:
        """By NPI, then CCN, then exact alias. None where nobody or more than one matches."""


class Tracker(Protocol):
    """Folds events into encounters, inside the caller's transaction."""

    async def track(
        self, transaction: Transaction, events: Sequence[EventRecord], now: datetime, *, hold: bool = True
    ) -> Sequence[TrackedEncounter]:
        """The encounters the events touched. Repeats are dropped, early ones held back unless `hold` is False.

        Raises EventDataError for a poisonous event, and HeldRowError where what was held back cannot be read any more.
        """

    async def remind(self, transaction: Transaction, now: datetime) -> int:
        """Opens work items for what has not come in time by `now`, some at once; returns how many were looked at."""

    async def recall(self, transaction: Transaction, now: datetime) -> Sequence[TrackedEncounter] | None:
        """Encounters about which has to be decided anew, without a message, who is told what: as they stand, locked,
        some at once; None where there are none. They are due no more once the transaction commits."""

    async def window_ended(self, transaction: Transaction, now: datetime) -> bool:
        """Whether anything is held back whose window has ended by `now`, on whatever partition."""

    async def ended(self, transaction: Transaction, until: Mapping[int, datetime]) -> Sequence[EventRecord]:
        """The events held back whose window has ended by `until`, by partition, for `track` to take again.

        Raises HeldRowError where some of them cannot be read any more.
        """

    async def forget(self, transaction: Transaction, events: Sequence[tuple[MessageId, int]]) -> None:
        """Drops events (message id, part) that were held back and cannot be applied, as if never tracked."""

    async def store(
        self,
        transaction: Transaction,
        snapshots: Sequence[Snapshot],
        transitions: Sequence[Transition],
    ) -> None:
        """Keeps snapshots with their FHIR chart, transitions, and the outbox rows that publish them."""


class AuditTrail(Protocol):
    """Writes audit rows in the transaction of what they record."""

    async def record(self, transaction: Transaction, records: Sequence[AuditRecord]) -> None:
        """Appends; there is no other operation."""


class CodeUse(Protocol):
    """Keeps which messages have a code that no table knows, in the transaction that tracks them."""

    async def note(self, transaction: Transaction, events: Sequence[Event], now: datetime) -> NotedCodes:
        """What is newly unknown, and what nobody waits for any more. Noting an event again changes nothing."""


class WorkItems(Protocol):
    """Opens work items in the transaction of what caused them."""

    async def open(self, transaction: Transaction, items: Sequence[WorkItem]) -> None:
        """An item whose (kind, subject) is already open changes nothing."""


class ClosableWorkItems(WorkItems, Protocol):
    """Closes them too, in the transaction that takes their cause away."""

    async def close_subjects(
        self, transaction: Transaction, kind: WorkKind, subjects: Sequence[str], by: str, resolution: str, now: datetime
    ) -> int:
        """Closes what the engine sees to be put right; returns how many were open."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a rendered notice is sent; secrets already resolved."""

    endpoint_id: str
    url: str
    secrets: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    timeout_s: float = 30.0


class Channel(Protocol):
    """One way to reach a recipient. A channel renders, sends once and says what came of it; it never retries."""

    reads_chart: bool
    """Whether `render` needs the chart; where it does not, `fhir` is empty."""

    def render(self, notice: Notice, snapshot: Snapshot, fhir: bytes, recipient: Recipient, url: str) -> bytes:
        """The body at `notice.level`; `fhir` is the snapshot's chart. The same arguments give the same bytes."""

    async def send(self, address: Address, notice: Notice, body: bytes, now: datetime) -> Outcome:
        """One attempt. Never raises for anything the network or the receiver does."""


class RecipientLookup(Protocol):
    """Finds a recipient of the directory in force."""

    def recipient(self, recipient_id: RecipientId) -> Recipient | None:
        """With its endpoints in order of preference. None where it was retired."""


NOTICES_DUE = "tocengine_notices"
"""The PostgreSQL NOTIFY channel on which routing says, after its commit, that lanes are due."""
