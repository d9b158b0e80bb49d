"""The MLLP server over real sockets, with an event log that can be slowed and broken."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.intake import Intake
from tocengine.adapters.mllp.client import MllpClient
from tocengine.adapters.mllp.server import MllpServer
from tocengine.config import FeedSettings, TlsSettings
from tocengine.errors import ContentError, UnavailableError
from tocengine.formats import hl7v2
from tocengine.formats.mllp import FrameReader, frame
from tocengine.model.event import Event, EventRecord
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.message import Message, Problem
from tocengine.model.profile import SenderMatch, SendingFacility, Source, SourceProfile
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
        self.appending = 0

    async def append(self, records: Sequence[LogRecord]) -> None:
        self.appending += 1
        try:
            await self.gate.wait()
            if self.down:
                raise UnavailableError("the log is down")
            self.records += records
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
    feed = HL7Feed(source, intake, lambda: datetime.now(UTC), metrics)
    options = {"name": FEED, "facility": "north", "listen": "127.0.0.1:0", **settings}
    server = MllpServer(FeedSettings(**options), feed, metrics, settle_s=0.1, tick_s=0.02)  # type: ignore[arg-type]
    await server.start()
    try:
        yield Site(server, log, metrics)
    finally:
        log.gate.set()
        await server.drain(2.0)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
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


async def test_a_message_is_durable_before_it_is_answered(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    body = adt("9001")
    writer.write(frame(body))
    await until(lambda: site.log.appending == 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    site.log.gate.set()
    [answer] = await read_answers(reader, 1)
    assert codes([answer]) == [("AA", "9001")]
    assert answer.get("MSH-9") == "ACK^A01^ACK"
    assert (answer.get("MSH-3"), answer.get("MSH-5")) == ("TOC", "REG")
    assert site.log.bodies("messages") == [body]
    assert site.log.bodies("events") == [b"AA"]
    writer.close()


async def test_modes_of_acknowledgment(start: Start) -> None:
    site = await start()
    async with site.client() as client:
        answer = await client.send(adt("1", accept="AL", application="NE"))
        assert answer is not None
        assert answer.code == "CA"
        assert await client.send(adt("2", accept="ER", application="NE")) is None
        assert await client.send(adt("3", accept="NE", application="NE")) is None
        answer = await client.send(adt("4", accept="NE", application="AL"))
        assert answer is not None
        assert (answer.code, answer.control_id) == ("AA", "4")  # 2 and 3 were taken without a byte
    assert len(site.log.bodies("messages")) == 4


async def test_pipelined_messages_are_answered_in_order_within_a_bound(start: Start) -> None:
    site = await start(max_in_flight=4)
    site.log.gate.clear()
    reader, writer = await site.connect()
    for number in range(20):
        writer.write(frame(adt(str(number))))
    await until(lambda: site.log.appending == 4)
    site.log.gate.set()
    answers = await read_answers(reader, 20)
    assert codes(answers) == [("AA", str(number)) for number in range(20)]
    assert site.log.bodies("messages") == [adt(str(number)) for number in range(20)]
    writer.close()


async def test_client_window(start: Start) -> None:
    site = await start()
    async with site.client() as client:
        replies = [reply async for reply in client.send_all([adt(str(n)) for n in range(50)], window=8)]
    assert [reply.number for reply in replies] == list(range(50))
    assert all(reply.acknowledgment and reply.acknowledgment.positive for reply in replies)


async def test_storage_down_means_no_answer_and_a_closed_connection(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + frame(adt("2")))
    await until(lambda: site.log.appending == 2)
    site.log.down = True
    site.log.gate.set()
    assert await read_answers(reader) == []
    site.log.down = False
    async with site.client() as client:  # it is not held against the sender
        answer = await client.send(adt("1"))
        assert answer is not None
        assert answer.positive
    writer.close()


async def test_a_repeated_message_is_answered_again(start: Start) -> None:
    site = await start()
    async with site.client() as client:
        first, second = await client.send(adt("7")), await client.send(adt("7"))
    assert first is not None
    assert second is not None
    assert (first.code, second.code) == ("AA", "AA")


@pytest.mark.parametrize(
    ("body", "code", "error", "reason"),
    [
        (adt("5", kind="ORU^R01"), "AR", "200", b"message_type"),
        (adt("5", version="3.0"), "AR", "203", b"version"),
        (adt("5", processing="X"), "AR", "202", b"processing_id"),
        (adt("5", sender="OTHER"), "AR", "207", b"unknown_sender"),
        (adt("5", accept="AL", kind="ORU^R01"), "CR", "200", b"message_type"),
        (adt("5") + adt("6"), "AR", "100", b"several_messages"),
    ],
)
async def test_unacceptable_messages_are_rejected_and_kept(
    start: Start, body: bytes, code: str, error: str, reason: bytes
) -> None:
    site = await start(SourceProfile(match=SenderMatch(msh3="REG", msh4="NORTH")))
    reader, writer = await site.connect()
    writer.write(frame(body))
    [answer] = await read_answers(reader, 1)
    assert codes([answer]) == [(code, "5")]
    assert answer.get("ERR-3.1") == error
    [kept] = site.log.records
    assert (kept.topic, kept.key, kept.value) == ("quarantine", reason, body)
    assert dict(kept.headers)["answered"] == code.encode()
    writer.close()


async def test_every_adt_trigger_and_test_traffic_is_taken(start: Start) -> None:
    site = await start()
    bodies = [adt("1", kind="ADT^A60"), adt("2", kind="ADT^Z99"), adt("3", processing="T"), adt("4", version="2.3")]
    async with site.client() as client:
        replies = [reply.acknowledgment async for reply in client.send_all(bodies)]
    assert [reply.code for reply in replies if reply] == ["AA"] * 4


@pytest.mark.parametrize(("policy", "code"), [("accept_and_quarantine", "AA"), ("strict", "AE")])
async def test_content_errors_by_policy(start: Start, policy: str, code: str) -> None:
    site = await start(SourceProfile(ack_policy=policy))
    async with site.client() as client:
        answer = await client.send(adt("1", more="ZBAD|x\r"))
    assert answer is not None
    assert answer.code == code
    assert site.log.bodies("quarantine") == [adt("1", more="ZBAD|x\r")]
    assert len(site.log.bodies("messages")) == (1 if code == "AA" else 0)


async def test_a_defect_of_ours_sets_the_message_aside(start: Start) -> None:
    site = await start(SourceProfile(ack_policy="strict"))
    async with site.client() as client:
        answer = await client.send(adt("1", more="ZBUG|x\r"))
    assert answer is not None
    assert answer.code == "AA"
    assert [record.key for record in site.log.records if record.topic == "quarantine"] == [b"internal"]


async def test_an_acknowledgment_is_never_answered(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1", kind="ACK")) + frame(adt("2")))
    assert codes(await read_answers(reader, 1)) == [("AA", "2")]
    assert len(site.log.bodies("quarantine")) == 1
    writer.close()


async def test_a_frame_without_end_is_rejected_and_the_next_one_taken(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(b"\x0b" + adt("1")[:90] + frame(adt("2")))
    assert codes(await read_answers(reader, 2)) == [("AR", "1"), ("AA", "2")]
    assert site.log.bodies("quarantine") == [adt("1")[:90]]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="end_missing") == 1
    writer.close()


async def test_a_missing_final_return_is_tolerated(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1"))[:-1])
    assert codes(await read_answers(reader, 1)) == [("AA", "1")]
    writer.close()


async def test_an_oversize_frame_is_rejected_and_the_connection_closed(start: Start) -> None:
    site = await start(max_frame_bytes=1000)
    reader, writer = await site.connect()
    writer.write(b"\x0b" + adt("1") + b"x" * 5000)
    assert codes(await read_answers(reader)) == [("AR", "1")]
    assert len(site.log.bodies("quarantine")[0]) == 1000
    writer.close()


async def test_a_slow_sender_is_cut_off(start: Start) -> None:
    site = await start(frame_timeout_s=0.1)
    reader, writer = await site.connect()
    writer.write(b"\x0b" + adt("1"))
    assert codes(await read_answers(reader)) == [("AR", "1")]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="timed_out") == 1
    writer.close()


async def test_an_idle_sender_is_let_go(start: Start) -> None:
    site = await start(idle_timeout_s=0.1)
    reader, writer = await site.connect()
    assert await read_answers(reader) == []
    assert site.metric("tocengine_mllp_connections_refused_total", reason="idle") == 1
    writer.close()


async def test_three_unreadable_messages_end_the_connection(start: Start) -> None:
    site = await start(max_in_flight=1)
    reader, writer = await site.connect()
    for _ in range(5):
        writer.write(frame(b"not a message"))
    assert codes(await read_answers(reader)) == [("AR", "")] * 3
    writer.close()


async def test_junk_outside_of_frames_is_ignored(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(b"GET / HTTP/1.1\r\n\r\n" + frame(adt("1")))
    assert codes(await read_answers(reader, 1)) == [("AA", "1")]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="junk") == 1
    writer.close()


async def test_a_sender_that_closes_its_side_is_still_answered(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + frame(adt("2")) + b"\x0b" + adt("3"))
    writer.write_eof()
    assert codes(await read_answers(reader)) == [("AA", "1"), ("AA", "2"), ("AR", "3")]
    writer.close()


async def test_connections_beyond_the_limit_are_refused(start: Start) -> None:
    site = await start(max_connections=1)
    async with site.client() as client:
        reader, writer = await site.connect()
        assert await read_answers(reader) == []
        writer.close()
        answer = await client.send(adt("1"))
        assert answer is not None
    assert site.metric("tocengine_mllp_connections_refused_total", reason="limit") == 1


async def test_a_sender_that_never_reads_is_slowed_and_then_dropped(start: Start) -> None:
    site = await start(frame_timeout_s=0.5)
    _, writer = await site.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def flood() -> None:
        number = 0
        while True:
            number += 1
            writer.write(frame(adt(f"{number}-{'9' * 4000}")))
            await writer.drain()

    with pytest.raises(ConnectionError):
        async with asyncio.timeout(30):
            await flood()
    assert site.metric("tocengine_mllp_connections_refused_total", reason="answers_not_read") == 1


async def test_draining_answers_what_is_under_way_and_nothing_else(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + b"\x0b" + adt("2"))
    await until(lambda: site.log.appending == 1)
    draining = asyncio.ensure_future(site.server.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await site.connect()
    site.log.gate.set()
    await draining
    assert codes(await read_answers(reader)) == [("AA", "1")]
    assert site.log.bodies("quarantine") == []
    writer.close()


async def test_draining_gives_up_in_time_without_an_answer(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")))
    await until(lambda: site.log.appending == 1)
    await site.server.drain(0.05)
    assert await read_answers(reader) == []
    writer.close()


async def test_tls_with_client_certificates(start: Start, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    _self_signed(certificate, key)
    site = await start(tls=TlsSettings(certfile=certificate, keyfile=key, client_ca=certificate))
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with pytest.raises(UnavailableError):
        async with site.client(tls=context) as client:
            await client.send(adt("1"))
    context.load_cert_chain(certificate, key)
    async with site.client(tls=context) as client:
        answer = await client.send(adt("1"))
    assert answer is not None
    assert answer.code == "AA"


def _self_signed(certificate: Path, key: Path) -> None:
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
