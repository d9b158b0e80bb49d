"""Owns how a person hears of trouble: open work items go to the alert webhook, silent feeds become work items.

What is sent names configuration and ids alone: no patient, no content of a message.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog

from tocengine.config import AlertSettings, BackoffSettings
from tocengine.delivery.addresses import ResolveSecret
from tocengine.delivery.channels.base import HttpPoster, classify
from tocengine.delivery.channels.webhook import secret_bytes, signed_headers
from tocengine.delivery.postgres import QUERIES, Row
from tocengine.delivery.retry import Backoff
from tocengine.errors import UnavailableError
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.notice import Outcome
from tocengine.model.work import WorkItem, WorkKind
from tocengine.ports import AuditTrail, Clock, Transaction, WorkItems
from tocengine.postgres import Pool, unavailable_errors
from tocengine.telemetry import Metrics

BATCH = 20
ALERT_TIMEOUT_S = 10.0
LOOK_S = 1.0
"""How often new work items are looked for."""
WATCH_S = 60.0
"""How often feeds are looked at for silence, at most."""

log = structlog.get_logger()


class AlertWorker:
    """Tells each open work item once, with retries, and watches `feeds` for silence."""

    def __init__(
        self,
        pool: Pool,
        poster: HttpPoster,
        resolve: ResolveSecret,
        audit: AuditTrail,
        work_items: WorkItems,
        settings: AlertSettings,
        feeds: Sequence[str],
        metrics: Metrics,
        clock: Clock,
        backoff: BackoffSettings | None = None,
    ) -> None:
        """Raises ConfigurationError or ValueError for a secret that cannot be used."""
        self._pool = pool
        self._poster = poster
        self._audit = audit
        self._work_items = work_items
        self._settings = settings
        self._feeds = list(feeds)
        self._metrics = metrics
        self._clock = clock
        self._backoff = Backoff(backoff or BackoffSettings())
        self._failures = 0
        secret = settings.webhook.secret if settings.webhook else ""
        self._secrets = (secret_bytes(resolve(secret)),) if secret else ()
        self._started = clock()

    async def run(self, stop: asyncio.Event) -> None:
        """Returns soon after `stop` is set."""
        watch_at = self._started
        while not stop.is_set():
            wait_s = LOOK_S
            try:
                if self._settings.silent_feed_minutes > 0 and self._clock() >= watch_at:
                    await self.watch_feeds()
                    watch_at = self._clock() + self._watch_interval()
                wait_s = await self.tell()
            except UnavailableError:
                log.warning("alerts wait for the database")
            try:
                async with asyncio.timeout(wait_s):
                    await stop.wait()
            except TimeoutError:
                continue

    def _watch_interval(self) -> timedelta:
        return timedelta(seconds=min(WATCH_S, self._settings.silent_feed_minutes * 60 / 4))

    async def tell(self) -> float:
        """One round of alerts; returns the seconds to wait before the next. Without a webhook, only counts."""
        with unavailable_errors():
            found = {row["kind"]: row["items"] for row in await self._pool.fetch(QUERIES["open_items"])}
            for kind in WorkKind:  # those of which none is open any more, too
                self._metrics.work_items_open.labels(kind.value).set(found.get(kind.value, 0))
            if self._settings.webhook is None:
                return LOOK_S
            async with self._pool.acquire() as connection, connection.transaction():
                return await self._tell(connection)

    async def _tell(self, transaction: Transaction) -> float:
        """The rows stay locked while they are told, so that no other process tells them too."""
        now = self._clock()
        rows = await transaction.fetch(QUERIES["unalerted_items"], BATCH)
        outcomes = await asyncio.gather(*(self._send(row, now) for row in rows))
        told = [row["work_item_id"] for row, outcome in zip(rows, outcomes, strict=True) if outcome.failure is None]
        if told:
            await transaction.execute(QUERIES["mark_alerted"], told, now)
        if len(told) < len(rows):
            self._failures += 1
            failed = next(one for one in outcomes if one.failure is not None)
            log.error("alert not taken", failure=failed.failure, reason=failed.detail, count=len(rows) - len(told))
            return self._backoff.delay_s(self._failures, 0.0)
        self._failures = 0
        return 0.0 if len(rows) == BATCH else LOOK_S

    async def _send(self, row: Row, now: datetime) -> Outcome:
        assert self._settings.webhook is not None
        headers: Mapping[str, str] = {"content-type": "application/json"}
        body = alert_body(row)
        if self._secrets:
            headers = signed_headers(str(row["work_item_id"]), body, self._secrets, now, {})
        answer = await self._poster.post(self._settings.webhook.url, body, headers, ALERT_TIMEOUT_S, now, read=False)
        return answer if isinstance(answer, Outcome) else classify(answer)

    async def watch_feeds(self) -> None:
        """Opens FEED_SILENT for each feed without a message for the configured time, closes it for the others."""
        now = self._clock()
        silence = timedelta(minutes=self._settings.silent_feed_minutes)
        since = (now - silence - timedelta(days=1)).date()
        with unavailable_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(QUERIES["last_received"], since, self._feeds)
                last = {row["feed"]: row["at"] for row in rows}
                for feed, at in last.items():
                    self._metrics.last_received.labels(feed).set(at.timestamp())
                silent = silent_feeds(self._feeds, last, self._started, now, silence)
                await self._work_items.open(connection, [_silent(feed, now) for feed in silent])
                heard = [feed for feed in self._feeds if feed not in silent]
                closed = await connection.fetch(QUERIES["close_silent_feeds"], heard, now)
                await self._audit.record(connection, [_closed(row, now) for row in closed])


def silent_feeds(
    feeds: Sequence[str],
    last: Mapping[str, datetime],
    started: datetime,
    now: datetime,
    silence: timedelta,
) -> Sequence[str]:
    """The feeds that said nothing for `silence`; one never heard counts from the engine's start. Pure."""
    return [feed for feed in feeds if now - max(last.get(feed, started), started) >= silence]


def alert_body(row: Mapping[str, object] | Row) -> bytes:
    """The JSON of one alert: ids and codes, no PHI."""
    opened_at = row["opened_at"]
    assert isinstance(opened_at, datetime)
    ids = {name: str(row[name]) if row[name] else None for name in ("message_id", "encounter_id", "notice_id")}
    return msgspec.json.encode(
        {
            "type": "alert.work_item",
            "timestamp": opened_at,
            "data": {
                "work_item_id": str(row["work_item_id"]),
                "kind": row["kind"],
                "subject": row["subject"],
                "summary": row["summary"],
                "feed": row["feed"],
                **ids,
            },
        }
    )


def _silent(feed: str, now: datetime) -> WorkItem:
    return WorkItem(
        kind=WorkKind.FEED_SILENT,
        subject=feed,
        summary=f"Feed {feed} has sent nothing for longer than it should",
        opened_at=now,
        feed=feed,
    )


def _closed(row: Row, now: datetime) -> AuditRecord:
    return AuditRecord(
        action=AuditAction.WORK_ITEM_CLOSED,
        at=now,
        detail={"work_item": str(row["work_item_id"]), "feed": row["subject"]},
    )
