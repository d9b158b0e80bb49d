"""Owns how the parts of reprocessing are put together: for a command, and for the engine that looks after itself."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from uuid import uuid4

import msgspec
import structlog

from tocengine.adapters.fhir.request import check_message
from tocengine.adapters.hl7v2_gate import Gate, is_ignored, readmit
from tocengine.config import Config, sharing_listeners
from tocengine.config_file import sources
from tocengine.credentials import patient_hash_key
from tocengine.errors import RefusedError, UnavailableError, UnsupportedError
from tocengine.eventlog import open_scanner
from tocengine.eventlog.records import CloudEventRecords, KeyHasher
from tocengine.formats.fhir.json_body import BodyLimits
from tocengine.local_codes.postgres import LiveCodes, PostgresLocalCodes, load
from tocengine.model.codes import CodeKey
from tocengine.model.ids import FeedName
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.profile import Source
from tocengine.normalize.dispatch import FeedNormalizer
from tocengine.ports import AuditTrail, Clock, ClosableWorkItems, MessageScanner
from tocengine.postgres import Pool, unavailable_errors
from tocengine.reprocessing.postgres import Cause, Reprocessor, Request
from tocengine.reprocessing.publisher import Publisher
from tocengine.reprocessing.quarantine import Quarantine, Readmit
from tocengine.reprocessing.replay import Ignores, replay_waiting
from tocengine.telemetry import origin_of

log = structlog.get_logger()


class Workshop(msgspec.Struct, frozen=True):
    """What a command needs to have messages normalized again."""

    pool: Pool
    scanner: MessageScanner
    normalizer: FeedNormalizer
    reprocessor: Reprocessor
    publisher: Publisher
    quarantine: Quarantine
    ignores: Ignores


@asynccontextmanager
async def workshop(
    config: Config, pool: Pool, dsn: str, audit: AuditTrail, work_items: ClosableWorkItems
) -> AsyncIterator[Workshop]:
    """With the profiles of `config` and the codes that are mapped now."""
    normalizer = FeedNormalizer(sources(config).values())
    with unavailable_errors():
        async with pool.acquire() as connection:
            _, codes = await load(connection)
    normalizer.learn(codes)
    scanner = open_scanner(config.event_log, dsn)
    reprocessor = Reprocessor(pool, normalizer, CloudEventRecords(KeyHasher(patient_hash_key(config))))
    quarantine = Quarantine(reprocessor, scanner, readmission(config), audit, work_items)
    async with Publisher(pool, dsn, config.event_log) as publisher:
        yield Workshop(pool, scanner, normalizer, reprocessor, publisher, quarantine, ignoring(sources(config)))


def readmission(config: Config) -> Readmit:
    """The gates of all listeners as they are configured now: what they refuse is not told about either."""
    known = sources(config)
    limits = BodyLimits(depth=config.http.max_depth, entries=config.http.max_entries)
    gates: dict[str, Gate] = {}
    for sharing in sharing_listeners(config.feeds):
        gate = Gate([known[feed.name] for feed in sharing])
        gates.update((feed.name, gate) for feed in sharing)

    def again(message: Message) -> tuple[Message, RefusedError | None]:
        source = known.get(message.feed)
        if source is None:
            problem = Problem(reason="feed_unknown", text="The feed is not configured", code="207", stage="gate")
            return message, UnsupportedError(problem)
        refusal = None
        if message.content_type is ContentType.HL7V2:
            gate = gates.get(message.feed) or Gate([source])
            source, refusal = readmit(gate, message)
        else:
            refusal = check_message(message.body, limits)
        return msgspec.structs.replace(message, feed=source.feed, facility=source.facility.id), refusal

    return again


def ignoring(known: Mapping[FeedName, Source]) -> Ignores:
    """What the feeds store and do not read, as they are configured now."""

    def ignored(message: Message) -> bool:
        source = known.get(message.feed)
        if source is None or message.content_type is not ContentType.HL7V2:
            return False
        _, refusal = readmit(Gate([source]), message)
        return refusal is not None and is_ignored(source, refusal)

    return ignored


class CodeFollower:
    """Keeps an engine that takes messages in at the codes that are mapped, and sees to what waited for them.

    A command normalizes what waits when it maps a code; messages that were read in the moment before this process
    knew of it, or that an interrupted command left, are taken up here.
    """

    def __init__(
        self,
        pool: Pool,
        normalizer: FeedNormalizer,
        reprocessor: Reprocessor,
        scanner: MessageScanner,
        refresh_s: float,
        clock: Clock,
    ) -> None:
        self._pool, self._reprocessor, self._scanner = pool, reprocessor, scanner
        self._refresh_s, self._clock = refresh_s, clock
        self._live = LiveCodes(pool, normalizer.learn, 0.0)
        self._tried: dict[CodeKey, datetime] = {}

    async def refresh(self) -> None:
        """Learns what was mapped. Raises UnavailableError."""
        await self._live.refresh()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; outages are waited out."""
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._refresh_s)
                return
            try:
                await self.refresh()
                await self.take_up()
            except UnavailableError as error:
                log.warning("codes_not_followed", error_type=type(error).__name__)
            except Exception as error:  # a defect here must not end the listeners beside it, nor itself
                log.error("codes_not_followed", **origin_of(error))

    async def take_up(self) -> int:
        """Normalizes what waits for codes that are mapped by now; returns how many events that made."""
        with unavailable_errors():
            async with self._pool.acquire() as connection:
                keys = await PostgresLocalCodes().waiting_though_mapped(connection)
        made = 0
        for key, newest in keys.items():
            if self._tried.get(key) == newest:  # no longer in the log, or no different for the code
                continue
            self._tried[key] = newest  # before it is: what fails here shall not keep the other codes waiting
            request = Request(run_id=uuid4(), cause=Cause.CODES, by="tocengine", at=self._clock())
            try:
                with unavailable_errors():
                    tally = await replay_waiting(self._scanner, self._reprocessor, key, request, _at_once, _unseen)
            except UnavailableError:
                del self._tried[key]  # it says nothing about the messages
                raise
            made += tally.events
        return made


async def _at_once() -> None:
    """The engine publishes beside this."""


def _unseen(tally: object, at: datetime) -> None:
    """Nobody watches."""
