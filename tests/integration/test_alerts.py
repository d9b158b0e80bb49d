"""Alerts: each open work item is told once, with retries; a silent feed becomes a work item and closes by itself."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import orjson
from aiohttp import web
from standardwebhooks import Webhook

from tests.delivery_setting import SECRET_TEXT, InsertedWorkItems, clock, eventually, receiving
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import AlertSettings, AlertWebhook, BackoffSettings
from tocengine.delivery.alerts import AlertWorker
from tocengine.delivery.channels.base import HttpPoster
from tocengine.delivery.networks import NetworkGuard
from tocengine.model.work import WorkItem, WorkKind
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics


def worker(pool: Pool, poster: HttpPoster, settings: AlertSettings) -> AlertWorker:
    return AlertWorker(
        pool,
        poster,
        lambda reference: reference,
        PostgresAuditTrail(),
        InsertedWorkItems(),
        settings,
        ["stj-adt", "oak-adt"],
        Metrics(),
        clock,
        BackoffSettings(first_s=0.05, max_s=0.1, jitter=0.0),
    )


async def test_a_work_item_is_told_once_signed_and_retried(pool: Pool) -> None:
    async with receiving() as receiver, HttpPoster(NetworkGuard(["127.0.0.0/8"])) as poster:
        receiver.answer = lambda *_: web.Response(status=503)
        item = WorkItem(kind=WorkKind.ENDPOINT_PAUSED, subject="e1", summary="Paused", opened_at=clock())
        async with pool.acquire() as connection, connection.transaction():
            await InsertedWorkItems().open(connection, [item])
        stop = asyncio.Event()
        settings = AlertSettings(webhook=AlertWebhook(url=receiver.url, secret=SECRET_TEXT))
        task = asyncio.create_task(worker(pool, poster, settings).run(stop))
        await eventually(lambda: len(receiver.requests) >= 2, "tried again")
        receiver.answer = lambda *_: web.Response(status=200)
        await eventually(
            lambda: pool.fetchval("select count(*) = 1 from work_item where alerted_at is not null"), "told"
        )
        stop.set()
        await asyncio.wait_for(task, 5)
        assert receiver.arrivals == [str(item.work_item_id)]
        headers, body = receiver.requests[-1]
        Webhook(SECRET_TEXT).verify(body, dict(headers))
        assert orjson.loads(body)["data"]["kind"] == "ENDPOINT_PAUSED"


async def test_the_gauge_of_open_items_falls_back_to_zero(pool: Pool) -> None:
    async with HttpPoster(NetworkGuard()) as poster:
        alerts = worker(pool, poster, AlertSettings())
        item = WorkItem(kind=WorkKind.ENDPOINT_PAUSED, subject="e1", summary="Paused", opened_at=clock())
        async with pool.acquire() as connection, connection.transaction():
            await InsertedWorkItems().open(connection, [item])
        gauge = alerts._metrics.work_items_open.labels("ENDPOINT_PAUSED")
        await alerts.tell()
        assert gauge._value.get() == 1
        await pool.execute("update work_item set closed_at = now(), closed_by = 'user:test'")
        await alerts.tell()
        assert gauge._value.get() == 0


async def test_silent_feeds(pool: Pool) -> None:
    async with HttpPoster(NetworkGuard()) as poster:
        alerts = worker(pool, poster, AlertSettings(silent_feed_minutes=0.0001))
        await eventually(lambda: clock() - alerts._started > timedelta(seconds=0.01), "some silence")
        await alerts.watch_feeds()
        await alerts.watch_feeds()
        open_ = "select subject from work_item where kind = 'FEED_SILENT' and closed_at is null order by 1"
        assert [row["subject"] for row in await pool.fetch(open_)] == ["oak-adt", "stj-adt"]
        await pool.execute(
            "insert into message_seen (day, message_id, revision, part, feed, control_id, trigger, answered,"
            " received_at, disposition) values ($1, $2, 0, 0, 'stj-adt', '1', 'A01', 'CA', $3, 'TRACKED')",
            clock().date(),
            uuid4(),
            clock() + timedelta(minutes=1),
        )
        await alerts.watch_feeds()
        assert [row["subject"] for row in await pool.fetch(open_)] == ["oak-adt"]
        assert await pool.fetchval("select count(*) from audit_record where action = 'WORK_ITEM_CLOSED'") == 1
