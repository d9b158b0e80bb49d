"""Owns the delivery worker: it claims due lanes, sends their notices, settles what came of it, and drains on a stop.

Three loops share a process: claiming (bounded by the attempts under way), settling (batched), and keeping
(heartbeat, lost workers, parked lanes). Due times live in PostgreSQL, never in sleeping tasks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from tocengine.config import DeliverySettings
from tocengine.delivery import leases
from tocengine.delivery.addresses import AddressBook, ResolveSecret
from tocengine.delivery.attempts import DRAINED, NOT_SENT, Attempt, Result
from tocengine.delivery.breaker import EndpointStanding
from tocengine.delivery.claim import Claim, Claimer, resting
from tocengine.delivery.postgres import QUERIES
from tocengine.delivery.settle import Settlement, Settler
from tocengine.delivery.window import Windows
from tocengine.errors import UnavailableError
from tocengine.model.directory import ChannelKind
from tocengine.model.notice import Failure, Outcome
from tocengine.ports import (
    NOTICES_DUE,
    AuditTrail,
    Channel,
    Clock,
    RecipientLookup,
    Transaction,
    WorkItems,
)
from tocengine.postgres import Pool, retry_serialization, unavailable_errors
from tocengine.telemetry import Metrics

AHEAD = 2
"""Lanes taken at most, as a multiple of the attempts in flight: claims are worth making in bulk."""
CLAIM_LANES = 128
SETTLE_RESULTS = 256
COALESCE_S = 0.004
"""How long the first result waits for others to be settled with."""
FALLBACK_S = 1.0
"""When to look for due lanes although nobody said that there are any."""
OUTAGE_S = 0.5
SETTLE_AFTER_DRAIN_S = 1.5

log = structlog.get_logger()


class DeliveryWorker:
    """Sends notices until told to stop. Any number of workers, in any number of processes, share the lanes."""

    def __init__(
        self,
        pool: Pool,
        channels: Mapping[ChannelKind, Channel],
        directory: RecipientLookup,
        resolve: ResolveSecret,
        audit: AuditTrail,
        work_items: WorkItems,
        settings: DeliverySettings,
        metrics: Metrics,
        clock: Clock,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self.worker_id: UUID = uuid4()
        self._pool = pool
        self._channels = channels
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._audit = audit
        self._claimer = Claimer(
            self.worker_id,
            channels,
            directory,
            AddressBook(resolve),
            audit,
            work_items,
            timedelta(hours=settings.max_age_h),
        )
        self._settler = Settler(settings, audit, work_items, *([jitter] if jitter else []))
        self._windows = Windows(settings.per_endpoint)
        self._slots = asyncio.Semaphore(settings.workers)
        self._endpoint_slots: dict[str, asyncio.Semaphore] = {}
        self._standings: Mapping[str, EndpointStanding] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._results: list[Result] = []
        self._ended = asyncio.Event()  # there are results to settle, or nothing more will come
        self._wake = asyncio.Event()  # there may be lanes to claim
        self._draining = False

    async def run(self, stop: asyncio.Event) -> None:
        """Returns after `stop` is set and what was under way is recorded, `drain_s` later at most."""
        stopping = asyncio.create_task(self._wake_on(stop))
        try:
            async with asyncio.TaskGroup() as group:
                settling = group.create_task(self._settle_results())
                helpers = [group.create_task(self._keep()), group.create_task(self._listen())]
                await self._claim_until(stop)
                await self._drain(settling)
                for helper in helpers:
                    helper.cancel()
            await self._retire()
        finally:
            stopping.cancel()
            for task in self._sending:
                task.cancel()

    # -- claiming ---------------------------------------------------------------------------------------------

    async def _claim_until(self, stop: asyncio.Event) -> None:
        known = False  # others free the lanes of a worker they do not know
        while not stop.is_set():
            self._wake.clear()
            room = AHEAD * self._settings.workers - len(self._sending)
            if room < AHEAD:
                await self._idle(FALLBACK_S)
                continue
            try:
                known = known or await self._announce()
                claim = await self._claim(min(room, CLAIM_LANES))
                pause_s = 0.0 if claim.lanes else await self._until_due()
            except UnavailableError as error:
                log.warning("deliveries wait for the database", error_type=type(error.__cause__).__name__)
                pause_s = OUTAGE_S
            if pause_s:
                await self._idle(pause_s)

    async def _announce(self) -> bool:
        async with self._transaction() as transaction:
            await leases.beat(transaction, self.worker_id)
        return True

    async def _claim(self, limit: int) -> Claim:
        async def claim() -> Claim:
            async with self._transaction() as transaction:
                return await self._claimer.claim(
                    transaction,
                    self._clock(),
                    self._windows.allowances(),
                    otherwise=self._windows.smallest,
                    limit=limit,
                )

        claimed = await retry_serialization(claim)
        self._standings = claimed.standings
        for attempt in claimed.attempts:
            self._windows.taken(attempt.lane.recipient_id)
            task = asyncio.create_task(self._attempt(attempt))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return claimed

    async def _until_due(self) -> float:
        """Seconds to wait if nothing wakes us; what is due already waits for a recipient's attempts to end."""
        with unavailable_errors():
            at: datetime | None = await self._pool.fetchval(QUERIES["next_due"])
        seconds = (at - self._clock()).total_seconds() if at else FALLBACK_S
        return min(seconds, FALLBACK_S) if seconds > 0 else FALLBACK_S

    async def _idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    # -- sending ----------------------------------------------------------------------------------------------

    async def _attempt(self, attempt: Attempt) -> None:
        """One attempt, from its turn to its result. Cancelled only by the drain."""
        endpoint_id = attempt.endpoint.id
        slots = self._endpoint_slots.get(endpoint_id)
        if slots is None:
            slots = self._endpoint_slots[endpoint_id] = asyncio.Semaphore(self._settings.per_endpoint)
        started: float | None = None
        clock = asyncio.get_running_loop().time
        outcome = NOT_SENT
        try:
            async with slots, self._slots:
                now = self._clock()
                if attempt.probe or not resting(self._standings, endpoint_id, now):
                    started = clock()
                    outcome = await self._channels[attempt.endpoint.channel].send(
                        attempt.address, attempt.notice, attempt.body, now
                    )
        except asyncio.CancelledError:
            if not self._draining:
                raise
            outcome = NOT_SENT if started is None else DRAINED
        except Exception as error:  # a channel never raises; one that does must not take the worker down
            log.error("channel failed", endpoint_id=endpoint_id, error_type=type(error).__name__)
            outcome = Outcome(failure=Failure.AMBIGUOUS, delivered=False, detail=type(error).__name__)
        seconds = clock() - started if started is not None else 0.0
        self._take(Result(attempt=attempt, outcome=outcome, at=self._clock(), seconds=seconds))

    def _take(self, result: Result) -> None:
        answered = result.outcome.failure in (None, Failure.PERMANENT)
        self._windows.ended(result.attempt.lane.recipient_id, result.seconds, answered)
        self._results.append(result)
        self._ended.set()

    # -- settling ---------------------------------------------------------------------------------------------

    async def _settle_results(self) -> None:
        """Settles batches until the drain is over and nothing is left."""
        while True:
            await self._ended.wait()
            self._ended.clear()
            if self._sending and len(self._results) < SETTLE_RESULTS:
                await asyncio.sleep(COALESCE_S)
            while self._results:
                batch, self._results = self._results[:SETTLE_RESULTS], self._results[SETTLE_RESULTS:]
                await self._settle(batch)
                self._wake.set()
            if self._draining and not self._sending:
                return

    async def _settle(self, batch: list[Result]) -> None:
        """Keeps at it through an outage: an answer that was received must not be forgotten."""

        async def settle() -> Settlement:
            async with self._transaction() as transaction:
                return await self._settler.settle(transaction, batch, self._clock(), self._standings)

        while True:
            try:
                settlement = await retry_serialization(settle)
                break
            except UnavailableError as error:
                log.warning("results wait for the database", error_type=type(error.__cause__).__name__)
                await asyncio.sleep(OUTAGE_S)
        if settlement.standings:
            self._standings = {**self._standings, **settlement.standings}
        self._measure(batch, settlement)

    def _measure(self, batch: list[Result], settlement: Settlement) -> None:
        for result in batch:
            channel = result.attempt.endpoint.channel
            self._metrics.attempts.labels(channel, result.name).inc()
            self._metrics.attempt_seconds.labels(channel).observe(result.seconds)
        for result in settlement.delivered:
            self._metrics.delivery_seconds.observe((result.at - result.attempt.received_at).total_seconds())

    # -- keeping ----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            try:
                await retry_serialization(self._keep_once)
            except UnavailableError:
                log.warning("heartbeat missed", worker_id=str(self.worker_id))
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _keep_once(self) -> None:
        async with self._transaction() as transaction:
            await leases.beat(transaction, self.worker_id)
        async with self._transaction() as transaction:
            freed = await leases.recover(
                transaction, self.worker_id, self._settings.heartbeat_s, self._audit, self._clock()
            )
        if freed:
            log.warning("lanes of lost workers freed", count=freed)
            self._wake.set()
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.heartbeat_s
        while clock() < until:  # in portions, so that the claims and results of others come between them
            async with self._transaction() as transaction:
                woken = await leases.sweep(transaction, self._clock())
            if not woken:
                break
            self._wake.set()

    async def _listen(self) -> None:
        """Wakes the claims when routing says that lanes are due; without it the fallback interval does."""
        while True:
            try:
                with unavailable_errors():
                    async with self._pool.acquire() as connection:
                        await self._listen_on(connection)
            except UnavailableError:
                log.warning("not listening for notices")
            await asyncio.sleep(OUTAGE_S)

    async def _listen_on(self, connection: Transaction) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()

        def on_loss(*_: object) -> None:
            lost.set()

        def on_notice(*_: object) -> None:
            self._wake.set()

        connection.add_termination_listener(on_loss)
        await connection.add_listener(NOTICES_DUE, on_notice)
        try:
            await lost.wait()
        finally:
            connection.remove_termination_listener(on_loss)
            if not connection.is_closed():
                await connection.remove_listener(NOTICES_DUE, on_notice)

    # -- ending -----------------------------------------------------------------------------------------------

    async def _drain(self, settling: asyncio.Task[None]) -> None:
        """Waits `drain_s` for attempts under way, ends the rest, and records all of it."""
        if self._sending:
            await asyncio.wait(set(self._sending), timeout=self._settings.drain_s)
        self._draining = True
        left = set(self._sending)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        self._ended.set()
        done, _ = await asyncio.wait({settling}, timeout=SETTLE_AFTER_DRAIN_S)
        if not done:
            log.error("results not recorded before the end", count=len(self._results))
            settling.cancel()

    async def _retire(self) -> None:
        try:
            async with asyncio.timeout(OUTAGE_S), self._transaction() as transaction:
                await leases.retire(transaction, self.worker_id)
        except (UnavailableError, TimeoutError):
            return

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        with unavailable_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection
