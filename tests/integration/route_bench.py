"""Owns a route worker on a real database and log for tests, and defects to give it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import EventLogSettings, RoutingSettings
from tocengine.encounters.holdback import Window
from tocengine.encounters.postgres import PostgresTracker
from tocengine.eventlog import Topic, open_consumer
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.model.audit import AuditRecord
from tocengine.model.encounter import Snapshot, TrackedEncounter, Transition
from tocengine.model.event import Event, EventRecord
from tocengine.model.facts import (
    CareSetting,
    Destination,
    Disposition,
    EncounterFacts,
    Location,
    PatientClass,
    PatientFacts,
    PersonName,
)
from tocengine.model.identity import PatientKey, Practitioner, VisitKey
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.time import Timestamp
from tocengine.ports import EventLog, LogRecord, Transaction
from tocengine.postgres import Pool
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import LiveDirectory
from tocengine.routing.worker import RouteWorker
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems

NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
FEED, FACILITY = FeedName("stj-adt"), FacilityId("stj")
TOPICS = (Topic.EVENTS, Topic.QUARANTINE)
RECORDS = CloudEventRecords(KeyHasher(b"0123456789abcdef"))
FHIR = msgspec.Raw(b'{"resourceType":"Bundle","type":"collection","entry":[]}')
DEADLINE_S = 20.0
HUGE = "9" * 4_000_000  # more than an index entry holds, compressed too
DIRECTORY = """\
version: 1
facilities:
  - id: sunnyside
    name: Sunnyside Rehab
    type: SNF
    aliases: [SUNNYSIDE]
    endpoints: [{id: sunnyside-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]
  - id: meadow
    name: Meadow Home
    type: SNF
    aliases: [MEADOW]
    endpoints: [{id: meadow-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]
practitioners:
  - id: patel
    name: Ravi Patel
    npi: "1234567893"
    endpoints: [{id: patel-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]
panels:
  - facility: meadow
    members: [{domain: STJ, value: "0012345"}]
"""


class Interrupted:
    """An audit trail whose database goes away at the chosen call, after everything else was written."""

    def __init__(self, fail_at: int) -> None:
        self.inner, self.calls, self.fail_at = PostgresAuditTrail(), 0, fail_at
        self.lost: list[AuditRecord] = []

    async def record(self, transaction: Transaction, records: Sequence[AuditRecord]) -> None:
        await self.inner.record(transaction, records)
        self.calls += 1
        if self.calls == self.fail_at:
            self.lost.extend(records)
            raise ConnectionResetError


class Allergic:
    """A tracker with a defect: it cannot stand the control id "bad"."""

    def __init__(self, inner: PostgresTracker, defect: type[Exception]) -> None:
        self.inner, self.defect = inner, defect

    async def track(
        self, transaction: Transaction, events: Sequence[EventRecord], now: datetime, *, hold: bool = True
    ) -> Sequence[TrackedEncounter]:
        if any(record.summary.control_id == "bad" for record in events):
            raise self.defect
        return await self.inner.track(transaction, events, now, hold=hold)

    async def recall(self, transaction: Transaction, now: datetime) -> Sequence[TrackedEncounter] | None:
        return await self.inner.recall(transaction, now)

    async def remind(self, transaction: Transaction, now: datetime) -> int:
        return await self.inner.remind(transaction, now)

    async def window_ended(self, transaction: Transaction, now: datetime) -> bool:
        return await self.inner.window_ended(transaction, now)

    async def ended(self, transaction: Transaction, until: Mapping[int, datetime]) -> Sequence[EventRecord]:
        return await self.inner.ended(transaction, until)

    async def forget(self, transaction: Transaction, events: Sequence[tuple[MessageId, int]]) -> None:
        await self.inner.forget(transaction, events)

    async def store(
        self, transaction: Transaction, snapshots: Sequence[Snapshot], transitions: Sequence[Transition]
    ) -> None:
        await self.inner.store(transaction, snapshots, transitions)


class Bench:
    """The log, the worker, and a hospital that sends."""

    def __init__(self, pool: Pool, log: EventLog, dsn: str, settings: EventLogSettings) -> None:
        self.pool, self.log, self.dsn, self.settings = pool, log, dsn, settings
        self.metrics = Metrics()
        self.sent = 0

    async def worker(
        self,
        audit: Interrupted | None = None,
        defect: type[Exception] | None = None,
        records: int = 200,
        window: Window | None = None,
    ) -> RouteWorker:
        directory = LiveDirectory(self.pool, 0.0)
        await directory.refresh()
        trail = audit or PostgresAuditTrail()
        tracker = PostgresTracker(directory, PostgresWorkItems(), RECORDS, PostgresAuditTrail(), window)
        return RouteWorker(
            consumer=await open_consumer(self.settings, self.dsn, self.pool, TOPICS),
            pool=self.pool,
            tracker=Allergic(tracker, defect) if defect else tracker,
            audit=trail,
            work_items=PostgresWorkItems(),
            codes=PostgresLocalCodes(),
            reader=CloudEventReader(),
            directory=directory,
            policy=RoutePolicy(),
            settings=RoutingSettings(batch_records=records),
            metrics=self.metrics,
            clock=lambda: NOW,
        )

    def message(self, control_id: str, received: datetime = NOW) -> Message:
        return Message(
            message_id=MessageId(derive("message", control_id)),
            feed=FEED,
            facility=FACILITY,
            content_type=ContentType.HL7V2,
            control_id=control_id,
            received_at=received,
            body=b"MSH|...",
        )

    def event(
        self,
        trigger: str,
        visit: str,
        *,
        minutes: int = 0,
        destination: str = "",
        mrn: str = "0012345",
        control_id: str = "",
        pcp: bool = False,
        part: int = 0,
    ) -> LogRecord:
        self.sent += 1
        control_id = control_id or f"{trigger}-{visit}-{self.sent}"
        moment = NOW - timedelta(hours=2) + timedelta(minutes=minutes)
        message = self.message(control_id, moment)
        stamp = Timestamp(text=moment.isoformat(), at=moment)
        record = EventRecord(
            Event(
                message_id=message.message_id,
                part=part,
                feed=FEED,
                facility=FACILITY,
                content_type=ContentType.HL7V2,
                trigger=trigger,
                control_id=control_id,
                message_day="2026-03-01",
                received_at=moment,
                recorded=stamp,
                effective=stamp,
                answered="AA",
                patient=PatientKey("STJ", mrn),
                visit=VisitKey("STJ", visit),
                patient_facts=PatientFacts(
                    names=(PersonName("O'NEIL", ("MARY",)),),
                    pcp=(Practitioner(family="PATEL", npi="1234567893"),) if pcp else UNSET,
                ),
                encounter_facts=EncounterFacts(
                    patient_class=PatientClass.INPATIENT,
                    location=Location(unit="3N"),
                    disposition=Disposition("03", "03", CareSetting.SNF) if destination else UNSET,
                    destination=Destination(destination) if destination else UNSET,
                ),
            ),
            FHIR,
        )
        (built,) = RECORDS.events(message, [record])
        return built

    async def drain(self, worker: RouteWorker) -> int:
        """Steps until nothing comes; returns how many records were applied."""
        total = 0
        while applied := await worker.step(0.3):
            total += applied
        return total

    async def notices(self) -> list[tuple[str, str, str, str]]:
        """(recipient, status, kind, state) in the order they are sent."""
        rows = await self.pool.fetch("select body, state from notice order by sequence")
        found = []
        for row in rows:
            body = msgspec.json.decode(row["body"])
            found.append((body["recipient_id"], body.get("status", "NEW"), body["kind"], row["state"]))
        return found
