"""Owns how the ingest role is built: the listeners of all feeds before the one door, and what keeps it current."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tocengine.adapters.files.server import FileDrop
from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.intake import Intake
from tocengine.adapters.mllp.server import MllpServer
from tocengine.adapters.pace import Pace
from tocengine.adapters.pace_worker import PaceWorker
from tocengine.adapters.turns import Turns
from tocengine.clock import utc_now
from tocengine.config import FeedSettings, sharing_listeners
from tocengine.config_file import sources
from tocengine.credentials import patient_hash_key
from tocengine.errors import UnavailableError
from tocengine.eventlog import Topic, open_event_log, open_progress, open_scanner
from tocengine.eventlog.records import CloudEventRecords, KeyHasher
from tocengine.eventlog.relay import RENORMALIZED, OutboxRelay
from tocengine.model.ids import FeedName
from tocengine.model.profile import Source
from tocengine.normalize.dispatch import FeedNormalizer
from tocengine.ports import EventLog
from tocengine.reprocessing.postgres import Reprocessor
from tocengine.reprocessing.workshop import CodeFollower
from tocengine.roles import Parts, until

TOPICS = (Topic.MESSAGES, Topic.EVENTS, Topic.QUARANTINE)


@asynccontextmanager
async def ingesting(parts: Parts) -> AsyncIterator[None]:
    """The role at work. Drained in reverse: listeners first, then the log."""
    config, metrics = parts.config, parts.metrics
    event_log = await open_event_log(config.event_log, parts.dsn, topics=TOPICS, metrics=metrics)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(event_log.close)
        feeds = sources(config)
        normalizer = FeedNormalizer(feeds.values())
        records = CloudEventRecords(KeyHasher(patient_hash_key(config)))
        await _follow_codes(stack, parts, event_log, normalizer, records)
        turns = await _turns(stack, parts)
        strict = [name for name, source in feeds.items() if source.profile.ack_policy == "strict"]
        intake = Intake(event_log, normalizer, records, metrics, strict, turns)
        fhir = {feed.name: feeds[feed.name] for feed in config.feeds if feed.protocol == "fhir"}
        drains = [await _listen_fhir(stack, parts, fhir, intake)] if fhir else []
        stack.push_async_callback(_together, drains)  # one after the other they would take too long
        for sharing in sharing_listeners([each for each in config.feeds if each.protocol == "mllp"]):
            feed = _hl7v2(parts, sharing[0], [feeds[each.name] for each in sharing], intake)
            server = MllpServer(sharing[0], feed, metrics)
            await server.start()
            drains.append(server.drain)
        for settings in config.feeds:
            if settings.protocol == "files":
                drop = FileDrop(settings, _hl7v2(parts, settings, [feeds[settings.name]], intake), metrics)
                await drop.start()
                drains.append(drop.drain)
        yield


def _hl7v2(parts: Parts, settings: FeedSettings, sharing: Sequence[Source], intake: Intake) -> HL7Feed:
    limit = settings.max_batch_messages
    return HL7Feed(sharing[0], intake, utc_now, parts.metrics, sharing[1:], max_batch_messages=limit)


async def _listen_fhir(
    stack: AsyncExitStack, parts: Parts, feeds: Mapping[FeedName, Source], intake: Intake
) -> Callable[[], Awaitable[None]]:
    """The HTTP listener of all FHIR feeds; returns what drains it. Loaded only where there is such a feed."""
    from tocengine.adapters.fhir.clients import ClientStore
    from tocengine.adapters.fhir.server import FhirServer, create_app
    from tocengine.adapters.fhir.sources import ResourceServers
    from tocengine.adapters.fhir.subscriptions import Subscriptions
    from tocengine.deployment import fhir_base

    config, metrics, pool = parts.config, parts.metrics, parts.pool
    asked = {feed.name: feed.source for feed in config.feeds if feed.source is not None}
    servers = ResourceServers(asked, metrics, config.http.max_body_bytes)
    await stack.enter_async_context(servers)
    subscriptions = Subscriptions(pool, parts.work_items, servers, metrics)
    stack.push_async_callback(subscriptions.drain)
    clients = ClientStore(pool)
    app = create_app(
        intake,
        feeds,
        clients,
        pool,
        metrics,
        config.http,
        utc_now,
        subscriptions,
        base_url=fhir_base(config),
        secret=patient_hash_key(config),
    )
    server = FhirServer(app, clients, config.http, metrics)
    await server.start()
    return server.stop


async def _turns(stack: AsyncExitStack, parts: Parts) -> Turns:
    """The turns of this process, held back where routing lags behind."""
    settings = parts.config.intake
    turns = Turns(settings.longest_wait_s, parts.metrics)
    if not settings.lag_limit_s:
        return turns
    progress = await open_progress(parts.config.event_log, parts.pool, Topic.EVENTS)
    stack.push_async_callback(progress.close)
    worker = PaceWorker(progress, Pace(settings.lag_limit_s, settings.unslowed_rate), turns, parts.metrics)
    stop = asyncio.Event()
    stack.push_async_callback(_ended, stop, [asyncio.create_task(worker.run(stop), name="pace")])
    return turns


async def _follow_codes(
    stack: AsyncExitStack, parts: Parts, event_log: EventLog, normalizer: FeedNormalizer, records: CloudEventRecords
) -> None:
    """Codes that are mapped count from here on, and what is normalized again is published beside what comes in."""
    scanner = open_scanner(parts.config.event_log, parts.dsn)
    refresh_s = parts.config.routing.directory_refresh_s
    reprocessor = Reprocessor(parts.pool, normalizer, records)
    follower = CodeFollower(parts.pool, normalizer, reprocessor, scanner, refresh_s, utc_now)
    with suppress(UnavailableError):  # on Kafka messages are taken without the database
        await follower.refresh()
    stop = asyncio.Event()
    relay = OutboxRelay(parts.dsn, event_log, outbox=RENORMALIZED)
    works = [
        asyncio.create_task(follower.run(stop), name="codes"),
        asyncio.create_task(until(stop, relay.run), name="renormalized relay"),
    ]
    stack.push_async_callback(_ended, stop, works)


async def _ended(stop: asyncio.Event, works: Sequence[asyncio.Task[None]]) -> None:
    stop.set()
    _, slow = await asyncio.wait(works, timeout=2)
    for work in slow:  # an interrupted portion is taken up again at the next start
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)


async def _together(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(work() for work in works))
