"""Owns how the route role is built: the router, and what publishes, seals and retains what it wrote."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tocengine.audit.checkpoints import generate_signing_key, load_signing_key
from tocengine.audit.sealer import Sealer
from tocengine.clock import utc_now
from tocengine.config import Config
from tocengine.config_file import sources
from tocengine.credentials import patient_hash_key
from tocengine.deployment import checkpoint_dir
from tocengine.encounters.holdback import Window
from tocengine.encounters.postgres import PostgresTracker
from tocengine.eventlog import Topic, open_consumer, open_event_log
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.eventlog.relay import OutboxRelay
from tocengine.eventlog.topics import TOPIC_NUMBERS
from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.model.ids import FeedName
from tocengine.retention.worker import RetentionWorker
from tocengine.roles import Parts, until
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import LiveDirectory
from tocengine.routing.worker import RouteWorker

TOPICS = (Topic.EVENTS, Topic.QUARANTINE)


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


async def start_router(group: asyncio.TaskGroup, parts: Parts, stop: asyncio.Event) -> asyncio.Task[None]:
    """Tracks and routes until `stop` is set."""
    config = parts.config
    directory = LiveDirectory(parts.pool, config.routing.directory_refresh_s)
    records = CloudEventRecords(KeyHasher(patient_hash_key(config)))
    worker = RouteWorker(
        consumer=await open_consumer(config.event_log, parts.dsn, parts.pool, TOPICS),
        pool=parts.pool,
        tracker=PostgresTracker(
            directory, parts.work_items, records, parts.audit, window_of(config), stale_after(config)
        ),
        audit=parts.audit,
        work_items=parts.work_items,
        codes=PostgresLocalCodes(),
        reader=CloudEventReader(),
        directory=directory,
        policy=RoutePolicy(
            facilities={facility.id: facility for facility in config.facilities},
            late_after_h={name: source.profile.late_after_h for name, source in sources(config).items()},
            max_age=timedelta(hours=config.delivery.max_age_h),
        ),
        settings=config.routing,
        metrics=parts.metrics,
        clock=utc_now,
    )
    return group.create_task(worker.run(stop), name="route")


async def start_keepers(
    stack: AsyncExitStack, group: asyncio.TaskGroup, parts: Parts, close: asyncio.Event
) -> list[asyncio.Task[None]]:
    """Publishes outcomes, seals the audit log and removes what is old, until `close` is set."""
    config = parts.config
    outcome_log = await open_event_log(config.event_log, parts.dsn, metrics=parts.metrics)
    stack.push_async_callback(outcome_log.close)
    ours = config.event_log.kind == "postgres"  # Kafka removes what is old by itself
    topics = {number: str(topic) for topic, number in TOPIC_NUMBERS.items()} if ours else {}
    retention = RetentionWorker(parts.pool, topics, config.retention, parts.metrics, utc_now)
    key = audit_signing_key(config)
    sealer = Sealer(parts.pool, config.audit, checkpoint_dir(config), key, parts.work_items, parts.metrics, utc_now)
    return [
        group.create_task(until(close, OutboxRelay(parts.dsn, outcome_log).run), name="relay"),
        group.create_task(sealer.run(close), name="sealer"),
        group.create_task(retention.run(close), name="retention"),
    ]
