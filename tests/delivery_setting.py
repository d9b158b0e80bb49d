"""Owns what delivery's tests share: invented notices with their rows, a directory, and a receiver on loopback."""

import asyncio
import base64
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from aiohttp import web

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import BackoffSettings, DeliverySettings
from tocengine.delivery.channels.base import HttpPoster, Surroundings
from tocengine.delivery.channels.registry import open_channels
from tocengine.delivery.networks import NetworkGuard
from tocengine.delivery.worker import DeliveryWorker
from tocengine.formats.packing import pack
from tocengine.model.directory import ChannelKind, Endpoint, Level, Recipient, RecipientKind
from tocengine.model.encounter import EncounterState, Snapshot, TransitionKind, TransitionStatus
from tocengine.model.facts import (
    CareSetting,
    Destination,
    Diagnosis,
    Disposition,
    EncounterFacts,
    Location,
    PatientClass,
    PatientFacts,
    PersonName,
)
from tocengine.model.identity import Identifier, PatientKey, Practitioner, VisitKey
from tocengine.model.ids import (
    EncounterId,
    EndpointId,
    FacilityId,
    FeedName,
    MessageId,
    NoticeId,
    RecipientId,
    SnapshotId,
)
from tocengine.model.notice import Basis, Notice
from tocengine.model.profile import EngineIdentity, SendingFacility
from tocengine.model.time import Timestamp
from tocengine.model.work import WorkItem
from tocengine.ports import NOTICES_DUE, Transaction
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics

SECRET = b"an invented secret of 32 bytes!!"
SECRET_TEXT = "whsec_" + base64.b64encode(SECRET).decode()
AT = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
IDENTITY = EngineIdentity(
    name="tocengine",
    base_url="https://toc.example.org/fhir",
    organization="tocengine operator",
    facilities={FacilityId("stj"): SendingFacility(id=FacilityId("stj"), name="STJ Hospital", npi="1999000023")},
)

EMPTY_CHART = pack(b'{"resourceType":"Bundle"}')


def clock() -> datetime:
    """The real time: delivery's tests run against a real database and real sockets."""
    return datetime.now(UTC)


def stated(text: str) -> Timestamp:
    return Timestamp(text=text, at=datetime.fromisoformat(text))


def make_snapshot(encounter_id: UUID | None = None, snapshot_id: UUID | None = None) -> Snapshot:
    """A whole stay that ended in a discharge to Sunnyside."""
    return Snapshot(
        snapshot_id=SnapshotId(snapshot_id or uuid4()),
        encounter_id=EncounterId(encounter_id or uuid4()),
        feed=FeedName("stj-adt"),
        facility=FacilityId("stj"),
        state=EncounterState.DISCHARGED,
        patient_key=PatientKey("STJ", "0012345"),
        visit=VisitKey("STJ", "V500"),
        patient=PatientFacts(
            identifiers=(Identifier("STJ", "0012345", "MR"), Identifier("USSSA", "4321", "SS")),
            names=(PersonName(family="O'NEIL", given=("MARY", "J")),),
            birth_date="1940-01-02",
            sex="female",
            phones=("+1 315 5550142",),
            pcp=(Practitioner(family="PATEL", given=("RAVI",), npi="1234567893"),),
        ),
        encounter=EncounterFacts(
            patient_class=PatientClass.INPATIENT,
            location=Location(unit="3N", room="312", bed="A"),
            treating=Practitioner(family="ROE", given=("ANN",), npi="1999000031"),
            disposition=Disposition(raw="03", code="03", care_setting=CareSetting.SNF),
            destination=Destination(text="SUNNYSIDE REHAB"),
            admitted=stated("2026-02-26T10:15:00-05:00"),
            discharged=stated("2026-03-01T15:35:00-05:00"),
            diagnoses=(
                Diagnosis(
                    code="I50.9",
                    system="http://hl7.org/fhir/sid/icd-10-cm",
                    text="Heart failure, unspecified",
                    type="F",
                ),
            ),
        ),
        trigger="A03",
        control_id="9001",
        message_id=MessageId(UUID(int=9001)),
        received_at=AT,
        flags=("tz_assumed",),
    )


def make_notice(
    snapshot: Snapshot,
    recipient_id: str = "facility:sunnyside",
    *,
    notice_id: UUID | None = None,
    kind: TransitionKind = TransitionKind.INPATIENT_DISCHARGE,
    status: TransitionStatus = TransitionStatus.NEW,
    level: Level = Level.FULL,
    supersedes: UUID | None = None,
    created_at: datetime = AT,
    expires_at: datetime | None = None,
) -> Notice:
    return Notice(
        notice_id=NoticeId(notice_id or uuid4()),
        recipient_id=RecipientId(recipient_id),
        encounter_id=snapshot.encounter_id,
        snapshot_id=snapshot.snapshot_id,
        kind=kind,
        status=status,
        fact_kind=TransitionKind.INPATIENT_DISCHARGE,
        occurrence=1,
        level=level,
        basis=(Basis.DESTINATION,),
        effective="2026-03-01T15:35:00-05:00",
        recorded="2026-03-01T15:41:00-05:00",
        message_id=snapshot.message_id,
        created_at=created_at,
        expires_at=expires_at or created_at + timedelta(hours=24),
        supersedes=NoticeId(supersedes) if supersedes else None,
    )


def make_recipient(*endpoints: Endpoint, name: str = "sunnyside") -> Recipient:
    return Recipient(
        recipient_id=RecipientId(f"facility:{name}"),
        kind=RecipientKind.FACILITY,
        name=f"{name.title()} Rehab",
        type="SNF",
        npi="1999000015",
        endpoints=endpoints,
    )


