"""Owns the route role's loop: one poll of the log, one transaction with everything that follows from it.

Positions, encounters, decisions, notices, lanes, audit rows and work items commit together or not at all, so that a
crash at any point replays the batch to the same result (design section 7).
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

import asyncpg
import msgspec
import structlog

from tocengine.config import RoutingSettings
from tocengine.errors import EventDataError, HeldRowError, PositionLostError, UnavailableError
from tocengine.model.encounter import Snapshot, TrackedEncounter, Transition
from tocengine.model.event import EventRecord, LoggedEvent
from tocengine.ports import (
    NOTICES_DUE,
    AuditTrail,
    Batch,
    Clock,
    ClosableWorkItems,
    CodeUse,
    LogConsumer,
    LogRecord,
    RecordReader,
    Tracker,
    Transaction,
)
from tocengine.postgres import SERIALIZATION, Pool, is_unavailable
from tocengine.routing.again import Refusals
from tocengine.routing.batch import Rulings, decide_batch
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import LiveDirectory, SetAside, notify, read_unreadable, store_rulings, store_set_aside
from tocengine.routing.set_aside import (
    audit_record,
    of_event,
    of_quarantined,
    place_of,
    problem_of,
    undecodable,
    work_item,
)
from tocengine.routing.settling import settle
from tocengine.telemetry import Metrics

EVENTS_TOPIC = "toc.events.v1"
POLL_S = 0.5
LAG_S = 5.0
REMIND_S = 10.0
RELEASE_S = 0.5
"""How often is looked for events held back whose window has ended while nothing is received."""
REFUSALS_S = 1.0
"""How often is looked for encounters that a new opt-out concerns."""
BACKOFF_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

Item: TypeAlias = EventRecord | SetAside

DATA_ERRORS = (
    EventDataError,
    asyncpg.DataError,  # class 22
    asyncpg.IntegrityConstraintViolationError,  # class 23
    asyncpg.ProgramLimitExceededError,  # class 54
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)
"""What one record's own content can cause; everything else is an outage or a defect that no bisection cures."""

log = structlog.get_logger()


