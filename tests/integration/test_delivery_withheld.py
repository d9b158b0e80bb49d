"""What must not leave: cancelled, replaced, expired, opted out of, or not to be audited; a real worker and receiver."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import orjson
from aiohttp import web
from msgspec.structs import replace

from tests.delivery_setting import (
    StaticDirectory,
    clock,
    delivering,
    eventually,
    make_notice,
    make_recipient,
    make_snapshot,
    queue,
    receiving,
    states,
    webhook,
)
from tests.integration.lanes import SUNNYSIDE, all_in, audit_actions, ids, lane, open_items
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.delivery import dead_letters
from tocengine.model.directory import ChannelKind, Endpoint
from tocengine.model.encounter import Snapshot, TransitionKind, TransitionStatus
from tocengine.model.facts import known
from tocengine.model.identity import Identifier
from tocengine.model.ids import EndpointId
from tocengine.postgres import Pool


async def test_what_is_cancelled_while_queued_is_not_sent_and_what_is_replaced_is_not_sent_again(
    pool: Pool,
) -> None:
    async with receiving() as receiver:
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        started, go = asyncio.Event(), asyncio.Event()

        async def slow(*_: object) -> web.StreamResponse:
            started.set()
            await go.wait()
            return web.Response(status=500)

        receiver.answer = slow
        under_way, cancelled = lane(1), lane(1)
        await queue(pool, *under_way)
        async with delivering(pool, directory):
            await asyncio.wait_for(started.wait(), 10)
            dropped = (
                "update notice set state = 'CANCELLED', ended_at = now() where state = 'QUEUED' and not possibly_told"
            )
            assert await pool.execute(dropped) == "UPDATE 0"  # the sender was first
            await pool.execute("update notice set superseded_by = $1 where state = 'SENDING'", uuid4())
            go.set()
            await eventually(lambda: all_in(pool, "SUPERSEDED"), "not queued again")
            async with pool.acquire() as connection, connection.transaction():
                # the canceller is first: the lane becomes due only with its notice already gone
                await queue(pool, *cancelled, due_at=clock() + timedelta(seconds=0.5))
                await connection.execute(dropped)
            await eventually(
                lambda: pool.fetchval("select count(*) = 0 from lane where due_at is not null"), "lane done"
            )
        assert sum(receiver.attempts.values()) == 1


async def test_a_claim_never_waits_for_a_canceller(pool: Pool) -> None:
    async with receiving() as receiver:
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        held, other = lane(1), lane(1)
        await queue(pool, *held, *other, due_at=clock() + timedelta(seconds=0.3))
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "update notice set state = 'CANCELLED', ended_at = now() where notice_id = $1",
                held[0][0].notice_id,
            )
            async with delivering(pool, directory) as running:
                await eventually(lambda: receiver.arrivals == ids(other), "the other lane goes on")
                await running.stop()
        async with delivering(pool, directory):
            await eventually(
                lambda: pool.fetchval("select count(*) = 0 from lane where due_at is not null"), "lane done"
            )
        assert receiver.arrivals == ids(other)


async def test_a_cancellation_does_not_go_over_fhir_unless_agreed(pool: Pool) -> None:
    async with receiving() as receiver:
        fhir = Endpoint(id=EndpointId("sun-fhir"), channel=ChannelKind.FHIR, url=f"{receiver.url}/fhir")
        directory = StaticDirectory(make_recipient(fhir))
        snapshot = make_snapshot()
        notice = make_notice(
            snapshot,
            kind=TransitionKind.DISCHARGE_CANCELLED,
            status=TransitionStatus.CANCELLED,
            created_at=clock(),
        )
        await queue(pool, (notice, snapshot))
        async with delivering(pool, directory):
            await eventually(lambda: all_in(pool, "FAILED"), "ended with a reason")
            assert await open_items(pool) == [("CANCELLATION_NOT_SENDABLE", str(notice.notice_id))]
            directory.recipients[notice.recipient_id] = make_recipient(fhir, webhook(receiver.url))
            async with pool.acquire() as connection, connection.transaction():
                await dead_letters.replay(
                    connection, PostgresAuditTrail(), [notice.notice_id], "op", clock(), timedelta(hours=1)
                )
            await eventually(lambda: all_in(pool, "DELIVERED"), "sent over the webhook")
        assert orjson.loads(receiver.requests[0][1])["data"]["kind"] == "DISCHARGE_CANCELLED"


async def test_expired_and_retired(pool: Pool) -> None:
    """Too old is a dead letter with a work item; a recipient no longer in the directory is told nothing."""
    async with receiving() as receiver:
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        old = make_snapshot()
        expired = make_notice(old, created_at=clock() - timedelta(hours=25))
        (retired,) = lane(1, "facility:closed-home")
        await queue(pool, (expired, old), retired)
        async with delivering(pool, directory):
            await eventually(lambda: pool.fetchval("select count(*) = 0 from notice where ended_at is null"), "ended")
        rows = await pool.fetch("select notice_id, state, reason from notice")
        assert {tuple(row) for row in rows} == {
            (expired.notice_id, "FAILED", "MAX_AGE"),
            (retired[0].notice_id, "SUPPRESSED", "NO_RECIPIENT"),
        }
        assert await open_items(pool) == [("NOTICE_UNDELIVERABLE", str(expired.notice_id))]
        assert await audit_actions(pool, retired[0].notice_id) == ["NOTICE_DROPPED"]
        assert receiver.requests == []


async def test_nothing_is_sent_where_the_audit_cannot_be_written(pool: Pool) -> None:
    async with receiving() as receiver:
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        async with delivering(pool, directory):
            pairs = lane(1)
            async with pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute("lock table audit_record in access exclusive mode")
                await queue(pool, *pairs)
                await eventually(
                    lambda: connection.fetchval(
                        "select count(*) > 0 from pg_locks where not granted and relation = 'audit_record'::regclass"
                    ),
                    "the claim waits for the audit",
                )
                assert receiver.requests == []
                await transaction.rollback()
            await eventually(lambda: receiver.arrivals == ids(pairs), "sent once the audit is back")


async def test_an_opt_out_under_a_number_that_was_only_stated_stops_what_waits(pool: Pool) -> None:
    async with receiving() as receiver:
        refused, told = lane(1)[0], lane(1)[0]

        def stating(snapshot: Snapshot, number: str) -> Snapshot:
            stated = (*(known(snapshot.patient.identifiers) or ()), Identifier("STJ", number, "PI"))
            return replace(snapshot, patient=replace(snapshot.patient, identifiers=stated))

        key, owner = told[1].patient_key, uuid4()
        people = (
            "insert into patient (patient_id, domain, value, survivor_id, moved_from, moved_at, updated_at)"
            " values ($1, 'STJ', $2, $3, $4, $5, now())"
        )
        await pool.execute(people, owner, key.value, None, None, None)
        await pool.execute(people, uuid4(), "MOVED", owner, uuid4(), clock())
        await pool.execute(
            "insert into panel_member (recipient_id, domain, value, applied_at)"
            " select 'opt-out:', 'STJ', value, $1 from unnest(array['E99', 'MOVED']) as value",
            clock(),
        )
        await queue(pool, (refused[0], stating(refused[1], "E99")), (told[0], stating(told[1], "MOVED")))
        async with delivering(pool, StaticDirectory(make_recipient(webhook(receiver.url)))):

            async def settled() -> bool:
                found = await states(pool)
                return found == {refused[0].notice_id: "SUPPRESSED", told[0].notice_id: "DELIVERED"}

            await eventually(settled, "the one is dropped and the other sent")


async def test_an_opt_out_stops_what_waits_but_no_cancellation(pool: Pool) -> None:
    async with receiving() as receiver:
        queued = lane(1), lane(1)
        (told, snapshot), (taken_back, other) = queued[0][0], queued[1][0]
        taken_back = replace(taken_back, status=TransitionStatus.CANCELLED)
        key, survivor = snapshot.patient_key, uuid4()
        people = "insert into patient (patient_id, domain, value, survivor_id, updated_at) values ($1, $2, $3, $4, $5)"
        await pool.execute(people, survivor, key.domain, key.value, None, clock())
        await pool.execute(people, uuid4(), key.domain, "an older number", survivor, clock())
        await pool.execute(
            "insert into panel_member (recipient_id, domain, value, applied_at) values ($1, $2, $3, $4)",
            f"opt-out:{SUNNYSIDE}", key.domain, "an older number", clock(),
        )  # fmt: skip
        await queue(pool, (told, snapshot), (taken_back, other))
        async with delivering(pool, StaticDirectory(make_recipient(webhook(receiver.url)))):
            await eventually(lambda: len(receiver.requests) == 1, "the cancellation arrives")

            async def dropped() -> bool:
                return (await states(pool))[told.notice_id] == "SUPPRESSED"

            await eventually(dropped, "the notice is dropped")
        assert [headers["webhook-id"] for headers, _ in receiver.requests] == [str(taken_back.notice_id)]
        assert await pool.fetchval("select reason from notice where notice_id = $1", told.notice_id) == "OPTED_OUT"
        assert await audit_actions(pool, told.notice_id) == ["NOTICE_DROPPED"]
        assert await open_items(pool) == []
        due = await pool.fetch("select encounter_id, kind from encounter_due")
        assert [(row["encounter_id"], row["kind"]) for row in due] == [(told.encounter_id, "TELLING")]
