"""Owns the running feed of the MLLP tests: a real server on a real socket, an event log to hold back and break."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import msgspec

from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.intake import Intake
from tocengine.adapters.mllp.client import MllpClient
from tocengine.adapters.mllp.server import MllpServer
from tocengine.config import FeedSettings
from tocengine.errors import ContentError, UnavailableError
from tocengine.formats import hl7v2
from tocengine.formats.mllp import FrameReader
from tocengine.model.event import Event, EventRecord
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.message import Message, Problem
from tocengine.model.profile import SendingFacility, Source, SourceProfile
from tocengine.model.time import Timestamp
from tocengine.ports import LogRecord
from tocengine.telemetry import Metrics

NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
FEED = FeedName("north-adt")


class RecordingLog:
    """An event log in a list. `gate` holds appends back, `down` makes them fail."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False
        self.appending = self.appends = 0

    async def append(self, records: Sequence[LogRecord]) -> None:
        self.appending += 1
        try:
            await self.gate.wait()
            if self.down:
                raise UnavailableError("the log is down")
            self.records += records
            self.appends += 1
        finally:
            self.appending -= 1

    async def close(self) -> None:
        pass

    def bodies(self, topic: str) -> list[bytes]:
        return [record.value for record in self.records if record.topic == topic]


class PlainRecords:
    """Records without an envelope, enough to see what went where."""

    def message(self, message: Message) -> LogRecord:
        return LogRecord(topic="messages", key=b"", value=message.body)

    def events(self, message: Message, records: Sequence[EventRecord]) -> list[LogRecord]:
        return [LogRecord(topic="events", key=b"", value=each.summary.answered.encode()) for each in records]

    def quarantined(self, message: Message, problem: Problem, answered: str) -> LogRecord:
        return LogRecord(
            topic="quarantine",
            key=problem.reason.encode(),
            value=message.body,
            headers=(("answered", answered.encode()),),
        )


class HeaderNormalizer:
    """Reads the header; a message with a ZBAD segment cannot be normalized."""

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        parsed = hl7v2.parse(message.body)
        if parsed.segment("ZBAD"):
            raise ContentError(Problem(reason="bad", text="ZBAD is bad", location="ZBAD^1", code="207"))
        if parsed.segment("ZBUG"):
            raise RuntimeError("a defect")
        summary = Event(
            message_id=message.message_id,
            feed=message.feed,
            facility=message.facility,
            content_type=message.content_type,
            trigger="A01",
            control_id=message.control_id,
            message_day="2026-03-01",
            received_at=message.received_at,
            recorded=Timestamp("2026-03-01", NOW),
        )
        return [EventRecord(summary, msgspec.Raw(b"{}"))]


class Site:
    """A running feed and its log."""

    def __init__(self, server: MllpServer, log: RecordingLog, metrics: Metrics) -> None:
        self.server, self.log, self.metrics = server, log, metrics

    def client(self, **options: object) -> MllpClient:
        return MllpClient("127.0.0.1", self.server.port, **{"timeout_s": 5.0, **options})  # type: ignore[arg-type]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"feed": FEED, **labels}) or 0.0


Start = Callable[..., Awaitable[Site]]


@asynccontextmanager
async def _site(profile: SourceProfile, settings: dict[str, object]) -> AsyncIterator[Site]:
    metrics, log = Metrics(), RecordingLog()
    strict = {FEED} if profile.ack_policy == "strict" else set()
    intake = Intake(log, HeaderNormalizer(), PlainRecords(), metrics, strict)
    source = Source(feed=FEED, facility=SendingFacility(id=FacilityId("north"), name="North"), profile=profile)
    options = {"name": FEED, "facility": "north", "listen": "127.0.0.1:0", **settings}
    made = FeedSettings(**options)  # type: ignore[arg-type]
    limit = made.max_batch_messages
    feed = HL7Feed(source, intake, lambda: datetime.now(UTC), metrics, max_batch_messages=limit)
    server = MllpServer(made, feed, metrics, settle_s=0.1, tick_s=0.02)
    await server.start()
    try:
        yield Site(server, log, metrics)
    finally:
        log.gate.set()
        await server.drain(2.0)


@asynccontextmanager
async def sites() -> AsyncIterator[Start]:
    """Starts feeds: `await start(profile, setting=value)`."""
    async with AsyncExitStack() as stack:

        async def enter(profile: SourceProfile | None = None, **settings: object) -> Site:
            return await stack.enter_async_context(_site(profile or SourceProfile(), settings))

        yield enter


def adt(control_id: str = "1", *, accept: str = "", application: str = "", more: str = "", **header: str) -> bytes:
    kind, version = header.get("kind", "ADT^A01^ADT_A01"), header.get("version", "2.5.1")
    processing, sender = header.get("processing", "P"), header.get("sender", "REG")
    return (
        f"MSH|^~\\&|{sender}|NORTH|TOC|HUB|20260301154102-0500||{kind}|{control_id}|{processing}|{version}|||"
        f"{accept}|{application}\rEVN||20260301154102-0500\rPID|1||00421^^^NORTH^MR\r{more}"
    ).encode()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is not ours to signal
            await asyncio.sleep(0.005)


async def read_answers(reader: asyncio.StreamReader, count: int | None = None) -> list[hl7v2.HL7Message]:
    """`count` answers, or all until the server closes."""
    frames = FrameReader(100_000)
    answers: list[hl7v2.HL7Message] = []
    async with asyncio.timeout(5):
        while count is None or len(answers) < count:
            try:
                data = await reader.read(65_536)
            except ConnectionError:
                break
            if not data:
                break
            answers += [hl7v2.parse(item.payload) for item in frames.receive(data)]  # type: ignore[union-attr]
    return answers


def codes(answers: Sequence[hl7v2.HL7Message]) -> list[tuple[str, str]]:
    return [(each.get("MSA-1"), each.get("MSA-2")) for each in answers]