def webhook(url: str, name: str = "sunnyside-ehr", timeout_s: float = 5.0) -> Endpoint:
    return Endpoint(
        id=EndpointId(name),
        channel=ChannelKind.WEBHOOK,
        url=url,
        secrets=(SECRET_TEXT,),
        timeout_s=timeout_s,
    )


class StaticDirectory:
    """A directory that a test changes by hand."""

    def __init__(self, *recipients: Recipient) -> None:
        self.recipients: dict[RecipientId, Recipient] = {one.recipient_id: one for one in recipients}

    def recipient(self, recipient_id: RecipientId) -> Recipient | None:
        return self.recipients.get(recipient_id)


class InsertedWorkItems:
    """ports.WorkItems in one statement."""

    async def open(self, transaction: Transaction, items: Sequence[WorkItem]) -> None:
        await transaction.executemany(
            "insert into work_item (work_item_id, kind, subject, summary, feed, encounter_id, notice_id, opened_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing",
            [
                (
                    one.work_item_id,
                    one.kind.value,
                    one.subject,
                    one.summary,
                    one.feed,
                    one.encounter_id,
                    one.notice_id,
                    one.opened_at,
                )
                for one in items
            ],
        )


async def queue(pool: Pool, *pairs: tuple[Notice, Snapshot], due_at: datetime | None = None) -> None:
    """Writes what routing would: snapshots, notices in this order, lanes, and the NOTIFY after it."""
    at = due_at or clock()
    async with pool.acquire() as connection, connection.transaction():
        await connection.executemany(
            "insert into snapshot (snapshot_id, encounter_id, content, fhir, created_at) values ($1, $2, $3, $4, $5)"
            " on conflict do nothing",
            [
                (
                    one.snapshot_id,
                    one.encounter_id,
                    pack(msgspec.json.encode(one)),
                    EMPTY_CHART,
                    at,
                )
                for _, one in pairs
            ],
        )
        await connection.executemany(
            "insert into notice (notice_id, recipient_id, encounter_id, snapshot_id, state, body, created_at,"
            " expires_at) values ($1, $2, $3, $4, 'QUEUED', $5, $6, $7)",
            [
                (
                    one.notice_id,
                    one.recipient_id,
                    one.encounter_id,
                    one.snapshot_id,
                    msgspec.json.encode(one),
                    one.created_at,
                    one.expires_at,
                )
                for one, _ in pairs
            ],
        )
        await connection.execute(
            "insert into lane (recipient_id, encounter_id, due_at)"
            " select distinct * from unnest($1::text[], $2::uuid[]) as l, (select $3::timestamptz) as at"
            " on conflict (recipient_id, encounter_id) do update set due_at ="
            " case when lane.waits_for is null then coalesce(lane.due_at, excluded.due_at) else lane.due_at end",
            [one.recipient_id for one, _ in pairs],
            [one.encounter_id for one, _ in pairs],
            at,
        )
        await connection.execute("select pg_notify($1, '')", NOTICES_DUE)


Answer = Callable[[str, bytes], "Awaitable[web.StreamResponse] | web.StreamResponse"]


class Receiver:
    """A real HTTP server. `answer` is asked for each request's response, with the notice's id and the body."""

    def __init__(self) -> None:
        self.arrivals: list[str] = []  # notice ids, in order, of what was answered positively
        self.attempts: dict[str, int] = defaultdict(int)
        self.requests: list[tuple[Mapping[str, str], bytes]] = []
        self.answer: Answer = lambda _id, _body: web.Response(status=204)
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/notices"

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{tail:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        notice_id = request.headers.get("webhook-id", "")
        self.attempts[notice_id] += 1
        self.requests.append((request.headers, body))
        response = self.answer(notice_id, body)
        if not isinstance(response, web.StreamResponse):
            response = await response
        if 200 <= response.status < 300:
            self.arrivals.append(notice_id)
        return response


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


SETTINGS = DeliverySettings(
    backoff=BackoffSettings(first_s=0.05, factor=2.0, max_s=0.4, jitter=0.0),
    heartbeat_s=0.3,
    drain_s=0.5,
    allowed_networks=("127.0.0.0/8",),
)


class Running:
    """A worker at work, and how to stop it."""

    def __init__(self, worker: DeliveryWorker) -> None:
        self.worker = worker
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(worker.run(self._stop))

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.wait_for(self.task, 10)

    async def kill(self) -> None:
        """As near to kill -9 as one process allows: nothing is recorded, nothing is given back."""
        self.task.cancel()
        await asyncio.wait({self.task})


@asynccontextmanager
async def delivering(
    pool: Pool,
    directory: StaticDirectory,
    settings: DeliverySettings = SETTINGS,
    metrics: Metrics | None = None,
    workers: int = 1,
) -> AsyncIterator[Running]:
    async with HttpPoster(NetworkGuard(settings.allowed_networks)) as poster:
        channels = open_channels(Surroundings(poster=poster, identity=IDENTITY))
        running = [
            Running(
                DeliveryWorker(
                    pool,
                    channels,
                    directory,
                    lambda reference: reference,
                    PostgresAuditTrail(),
                    InsertedWorkItems(),
                    settings,
                    metrics or Metrics(),
                    clock,
                )
            )
            for _ in range(workers)
        ]
        try:
            yield running[0]
        finally:
            for one in running:
                if not one.task.done():
                    await one.stop()
                elif not one.task.cancelled():
                    one.task.result()


async def eventually(condition: Callable[[], "Awaitable[bool] | bool"], what: str, within_s: float = 15.0) -> None:
    """Waits for a condition; fails with `what` was expected when it does not come true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = condition()
        if not isinstance(found, bool):
            found = await found
        if found:
            return
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


async def states(pool: Pool) -> Mapping[UUID, str]:
    return {row["notice_id"]: row["state"] for row in await pool.fetch("select notice_id, state from notice")}