class RouteWorker:
    """Consumes events and quarantine. `step` is one turn of the loop; `run` turns until told to stop."""

    def __init__(
        self,
        *,
        consumer: LogConsumer,
        pool: Pool,
        tracker: Tracker,
        audit: AuditTrail,
        work_items: ClosableWorkItems,
        codes: CodeUse,
        reader: RecordReader,
        directory: LiveDirectory,
        policy: RoutePolicy,
        settings: RoutingSettings,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._consumer, self._pool, self._tracker = consumer, pool, tracker
        self._audit, self._work_items, self._reader, self._codes = audit, work_items, reader, codes
        self._directory, self._policy, self._settings = directory, policy, settings
        self._metrics, self._clock = metrics, clock
        self._refusals = Refusals(tracker, directory, policy, audit, work_items, clock)
        self._lag_at = self._released_at = self._reminded_at = self._decided_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; what is under way is finished. Outages are waited out, never raised."""
        failures = 0
        try:
            while not stop.is_set():
                try:
                    await self.step(POLL_S)
                    failures = 0
                except PositionLostError:
                    log.warning("position_lost")
                    await self._rewind()
                except Exception as error:
                    if not _is_transient(error):
                        raise
                    told = str(error) if isinstance(error, UnavailableError) else ""
                    log.warning("routing_waits", error_type=type(error).__name__, error=told)
                    await self._rewind()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                    failures += 1
        finally:
            await self._consumer.close()

    async def step(self, timeout_s: float) -> int:
        """Polls once and applies what came, and what was held back long enough; returns how many records came.

        Raises UnavailableError or what asyncpg raises for an outage, and PositionLostError; nothing is applied then.
        """
        await self._directory.refresh()
        batches = await self._consumer.poll(self._settings.batch_records, timeout_s)
        if batches:
            started = time.perf_counter()
            await self._apply(batches)
            self._metrics.routing_batch_seconds.observe(time.perf_counter() - started)
        await self._release_held()
        await self._remind()
        await self._decide_refused()
        await self._measure_lag()
        return sum(len(batch.records) for batch in batches)

    async def _rewind(self) -> None:
        with suppress(UnavailableError, OSError):
            await self._consumer.rewind()

    async def _measure_lag(self) -> None:
        if time.monotonic() - self._lag_at < LAG_S:
            return
        self._lag_at = time.monotonic()
        with suppress(UnavailableError, OSError):
            for (topic, partition), records in (await self._consumer.lag()).items():
                self._metrics.routing_lag.labels(topic, str(partition)).set(records)

    async def _release_held(self) -> None:
        """Applies what was held back and whose window has ended by the wall clock, on partitions that are idle: on
        the others the times of receipt decide (domain 2.2)."""
        now = self._clock()
        if time.monotonic() - self._released_at < RELEASE_S:
            return
        self._released_at = time.monotonic()
        async with self._pool.acquire() as connection:
            if not await self._tracker.window_ended(connection, now):
                return
        idle = [batch for batch in await self._consumer.idle() if batch.topic == EVENTS_TOPIC]
        held = await self._ended({batch.partition: now for batch in idle})
        if held:
            await self._apply(idle, held)

    async def _remind(self) -> None:
        """Opens the work items of rules whose time has come."""
        if time.monotonic() - self._reminded_at < REMIND_S:
            return
        self._reminded_at = time.monotonic()
        async with self._pool.acquire() as connection:
            looked_at = 1
            while looked_at:
                async with connection.transaction():
                    looked_at = await self._tracker.remind(connection, self._clock())

    async def _decide_refused(self) -> None:
        """Decides anew what patients do not want told any more."""
        if time.monotonic() - self._decided_at < REFUSALS_S:
            return
        self._decided_at = time.monotonic()
        async for rulings in self._refusals.decide(self._pool):
            self._count((), rulings)

    # --- one batch

    async def _apply(self, batches: Sequence[Batch], held: Sequence[EventRecord] = ()) -> None:
        """The batch in one transaction; records that make it fail are found, set aside, and the rest applied.

        Once something failed, nothing of the batch is held back and what comes out of hold-back are items like any
        other, so that none answers for another.
        """
        items: list[Item] = [
            *held,
            *(self._read(record, batch.partition) for batch in batches for record in batch.records),
        ]
        bodies = [*(b"" for _ in held), *(record.value for batch in batches for record in batch.records)]
        hold = True
        while True:
            now = self._clock()
            try:
                async with self._pool.acquire() as connection, connection.transaction():
                    await self._consumer.commit(connection, batches)
                    outcome = await self._route(connection, items, now, hold)
            except HeldRowError as error:
                await self._set_held_aside(error)
                continue
            except DATA_ERRORS as error:
                if is_unavailable(error):
                    raise
                if hold:
                    hold = False
                    ended = await self._ended(_last_receipt(items))
                    items, bodies = [*ended, *items], [*(b"" for _ in ended), *bodies]
                    continue
                culprit, cause = await self._find_culprit(items, error)
                items[culprit] = self._set_aside(items[culprit], bodies[culprit], cause)
                continue
            self._count(items, outcome)
            return

    async def _ended(self, until: Mapping[int, datetime]) -> Sequence[EventRecord]:
        """What was held back and comes out by a time, by partition."""
        while True:
            try:
                async with self._pool.acquire() as connection:
                    return await self._tracker.ended(connection, until)
            except HeldRowError as error:
                await self._set_held_aside(error)

    async def _set_held_aside(self, error: HeldRowError) -> None:
        """Sets aside what was held back and cannot be read, so that nothing else waits for it."""
        async with self._pool.acquire() as connection, connection.transaction():
            now = self._clock()
            rows = await read_unreadable(connection, error.rows, now)
            await self._tracker.forget(connection, list(error.rows))
            outcome = await self._route(connection, rows, now, hold=False)
        for message_id, part in error.rows:
            log.error("held_event_unreadable", message_id=str(message_id), part=part)
        self._count(rows, outcome)

    async def _find_culprit(self, items: Sequence[Item], error: Exception) -> tuple[int, Exception]:
        """The index of the first record with which the batch fails, given those before it: a binary search over
        prefixes in transactions that are rolled back. Raises `error` where no event can be blamed."""
        good, bad = 0, len(items)
        cause = error
        while bad - good > 1:
            middle = (good + bad) // 2
            failure = await self._try(items[:middle])
            if failure is None:
                good = middle
            else:
                bad, cause = middle, failure
        if not isinstance(items[bad - 1], EventRecord):
            raise UnavailableError("a batch fails whatever it contains") from error
        return bad - 1, cause

    async def _try(self, items: Sequence[Item]) -> Exception | None:
        async with self._pool.acquire() as connection:
            trial = connection.transaction()
            await trial.start()
            try:
                await self._route(connection, items, self._clock(), hold=False)
            except DATA_ERRORS as error:
                if is_unavailable(error):
                    raise
                return error
            finally:
                if not connection.is_closed():
                    await trial.rollback()
        return None

    async def _route(self, transaction: Transaction, items: Sequence[Item], now: datetime, hold: bool) -> Rulings:
        events = [item for item in items if isinstance(item, EventRecord)]
        aside = [item for item in items if isinstance(item, SetAside)]
        tracked = await self._tracker.track(transaction, events, now, hold=hold) if events else ()
        rulings = await decide_batch(transaction, tracked, self._directory.current, self._policy, now)
        snapshots, transitions = _to_store(tracked, rulings)
        if snapshots or transitions:
            await self._tracker.store(transaction, snapshots, transitions)
        notices = await store_rulings(transaction, rulings.made, now)
        audits, work = rulings.audit_records(now), rulings.work_items()
        if events:
            rulings.codes = await settle(
                transaction, [event.summary for event in events], self._codes, self._work_items, now
            )
            work += rulings.codes.work_items(now)
        if aside:
            if waited := [(row.message_id, row.part) for row in aside if row.held_back]:
                await self._tracker.forget(transaction, waited)
            fresh = await store_set_aside(transaction, aside)
            audits += [audit_record(row, row.message_id in fresh, now) for row in aside]
            work += [work_item(row, now) for row in aside if row.message_id in fresh]
        if audits:
            await self._audit.record(transaction, audits)
        if work:
            await self._work_items.open(transaction, work)
        if notices:
            await notify(transaction, [NOTICES_DUE])
        return rulings

    # --- what is set aside

    def _read(self, record: LogRecord, partition: int) -> Item:
        try:
            if record.topic == EVENTS_TOPIC:
                event = self._reader.event(record)
                return LoggedEvent(event.summary, event.fhir, partition)
            return of_quarantined(self._reader.quarantined(record))
        except EventDataError as error:
            return undecodable(record, error.problem, self._clock())

    def _set_aside(self, item: Item, body: bytes, error: Exception) -> SetAside:
        assert isinstance(item, EventRecord)
        event, problem = item.summary, problem_of(error)
        log.error(
            "event_set_aside", message_id=str(event.message_id), feed=event.feed, reason=problem.reason,
            error_type=type(error).__name__, location=place_of(error),
        )  # fmt: skip
        return of_event(item, body, problem)

    def _count(self, items: Iterable[Item], rulings: Rulings) -> None:
        for item in items:
            if isinstance(item, EventRecord):
                self._metrics.events_tracked.labels(item.summary.feed, "applied").inc()
            elif item.stage == "track":
                self._metrics.events_tracked.labels(item.feed, "set_aside").inc()
                self._metrics.quarantined.labels(item.feed, "track", item.reason).inc()
        for (feed, table, _), messages in rulings.codes.unknown.items():
            self._metrics.codes_unmapped.labels(feed, table).inc(messages)
        for tracked in rulings.tracked:
            for transition in tracked.transitions:
                self._metrics.transitions.labels(transition.kind, transition.status).inc()
        for _, ruling in rulings.made:
            if ruling.decision is not None:
                self._metrics.decisions.labels(ruling.decision.reason or "SENT").inc()


def _last_receipt(items: Iterable[Item]) -> dict[int, datetime]:
    """When the last of the events was received, by partition."""
    until: dict[int, datetime] = {}
    for item in items:
        if isinstance(item, LoggedEvent):
            received = item.summary.received_at
            until[item.partition] = max(received, until.get(item.partition, received))
    return until


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, (UnavailableError, *SERIALIZATION)) or is_unavailable(error)


def _to_store(tracked: Sequence[TrackedEncounter], rulings: Rulings) -> tuple[list[Snapshot], list[Transition]]:
    """Snapshots that something refers to: a transition, or a notice that renders it.

    Everything a batch says of an encounter shows it as it is after the batch, so there is one snapshot of each.
    """
    rendered = {ruling.notice.snapshot_id for _, ruling in rulings.made if ruling.notice is not None}
    snapshots: list[Snapshot] = []
    transitions: list[Transition] = []
    for encounter in tracked:
        snapshot = encounter.snapshot
        if encounter.transitions or snapshot.snapshot_id in rendered:
            snapshots.append(snapshot)
        for transition in encounter.transitions:
            if transition.snapshot_id != snapshot.snapshot_id:
                transition = msgspec.structs.replace(transition, snapshot_id=snapshot.snapshot_id)
            transitions.append(transition)
    return snapshots, transitions
