"""Owns what is done with a subscription notification beyond its events: how far the subscription was heard, what is
missing, and who is told; and fetching what it only told of.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import msgspec
import structlog

from tocengine.adapters.fhir.event_numbers import Heard, Heeded, heed, restart
from tocengine.adapters.fhir.sources import ResourceServers
from tocengine.errors import UnavailableError
from tocengine.formats.fhir.resources import Resource
from tocengine.formats.fhir.subscriptions import EVENTS, HANDSHAKE, SubscriptionStatus
from tocengine.model.ids import FeedName
from tocengine.model.message import Message
from tocengine.model.work import WorkItem, WorkKind
from tocengine.ports import ClosableWorkItems, Transaction
from tocengine.postgres import CONNECTION_ERRORS, Pool, load_queries
from tocengine.telemetry import Metrics, origin_of

QUERIES = load_queries(__package__)
MAX_URL = 500
_log = structlog.get_logger()
_decode = msgspec.json.Decoder(Heard).decode
Receive = Callable[[bytes], Awaitable[object]]
"""Takes in a Bundle that was asked for, as if its sender had sent it."""


class Subscriptions:
    """The subscriptions of all FHIR feeds."""

    def __init__(self, pool: Pool, work_items: ClosableWorkItems, servers: ResourceServers, metrics: Metrics) -> None:
        self._pool, self._work_items, self._servers, self._metrics = pool, work_items, servers, metrics
        self._asking: set[asyncio.Task[None]] = set()

    async def completed(self, message: Message, bundle: Resource, status: SubscriptionStatus) -> Message:
        """The message with what its events are about, where that is not in it and the feed has a server to ask.

        Its id stays that of what was sent. Raises UnavailableError.
        """
        if not self._servers.has(message.feed):
            return message
        try:
            body = await self._servers.completed(message.feed, bundle, status)
        except TimeoutError:
            raise UnavailableError("the sender's FHIR server takes too long") from None
        return message if body is None else msgspec.structs.replace(message, body=body)

    async def heed(self, feed: FeedName, status: SubscriptionStatus, now: datetime) -> Sequence[tuple[int, int]]:
        """Records how far the subscription was heard; returns the event numbers found missing, as ranges.

        A gap opens a work item, which closes by itself once all have come. Raises UnavailableError.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                found = await self._heed(connection, feed, status, now)
        except CONNECTION_ERRORS as error:
            raise UnavailableError("the subscription's state cannot be kept") from error
        if found.newly_missing:
            count = sum(last - first + 1 for first, last in found.newly_missing)
            self._metrics.fhir_events_missing.labels(feed).inc(count)
            _log.warning("subscription events missing", feed=feed, count=count)
        return found.newly_missing

    async def _heed(
        self, transaction: Transaction, feed: FeedName, status: SubscriptionStatus, now: datetime
    ) -> Heeded:
        subscription = status.subscription[:MAX_URL]
        await transaction.execute(QUERIES["lock_subscription"], f"{feed}|{subscription}")
        stored = await transaction.fetchval(QUERIES["heard"], feed, subscription)
        heard = _decode(stored) if stored is not None else None
        if status.type == HANDSHAKE:
            found = Heeded(restart(status.total, status.status), complete=heard is not None and bool(heard.missing))
        else:
            numbers = status.numbers if status.type == EVENTS else ()
            found = heed(heard, numbers, status.total, status.status)
        await transaction.execute(QUERIES["keep_heard"], feed, subscription, msgspec.json.encode(found.heard), now)
        subject = f"{feed}|{subscription}"
        if found.newly_missing:
            await self._work_items.open(transaction, [_gap(feed, subject, found.newly_missing, now)])
        elif found.complete:
            kind = WorkKind.SUBSCRIPTION_GAP
            await self._work_items.close_subjects(transaction, kind, [subject], "tocengine", "all events came", now)
        return found

    def ask_for(
        self, feed: FeedName, status: SubscriptionStatus, missing: Sequence[tuple[int, int]], receive: Receive
    ) -> None:
        """Asks the sender's server for events that did not come, beside whatever else goes on."""
        if missing and self._servers.has(feed):
            task = asyncio.create_task(self._ask(feed, status.subscription, missing, receive), name="events")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(
        self, feed: FeedName, subscription: str, missing: Sequence[tuple[int, int]], receive: Receive
    ) -> None:
        try:
            for first, last in missing:
                body = await self._servers.events(feed, subscription, first, last)
                if body is not None:
                    await receive(body)
        except Exception as error:  # the work item stays open for a person
            _log.warning("missing events not fetched", feed=feed, **origin_of(error))

    async def drain(self) -> None:
        """Gives what is being asked for a moment to end."""
        if self._asking:
            _, late = await asyncio.wait(set(self._asking), timeout=2.0)
            for task in late:
                task.cancel()


def _gap(feed: FeedName, subject: str, missing: Sequence[tuple[int, int]], now: datetime) -> WorkItem:
    numbers = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in missing[:5])
    return WorkItem(
        kind=WorkKind.SUBSCRIPTION_GAP,
        subject=subject,
        summary=f"Events {numbers} of a subscription of feed {feed} did not arrive: ask its sender for them.",
        opened_at=now,
        feed=feed,
    )
