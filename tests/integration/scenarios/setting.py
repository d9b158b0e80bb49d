"""Owns the stage of the scenarios: the real normalizer, tracker and router on a real database, without sockets."""

from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec

from tests.integration.scenarios.hospital import Said, moment
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import RoutingSettings
from tocengine.delivery.channels.webhook import render_notice
from tocengine.encounters.holdback import Window
from tocengine.encounters.postgres import PostgresTracker
from tocengine.errors import RefusedError
from tocengine.eventlog import Topic
from tocengine.eventlog.memory import MemoryEventLog, MemoryLogConsumer, MemoryMessageScanner
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.eventlog.relay import RENORMALIZED, OutboxRelay
from tocengine.formats.packing import unpack
from tocengine.local_codes.postgres import PostgresLocalCodes, load
from tocengine.model.encounter import Snapshot
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.notice import Notice
from tocengine.model.profile import IdentifierDomain, SendingFacility, Source, SourceProfile
from tocengine.normalize.dispatch import FeedNormalizer
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.postgres import Pool
from tocengine.reprocessing.postgres import Cause, Reprocessor, Request, Tally
from tocengine.reprocessing.replay import Stretch, replay, replay_waiting
from tocengine.reprocessing.workshop import ignoring
from tocengine.routing.apply import apply, plan
from tocengine.routing.directory_file import load_directory_file
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import LiveDirectory
from tocengine.routing.worker import RouteWorker
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems

RECORDS = CloudEventRecords(KeyHasher(b"0123456789abcdef"))
TOPICS = (Topic.EVENTS, Topic.QUARANTINE)
STJ = IdentifierDomain(name="STJ", system="urn:oid:2.16.840.1.113883.19.5")
HOSPITAL = SendingFacility(id=FacilityId("stj"), name="STJ Hospital", npi="1999000023")
HOOK = '[{id: %s-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]'
Told = tuple[str, str, str]
"""(recipient, status, kind) of a notice."""


def entry(name: str, *more: str, kind: str = "SNF") -> str:
    """A facility of a directory file."""
    lines = [f"  - id: {name}", f"    name: {name.title()}", f"    type: {kind}", *(f"    {line}" for line in more)]
    return "\n".join([*lines, f"    endpoints: {HOOK % name}"])


def person(name: str, npi: str) -> str:
    """A practitioner of a directory file."""
    return f'  - id: {name}\n    name: {name.title()}\n    npi: "{npi}"\n    endpoints: {HOOK % name}'


def directory(
    facilities: Sequence[str] = (),
    practitioners: Sequence[str] = (),
    panels: Mapping[str, Sequence[str]] | None = None,
    opt_outs: Sequence[str] = (),
) -> str:
    """A directory file; `panels` names medical record numbers, or whole member mappings, by facility; `opt_outs` are
    mappings."""
    lines = ["version: 1"]
    if facilities:
        lines += ["facilities:", *facilities]
    if practitioners:
        lines += ["practitioners:", *practitioners]
    if panels:
        lines.append("panels:")
        for facility, members in panels.items():
            shown = ", ".join(m if m.startswith("{") else f'{{domain: STJ, value: "{m}"}}' for m in members)
            lines.append(f"  - facility: {facility}\n    members: [{shown}]")
    if opt_outs:
        lines += ["opt_outs:", *(f"  - {said}" for said in opt_outs)]
    return "\n".join(lines) + "\n"


TOWN = directory(
    [
        entry("sunnyside", "aliases: [SUNNYSIDE REHAB]", 'npi: "1999000015"'),
        entry("meadow", "aliases: [MEADOW]"),
        entry("haven"),
    ],
    [person("patel", "1234567893")],
    {"haven": ["0012345"]},
)
HOMES = [entry("haven"), entry("meadow"), entry("sunnyside", "aliases: [SUNNYSIDE REHAB]")]


