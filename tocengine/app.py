"""The composition root: builds the stages a process has, in path order, and runs them until it shall drain.

Everything that a stage needs of another is handed over here, as a port. Nothing is global.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tocengine.adapters.fhir.clients import ClientStore
from tocengine.adapters.fhir.server import FhirServer, create_app
from tocengine.adapters.fhir.sources import ResourceServers
from tocengine.adapters.fhir.subscriptions import Subscriptions
from tocengine.adapters.files.server import FileDrop
from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.intake import Intake
from tocengine.adapters.mllp.server import MllpServer
from tocengine.adapters.pace import Pace
from tocengine.adapters.pace_worker import PaceWorker
from tocengine.adapters.turns import Turns
from tocengine.admin import Check, role_app
from tocengine.audit.checkpoints import generate_signing_key, load_signing_key, prepare_directory
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.audit.sealer import Sealer
from tocengine.clock import utc_now
from tocengine.config import Config, FeedSettings, sharing_listeners
from tocengine.config_file import sources
from tocengine.credentials import patient_hash_key, resolve_secret
from tocengine.delivery.alerts import AlertWorker
from tocengine.delivery.channels.base import HttpPoster, Surroundings
from tocengine.delivery.channels.registry import open_channels
from tocengine.delivery.networks import NetworkGuard
from tocengine.delivery.worker import DeliveryWorker
from tocengine.deployment import Role, checkpoint_dir, engine_identity, fhir_base
from tocengine.embedded import database
from tocengine.encounters.holdback import Window
from tocengine.encounters.postgres import PostgresTracker
from tocengine.errors import UnavailableError
from tocengine.eventlog import Topic, open_consumer, open_event_log, open_progress, open_scanner
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.eventlog.relay import RENORMALIZED, OutboxRelay
from tocengine.eventlog.topics import TOPIC_NUMBERS
from tocengine.inspection.gauges import Gauges
from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.model.ids import FeedName
from tocengine.model.profile import Source
from tocengine.normalize.dispatch import FeedNormalizer
from tocengine.ports import EventLog
from tocengine.postgres import Pool, create_pool, migrate, unavailable_errors
from tocengine.process import settle_memory
from tocengine.reprocessing.postgres import Reprocessor
from tocengine.reprocessing.workshop import CodeFollower
from tocengine.retention.worker import RetentionWorker
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import LiveDirectory
from tocengine.routing.worker import RouteWorker
from tocengine.telemetry import Metrics
from tocengine.web import WebServer
from tocengine.work_items.postgres import PostgresWorkItems

log = structlog.get_logger()

INTAKE_TOPICS = (Topic.MESSAGES, Topic.EVENTS, Topic.QUARANTINE)
ROUTED_TOPICS = (Topic.EVENTS, Topic.QUARANTINE)


def window_of(config: Config) -> Window:
    """How long early messages of each feed wait for their predecessor."""
    by_feed = {name: timedelta(seconds=source.profile.holdback_s) for name, source in sources(config).items()}
    return Window(by_feed={name: waits for name, waits in by_feed.items() if waits}, most=config.routing.held_events)


def stale_after(config: Config) -> dict[FeedName, timedelta]:
    """How long an open visit of each feed may be silent before a person is asked about it."""
    days = {name: source.profile.stale_open_days for name, source in sources(config).items()}
    return {name: timedelta(days=count) for name, count in days.items() if count}


def audit_signing_key(config: Config) -> Ed25519PrivateKey:
    """The configured key; on the embedded default one that is made when it is first needed."""
    if config.keys.audit_signing or not config.is_embedded:
        return load_signing_key(config.keys.audit_signing)
    return generate_signing_key(config.engine.data_dir / "keys" / "audit_signing.pem")


class Engine:
    """The roles of one process. `run` builds them, reports ready, and returns when they have drained."""

    def __init__(self, config: Config, roles: Sequence[Role], admin_listen: str | Path) -> None:
        self._config, self._roles, self._admin_listen = config, tuple(dict.fromkeys(roles)), admin_listen
        self._metrics = Metrics()
        self._audit, self._work_items = PostgresAuditTrail(), PostgresWorkItems()
        self._checks: dict[str, Check] = {}

    async def run(self, drain: asyncio.Event) -> int:
        """Serves until `drain` is set; exit status 0 after an orderly end.

        Raises ConfigurationError and UnavailableError for what prevents the start.
        """
        async with AsyncExitStack() as stack:
            dsn = await stack.enter_async_context(database(self._config))
            pool = await self._pool(dsn)
            stack.push_async_callback(_close, pool)
            gauges = Gauges(pool, self._metrics)
            self._checks["database"] = gauges.reachable
            admin = WebServer(role_app(self._metrics.registry, self._checks, gauges.refresh), self._admin_listen)
            stop, close = asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                workers: list[asyncio.Task[None]] = []
                closers: list[asyncio.Task[None]] = []
                if Role.ROUTE in self._roles:
                    workers.append(await self._route(group, dsn, pool, stop))
                    closers += await self._publish_and_seal(stack, group, dsn, pool, close)
                if Role.DELIVER in self._roles:
                    workers += await self._deliver(stack, group, pool, stop)
                if Role.INGEST in self._roles:
                    await stack.enter_async_context(self._ingest(dsn, pool))
                await admin.start()
                stack.push_async_callback(admin.stop)
                settle_memory()
                log.info("ready", role=",".join(self._roles))
                await _drained(drain, [*workers, *closers])
                stop.set()
                if workers:
                    await asyncio.wait(workers)
                close.set()  # what the workers did last is published and sealed too
        return 0

    async def _pool(self, dsn: str) -> Pool:
        pool = await create_pool(dsn, self._config.postgres.pool_size, application_name="+".join(self._roles))
        with unavailable_errors():
            async with pool.acquire() as connection:
                await migrate(connection)
        return pool

    # ---- ingest -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _ingest(self, dsn: str, pool: Pool) -> AsyncIterator[None]:
        """Listeners in front of the one door. Drained in reverse: listeners first, then the log."""
        event_log = await open_event_log(self._config.event_log, dsn, topics=INTAKE_TOPICS, metrics=self._metrics)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(event_log.close)
            feeds = sources(self._config)
            normalizer = FeedNormalizer(feeds.values())
            records = CloudEventRecords(KeyHasher(patient_hash_key(self._config)))
            await self._follow_codes(stack, dsn, pool, event_log, normalizer, records)
            turns = await self._turns(stack, pool)
            strict = [name for name, source in feeds.items() if source.profile.ack_policy == "strict"]
            intake = Intake(event_log, normalizer, records, self._metrics, strict, turns)
            subscriptions = await self._subscriptions(stack, pool)
            drains: list[Callable[[], Awaitable[None]]] = []
            stack.push_async_callback(_together, drains)  # one after the other they would take too long
            for sharing in sharing_listeners([each for each in self._config.feeds if each.protocol == "mllp"]):
                server = self._mllp(sharing[0], [feeds[each.name] for each in sharing], intake)
                await server.start()
                drains.append(server.drain)
            for settings in self._config.feeds:
                if settings.protocol == "files":
                    drop = FileDrop(settings, self._hl7v2(settings, [feeds[settings.name]], intake), self._metrics)
                    await drop.start()
                    drains.append(drop.drain)
            if any(settings.protocol == "fhir" for settings in self._config.feeds):
                fhir = self._fhir(feeds, intake, pool, subscriptions)
                await fhir.start()
                drains.append(fhir.stop)
            yield

    async def _turns(self, stack: AsyncExitStack, pool: Pool) -> Turns:
        """The turns of this process, held back where routing lags behind."""
        settings = self._config.intake
        turns = Turns(settings.longest_wait_s, self._metrics)
        if not settings.lag_limit_s:
            return turns
        progress = await open_progress(self._config.event_log, pool, Topic.EVENTS)
        stack.push_async_callback(progress.close)
        worker = PaceWorker(progress, Pace(settings.lag_limit_s, settings.unslowed_rate), turns, self._metrics)
        stop = asyncio.Event()
        stack.push_async_callback(_ended, stop, [asyncio.create_task(worker.run(stop), name="pace")])
        return turns

    async def _follow_codes(
        self,
        stack: AsyncExitStack,
        dsn: str,
        pool: Pool,
        event_log: EventLog,
        normalizer: FeedNormalizer,
        records: CloudEventRecords,
    ) -> None:
        """Codes that are mapped count from here on, and what is normalized again is published beside what comes in."""
        scanner = open_scanner(self._config.event_log, dsn)
        refresh_s = self._config.routing.directory_refresh_s
        follower = CodeFollower(pool, normalizer, Reprocessor(pool, normalizer, records), scanner, refresh_s, utc_now)
        with suppress(UnavailableError):  # on Kafka messages are taken without the database
            await follower.refresh()
        stop = asyncio.Event()
        works = [
            asyncio.create_task(follower.run(stop), name="codes"),
            asyncio.create_task(
                _until(stop, OutboxRelay(dsn, event_log, outbox=RENORMALIZED).run), name="renormalized relay"
            ),
        ]
        stack.push_async_callback(_ended, stop, works)

    def _mllp(self, settings: FeedSettings, sharing: Sequence[Source], intake: Intake) -> MllpServer:
        return MllpServer(settings, self._hl7v2(settings, sharing, intake), self._metrics)

    def _hl7v2(self, settings: FeedSettings, sharing: Sequence[Source], intake: Intake) -> HL7Feed:
        limit = settings.max_batch_messages
        return HL7Feed(sharing[0], intake, utc_now, self._metrics, sharing[1:], max_batch_messages=limit)

    async def _subscriptions(self, stack: AsyncExitStack, pool: Pool) -> Subscriptions:
        asked = {feed.name: feed.source for feed in self._config.feeds if feed.source is not None}
        servers = ResourceServers(asked, self._metrics, self._config.http.max_body_bytes)
        await stack.enter_async_context(servers)
        subscriptions = Subscriptions(pool, self._work_items, servers, self._metrics)
        stack.push_async_callback(subscriptions.drain)
        return subscriptions

    def _fhir(
        self, feeds: Mapping[FeedName, Source], intake: Intake, pool: Pool, subscriptions: Subscriptions
    ) -> FhirServer:
        config = self._config
        clients = ClientStore(pool)
        app = create_app(
            intake,
            {feed.name: feeds[feed.name] for feed in config.feeds if feed.protocol == "fhir"},
            clients,
            pool,
            self._metrics,
            config.http,
            utc_now,
            subscriptions,
            base_url=fhir_base(config),
            secret=patient_hash_key(config),
        )
        return FhirServer(app, clients, config.http, self._metrics)

    # ---- route ------------------------------------------------------------------------------------------------------

    async def _route(self, group: asyncio.TaskGroup, dsn: str, pool: Pool, stop: asyncio.Event) -> asyncio.Task[None]:
        config = self._config
        directory = LiveDirectory(pool, config.routing.directory_refresh_s)
        records = CloudEventRecords(KeyHasher(patient_hash_key(config)))
        worker = RouteWorker(
            consumer=await open_consumer(config.event_log, dsn, pool, ROUTED_TOPICS),
            pool=pool,
            tracker=PostgresTracker(
                directory, self._work_items, records, self._audit, window_of(config), stale_after(config)
            ),
            audit=self._audit,
            work_items=self._work_items,
            codes=PostgresLocalCodes(),
            reader=CloudEventReader(),
            directory=directory,
            policy=RoutePolicy(
                facilities={facility.id: facility for facility in config.facilities},
                late_after_h={name: source.profile.late_after_h for name, source in sources(config).items()},
                max_age=timedelta(hours=config.delivery.max_age_h),
            ),
            settings=config.routing,
            metrics=self._metrics,
            clock=utc_now,
        )
        return group.create_task(worker.run(stop), name="route")

    async def _publish_and_seal(
        self, stack: AsyncExitStack, group: asyncio.TaskGroup, dsn: str, pool: Pool, close: asyncio.Event
    ) -> list[asyncio.Task[None]]:
        config = self._config
        outcome_log = await open_event_log(config.event_log, dsn, metrics=self._metrics)
        stack.push_async_callback(outcome_log.close)
        ours = config.event_log.kind == "postgres"  # Kafka removes what is old by itself
        topics = {number: str(topic) for topic, number in TOPIC_NUMBERS.items()} if ours else {}
        retention = RetentionWorker(pool, topics, config.retention, self._metrics, utc_now)
        key = audit_signing_key(config)
        directory = checkpoint_dir(config)
        await asyncio.to_thread(prepare_directory, directory, key.public_key())
        sealer = Sealer(pool, config.audit, directory, key, self._work_items, self._metrics, utc_now)
        return [
            group.create_task(_until(close, OutboxRelay(dsn, outcome_log).run), name="relay"),
            group.create_task(sealer.run(close), name="sealer"),
            group.create_task(retention.run(close), name="retention"),
        ]

    # ---- deliver ----------------------------------------------------------------------------------------------------

    async def _deliver(
        self,
        stack: AsyncExitStack,
        group: asyncio.TaskGroup,
        pool: Pool,
        stop: asyncio.Event,
    ) -> list[asyncio.Task[None]]:
        config = self._config
        directory = LiveDirectory(pool, config.routing.directory_refresh_s)
        poster = await stack.enter_async_context(HttpPoster(NetworkGuard(config.delivery.allowed_networks)))
        await directory.refresh()
        worker = DeliveryWorker(
            pool,
            open_channels(Surroundings(poster=poster, identity=engine_identity(config))),
            directory,
            resolve_secret,
            self._audit,
            self._work_items,
            config.delivery,
            self._metrics,
            utc_now,
        )
        alerts = AlertWorker(
            pool,
            poster,
            resolve_secret,
            self._audit,
            self._work_items,
            config.alerts,
            [feed.name for feed in config.feeds],
            self._metrics,
            utc_now,
            config.delivery.backoff,
        )
        return [
            group.create_task(_follow(directory, config.routing.directory_refresh_s, stop), name="directory"),
            group.create_task(worker.run(stop), name="deliver"),
            group.create_task(alerts.run(stop), name="alerts"),
        ]


async def _ended(stop: asyncio.Event, works: Sequence[asyncio.Task[None]]) -> None:
    stop.set()
    _, slow = await asyncio.wait(works, timeout=2)
    for work in slow:  # an interrupted portion is taken up again at the next start
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)


async def _together(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(work() for work in works))


async def _close(pool: Pool) -> None:
    """Connections of a database that is gone cannot be closed in order; that must not hold up the end."""
    try:
        async with asyncio.timeout(1):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _drained(drain: asyncio.Event, workers: Sequence[asyncio.Task[None]]) -> None:
    """Returns when `drain` is set; a worker that ends before then ends the process, and its error is raised."""
    waiting = asyncio.create_task(drain.wait())
    done, _ = await asyncio.wait([waiting, *workers], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for worker in done - {waiting}:
        worker.result()
        raise RuntimeError(f"the worker {worker.get_name()} ended by itself")


async def _follow(directory: LiveDirectory, every_s: float, stop: asyncio.Event) -> None:
    """Keeps the deliver role's directory current; while the database is away the last one stands."""
    while not stop.is_set():
        with suppress(UnavailableError):
            await directory.refresh()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)


async def _until(stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work`, which does not end by itself, until `stop` is set."""
    working, stopping = asyncio.ensure_future(work()), asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
    else:
        working.cancel()
        await asyncio.wait([working])