class Setting:
    """`receive` takes messages as the door would, `route` applies them, `told` says what was decided since."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder = pool, folder
        self.log = MemoryEventLog()
        self.consumer = MemoryLogConsumer(self.log, TOPICS)
        self.live = LiveDirectory(pool, 0.0)
        self.now = moment("23:00").astimezone(UTC)
        self.batch = 200
        self.window = Window()
        self._profiles: dict[str, SourceProfile] = {}
        self._sources: dict[FeedName, Source] = {}
        self._seen = 0
        self._worker: RouteWorker | None = None

    def feed(self, profile: SourceProfile, name: str = "stj-adt") -> None:
        """What is known of the feed; before anything is received from it."""
        self._profiles[name] = profile
        self._worker = None

    async def apply(self, text: str) -> None:
        """Puts a directory in force."""
        path = self.folder / "directory.yaml"
        path.write_text(text, encoding="utf-8")
        async with self.pool.acquire() as connection:
            planned = await plan(connection, load_directory_file(path), prune=True)
            await apply(connection, planned, "test", self.now, PostgresAuditTrail())

    # --- what happens

    async def receive(self, *messages: Said, feed: str = "stj-adt") -> None:
        """Normalizes and logs; what cannot be normalized goes to quarantine, as at the door."""
        source = Source(
            feed=FeedName(feed),
            facility=HOSPITAL,
            profile=self._profiles.get(feed, SourceProfile()),
            domains={"STJ": STJ},
        )
        normalizer = HL7v2Normalizer(source)
        self._sources[source.feed] = source
        for said in messages:
            message = Message(
                message_id=MessageId(derive("message", feed, said.body)),
                feed=source.feed,
                facility=source.facility.id,
                content_type=ContentType.HL7V2,
                control_id=said.body.split(b"|")[9].decode(),
                received_at=said.received.astimezone(UTC),
                body=said.body,
            )
            await self.log.append([RECORDS.message(message)])
            try:
                await self.log.append(RECORDS.events(message, normalizer.normalize(message)))
            except RefusedError as error:
                await self.log.append([RECORDS.quarantined(message, error.problem, "AA")])

    async def route(self) -> list[Told]:
        """Applies what was received; returns the notices made, in order."""
        worker = self._worker = self._worker or await self._make_worker()
        while await worker.step(0.0):
            pass
        return await self.told()

    async def later(self) -> list[Told]:
        """Nothing comes, and the engine looks for what is due; returns the notices made."""
        self._worker = None  # one that has not looked yet
        return await self.route()

    async def hear(self, *messages: Said, feed: str = "stj-adt") -> list[Told]:
        """Each message received and routed by itself."""
        made: list[Told] = []
        for said in messages:
            await self.receive(said, feed=feed)
            made += await self.route()
        return made

    # --- what is normalized again

    async def reprocessor(self) -> Reprocessor:
        """Reads messages as their feeds are known now, with the codes that are mapped."""
        for name, source in self._sources.items():
            profile = self._profiles.get(name, SourceProfile())
            self._sources[name] = msgspec.structs.replace(source, profile=profile)
        normalizer = FeedNormalizer(self._sources.values())
        async with self.pool.acquire() as connection:
            normalizer.learn((await load(connection))[1])
        return Reprocessor(self.pool, normalizer, RECORDS)

    async def replay(self, *, dry_run: bool = False) -> tuple[Tally, list[Told]]:
        """All that was received, normalized again and routed."""
        stretch = Stretch(since=self.now - timedelta(days=400), until=self.now + timedelta(days=1))
        request = self.request(Cause.REPLAY)
        reprocessor = await self.reprocessor()
        scanner, ignores = MemoryMessageScanner(self.log), ignoring(self._sources)
        tally = await replay(scanner, reprocessor, stretch, request, self.publish, _unwatched, ignores, dry_run=dry_run)
        return tally, await self.route()

    async def map_code(self, feed: str, table: str, code: str, meaning: str | None) -> list[Told]:
        """Says what a code means, or with None takes that back; what waits or waited is normalized again and routed."""
        async with self.pool.acquire() as connection:
            assert await PostgresLocalCodes().change(connection, (feed, table, code), meaning, "test", self.now)
        request, reprocessor = self.request(Cause.CODES), await self.reprocessor()
        scanner = MemoryMessageScanner(self.log)
        again = meaning is None
        key = feed, table, code
        await replay_waiting(scanner, reprocessor, key, request, self.publish, _unwatched, settled=again)
        return await self.route()

    def request(self, cause: Cause) -> Request:
        """A new run."""
        self.asked = Request(run_id=uuid4(), cause=cause, by="test", at=self.now)
        return self.asked

    async def publish(self) -> None:
        """What waits to be logged is logged."""
        async with self.pool.acquire() as connection:
            await OutboxRelay("", self.log, outbox=RENORMALIZED).publish(connection)  # type: ignore[arg-type]

    async def _make_worker(self) -> RouteWorker:
        await self.live.refresh()
        return RouteWorker(
            consumer=self.consumer,
            pool=self.pool,
            tracker=PostgresTracker(
                self.live,
                PostgresWorkItems(),
                RECORDS,
                PostgresAuditTrail(),
                self.window,
                {FeedName("stj-adt"): timedelta(days=30)},
            ),
            audit=PostgresAuditTrail(),
            work_items=PostgresWorkItems(),
            codes=PostgresLocalCodes(),
            reader=CloudEventReader(),
            directory=self.live,
            policy=RoutePolicy(facilities={HOSPITAL.id: HOSPITAL}, max_age=timedelta(hours=24)),
            settings=RoutingSettings(batch_records=self.batch),
            metrics=Metrics(),
            clock=lambda: self.now,
        )

    # --- what becomes of notices

    async def deliver(self, recipient: str = "%") -> None:
        """Every waiting notice reaches its recipient."""
        await self.pool.execute(
            "update notice set state = 'DELIVERED', possibly_told = true, ended_at = $2"
            " where state = 'QUEUED' and recipient_id like $1",
            f"%{recipient}",
            self.now,
        )

    async def begin_sending(self, recipient: str = "%") -> None:
        """A worker has committed its intent to send."""
        await self.pool.execute(
            "update notice set state = 'SENDING', possibly_told = true where state = 'QUEUED' and recipient_id like $1",
            f"%{recipient}",
        )

    async def lose_answer(self, recipient: str = "%") -> None:
        """An attempt was made and its answer is unknown: the notice waits to be sent again."""
        await self.pool.execute(
            "update notice set state = 'QUEUED', possibly_told = true"
            " where state in ('QUEUED', 'SENDING') and recipient_id like $1",
            f"%{recipient}",
        )

    async def refuse_at_send(self, recipient: str) -> None:
        """Delivery is about to send what waits, and sees that the patient does not want it told."""
        await self.pool.execute(
            "with ended as ("
            "  update notice set state = 'SUPPRESSED', reason = 'OPTED_OUT', ended_at = $2"
            "  where state = 'QUEUED' and recipient_id like $1 returning encounter_id"
            ") insert into encounter_due select distinct encounter_id, 'TELLING', $2 from ended"
            " on conflict (encounter_id, kind) do nothing",
            f"%{recipient}",
            self.now,
        )

    # --- what is to be seen

    async def told(self) -> list[Told]:
        """The notices made since this was last asked."""
        rows = await self.pool.fetch(
            "select sequence, body from notice where sequence > $1 order by sequence", self._seen
        )
        if rows:
            self._seen = rows[-1]["sequence"]
        return [_told(msgspec.json.decode(row["body"], type=Notice)) for row in rows]

    async def leaving(self) -> list[Told]:
        """The notices that wait to be sent, in order."""
        rows = await self.pool.fetch(
            "select body from notice where state = 'QUEUED' and superseded_by is null order by sequence"
        )
        return [_told(msgspec.json.decode(row["body"], type=Notice)) for row in rows]

    async def notices(self, recipient: str = "") -> list[tuple[Notice, str]]:
        """Every notice with its state."""
        rows = await self.pool.fetch(
            "select body, state from notice where recipient_id like $1 order by sequence", f"%{recipient}"
        )
        return [(msgspec.json.decode(row["body"], type=Notice), row["state"]) for row in rows]

    async def rendered(self, notice: Notice) -> str:
        """A notice as its webhook receives it."""
        row = await self.pool.fetchrow("select content from snapshot where snapshot_id = $1", notice.snapshot_id)
        assert row is not None
        recipient = self.live.recipient(notice.recipient_id)
        assert recipient is not None
        snapshot = msgspec.json.decode(unpack(row["content"]), type=Snapshot)
        return render_notice(notice, snapshot, b"{}", recipient, {HOSPITAL.id: HOSPITAL}).decode()

    async def state(self, visit: str = "V100", authority: str = "STJ") -> str:
        """The state an encounter is in."""
        query = "select state from encounter where domain = $1 and visit_number = $2"
        return str(await self.pool.fetchval(query, authority, visit))

    async def reasons(self, recipient: str | None = None) -> set[str]:
        """Why something was not told."""
        rows = await self.pool.fetch(
            "select reason from decision where reason is not null and ($1::text is null or recipient_id like $1)",
            None if recipient is None else f"%{recipient}",
        )
        return {row["reason"] for row in rows}

    async def work(self) -> list[str]:
        """The kinds of the open work items, oldest first."""
        rows = await self.pool.fetch("select kind from work_item where closed_at is null order by opened_at, kind")
        return [row["kind"] for row in rows]

    async def flags(self, visit: str = "V100") -> set[str]:
        """What was noted about an encounter."""
        body = await self.pool.fetchval("select body from encounter where visit_number = $1", visit)
        return set(msgspec.json.decode(unpack(body))["folded"].get("flags", ()))

    async def transitions(self, visit: str = "V100") -> list[tuple[str, str]]:
        """What was published about an encounter, (status, kind), in order."""
        rows = await self.pool.fetch(
            "select status, kind from transition join encounter using (encounter_id)"
            " where visit_number = $1 order by transition.created_at",
            visit,
        )
        return [(row["status"], row["kind"]) for row in rows]


def _unwatched(tally: Tally, at: object) -> None:
    """Nobody watches."""


def _told(notice: Notice) -> Told:
    return notice.recipient_id.partition(":")[2], notice.status.value, notice.kind.value
