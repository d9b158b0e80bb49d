"""Delivery end to end: real PostgreSQL, a real worker, a real HTTP receiver."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.delivery_setting import (
    SETTINGS,
    StaticDirectory,
    clock,
    delivering,
    eventually,
    make_recipient,
    queue,
    receiving,
    webhook,
)
from tests.integration.lanes import all_in, audit_actions, ids, lane, no_lease_left, open_items
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import BackoffSettings
from tocengine.delivery import dead_letters, endpoints
from tocengine.postgres import Pool


async def test_notices_of_a_lane_arrive_in_order_each_once_and_audited(pool: Pool) -> None:
    async with receiving() as receiver:
        lanes = [lane(5) for _ in range(20)]
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        await queue(pool, *(pair for pairs in lanes for pair in pairs[:3]))
        async with delivering(pool, directory, workers=2):
            await queue(pool, *(pair for pairs in lanes for pair in pairs[3:]))
            await eventually(lambda: all_in(pool, "DELIVERED"), "all delivered")
            await eventually(lambda: no_lease_left(pool), "no lease left")
        for pairs in lanes:
            expected = ids(pairs)
            assert [one for one in receiver.arrivals if one in expected] == expected
        assert set(receiver.attempts.values()) == {1}
        assert await audit_actions(pool, lanes[0][0][0].notice_id) == ["ATTEMPT_INTENDED", "ATTEMPT_ENDED"]
        assert await pool.fetchval("select count(*) from lane where due_at is not null") == 0
        rows = await pool.fetch("select outcome, status, count(*) from attempt group by 1, 2")
        assert [tuple(row) for row in rows] == [("delivered", 204, 100)]
        assert await pool.fetchval("select count(*) from delivery_worker") == 0


async def test_a_poisonous_notice_blocks_only_its_lane(pool: Pool) -> None:
    async with receiving() as receiver:
        poisoned, others = lane(2), [lane(1) for _ in range(12)]
        bad = ids(poisoned)[0]
        receiver.answer = lambda notice_id, _: web.Response(status=500 if notice_id == bad else 200)
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        await queue(pool, *poisoned)
        async with delivering(pool, directory):
            await eventually(lambda: receiver.attempts[bad] >= 6, "the poisonous notice tried again and again")
            await queue(pool, *(pair for pairs in others for pair in pairs))
            await eventually(lambda: len(receiver.arrivals) == 12, "all others delivered")
            receiver.answer = lambda *_: web.Response(status=200)
            await eventually(lambda: all_in(pool, "DELIVERED"), "all delivered")
        assert receiver.arrivals[-2:] == ids(poisoned)


async def test_a_receiver_that_was_down_gets_everything_in_order(pool: Pool) -> None:
    async with receiving() as receiver:
        lanes = [lane(3) for _ in range(40)]
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        await receiver.stop()
        await queue(pool, *(pair for pairs in lanes for pair in pairs))
        async with delivering(pool, directory):
            await eventually(
                lambda: pool.fetchval("select count(*) > 30 from lane where waits_for is not null"), "parked"
            )
            await receiver.start()
            await eventually(lambda: all_in(pool, "DELIVERED"), "all delivered")
        for pairs in lanes:
            assert [one for one in receiver.arrivals if one in ids(pairs)] == ids(pairs)
        assert len(receiver.arrivals) == 120
        standing = await pool.fetchrow("select state, not_before, failures from endpoint_state")
        assert standing is not None
        assert tuple(standing) == ("ACTIVE", None, 0)
        # connections were refused: nobody was told before it was delivered
        assert await pool.fetchval("select count(*) from attempt where outcome = 'ambiguous'") == 0


async def test_a_dead_receiver_with_many_lanes_costs_one_probe_at_a_time(pool: Pool) -> None:
    settings = replace(SETTINGS, backoff=BackoffSettings(first_s=0.4, factor=2.0, max_s=2.0, jitter=0.0))
    async with receiving() as receiver:
        receiver.answer = lambda *_: web.Response(status=503)
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        await queue(pool, *(pair for _ in range(200) for pair in lane(1)))
        async with delivering(pool, directory, settings):
            await eventually(lambda: pool.fetchval("select failures >= 7 from endpoint_state"), "two probes failed")
            # those under way before the first failures were recorded, then probes; not one attempt a lane
            assert sum(receiver.attempts.values()) < 200 / 4
            receiver.answer = lambda *_: web.Response(status=200)
            await eventually(lambda: all_in(pool, "DELIVERED"), "all delivered")


async def test_receivers_that_take_half_a_minute_hold_up_nobody_else(pool: Pool) -> None:
    """More of them than could be in the default's attempts at once if they all were given what they ask for."""
    slow = [f"facility:slow{number}" for number in range(6)]
    never = asyncio.Event()

    async def hang(*_: object) -> web.Response:
        await never.wait()
        return web.Response(status=204)

    async with receiving() as hanging, receiving() as prompt:
        hanging.answer = hang
        directory = StaticDirectory(
            make_recipient(webhook(prompt.url)),
            *(
                make_recipient(webhook(hanging.url, f"{name}-hook", timeout_s=30.0), name=name.partition(":")[2])
                for name in slow
            ),
        )
        await queue(pool, *(pair for name in slow for _ in range(20) for pair in lane(1, name)))
        async with delivering(pool, directory):
            await eventually(lambda: sum(hanging.attempts.values()) == 6 * SETTINGS.per_endpoint, "all hang")
            began = clock()
            await queue(pool, *(pair for _ in range(200) for pair in lane(1)))
            await eventually(lambda: len(prompt.arrivals) == 200, "the others are served")
            assert clock() - began < timedelta(seconds=5)
            assert sum(hanging.attempts.values()) == 6 * SETTINGS.per_endpoint
            never.set()
            await eventually(lambda: len(hanging.arrivals) == 120, "and the slow ones when they answer")


async def test_retry_after_rests_that_endpoint_only(pool: Pool) -> None:
    async with receiving() as busy, receiving() as idle:
        busy.answer = lambda *_: web.Response(status=429, headers={"Retry-After": "2"})
        directory = StaticDirectory(
            make_recipient(webhook(busy.url, "busy"), name="sunnyside"),
            make_recipient(webhook(idle.url, "idle"), name="oakhill"),
        )
        await queue(pool, *lane(1), *lane(1, "facility:oakhill"))
        async with delivering(pool, directory):
            await eventually(lambda: len(idle.arrivals) == 1, "the other endpoint served")
            await eventually(lambda: sum(busy.attempts.values()) == 1, "one attempt")
            await eventually(lambda: pool.fetchval("select not_before is not null from endpoint_state"), "resting")
            await queue(pool, *lane(1))
            busy.answer = lambda *_: web.Response(status=200)
            asked = clock()
            await eventually(lambda: len(busy.arrivals) == 2, "both delivered afterwards")
            assert clock() - asked > timedelta(seconds=1.2)


async def test_401_pauses_the_endpoint_until_it_is_resumed(pool: Pool) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda *_: web.Response(status=401)
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        first, second = lane(1), lane(1)
        await queue(pool, *first)
        async with delivering(pool, directory) as running:
            await eventually(lambda: pool.fetchval("select state = 'PAUSED' from endpoint_state"), "endpoint paused")
            await queue(pool, *second)
            receiver.answer = lambda *_: web.Response(status=200)
            await eventually(
                lambda: pool.fetchval("select count(*) = 2 from lane where waits_for is not null and due_at is null"),
                "both lanes wait",
            )
            assert await open_items(pool) == [("ENDPOINT_PAUSED", "sunnyside-ehr")]
            assert sum(receiver.attempts.values()) == 1
            row = await pool.fetchrow("select possibly_told from notice where notice_id = $1", UUID(ids(first)[0]))
            assert row is not None
            assert row["possibly_told"] is False  # a refusal is a certain no
            async with pool.acquire() as connection, connection.transaction():
                before = await endpoints.resume(
                    connection, PostgresAuditTrail(), "sunnyside-ehr", "an operator", clock()
                )
            assert before == "PAUSED"
            await eventually(lambda: all_in(pool, "DELIVERED"), "delivered after the resumption")
            assert await open_items(pool) == []
            assert running.task.done() is False


async def test_a_notice_too_old_for_its_endpoint_gets_one_more_age_for_the_next_that_rests(pool: Pool) -> None:
    """And no more than one, however often it is looked at meanwhile."""
    async with receiving() as receiver:
        directory = StaticDirectory(make_recipient(webhook(receiver.url, "first"), webhook(receiver.url, "second")))
        await pool.execute(
            "insert into endpoint_state (endpoint_id, not_before, changed_at) values ('second', $1, now())",
            clock() + timedelta(hours=1),
        )
        ((notice, snapshot),) = lane(1)
        await queue(pool, (replace(notice, expires_at=clock() - timedelta(seconds=1)), snapshot))

        async def parked() -> bool:
            return bool(await pool.fetchval("select waits_for = 'second' and due_at is null from lane"))

        async with delivering(pool, directory):
            await eventually(parked, "it waits for the second endpoint")
            row = await pool.fetchrow("select endpoint, expires_at from notice")
            assert row is not None
            assert row["endpoint"] == 1
            assert row["expires_at"] > clock() + timedelta(hours=SETTINGS.max_age_h - 1)
            await pool.execute("update notice set expires_at = now()")
            await pool.execute("update lane set due_at = now()")
            await eventually(lambda: all_in(pool, "FAILED"), "it ends")
        assert receiver.requests == []


async def test_the_heart_beats_however_many_lanes_are_to_be_woken(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sweep(*_: object) -> int:
        await asyncio.sleep(SETTINGS.heartbeat_s / 2)
        return 1

    monkeypatch.setattr("tocengine.delivery.leases.sweep", sweep)
    beats: set[object] = set()

    async def has_beaten() -> bool:
        beats.add(await pool.fetchval("select heartbeat_at from delivery_worker"))
        return len(beats - {None}) > 3

    async with delivering(pool, StaticDirectory()):
        await eventually(has_beaten, "beat after beat")


async def test_410_disables_the_endpoint_and_the_next_one_is_used(pool: Pool) -> None:
    async with receiving() as gone, receiving() as second:
        gone.answer = lambda *_: web.Response(status=410)
        directory = StaticDirectory(make_recipient(webhook(gone.url, "gone"), webhook(second.url, "second")))
        pairs = lane(2)
        await queue(pool, *pairs)
        async with delivering(pool, directory):
            await eventually(lambda: all_in(pool, "DELIVERED"), "all delivered")
        assert second.arrivals == ids(pairs)
        assert sum(gone.attempts.values()) == 1
        assert ("ENDPOINT_DISABLED", "gone") in await open_items(pool)


async def test_a_refused_notice_becomes_a_dead_letter_and_is_replayed_under_its_id(pool: Pool) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda *_: web.Response(status=404)
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        pairs = lane(1)
        notice_id = pairs[0][0].notice_id
        await queue(pool, *pairs)
        async with delivering(pool, directory):
            await eventually(lambda: all_in(pool, "FAILED"), "dead")
            assert await open_items(pool) == [("NOTICE_UNDELIVERABLE", str(notice_id))]
            async with pool.acquire() as connection, connection.transaction():
                (letter,) = await dead_letters.list_dead_letters(connection)
                assert (letter.notice_id, letter.reason, letter.http_status) == (notice_id, "REJECTED", 404)
                receiver.answer = lambda *_: web.Response(status=200)
                unknown = uuid4()
                answer = await dead_letters.replay(
                    connection,
                    PostgresAuditTrail(),
                    [notice_id, unknown],
                    "an operator",
                    clock(),
                    timedelta(hours=24),
                )
            assert (answer.replayed, answer.missing) == ([notice_id], [unknown])
            await eventually(lambda: all_in(pool, "DELIVERED"), "delivered")
        assert receiver.attempts == {str(notice_id): 2}
        assert await open_items(pool) == []
        actions = await audit_actions(pool, notice_id)
        assert actions[2:5] == ["NOTICE_DEAD", "NOTICE_REPLAYED", "WORK_ITEM_CLOSED"]


async def test_a_dead_letter_that_was_overtaken_is_not_replayed(pool: Pool) -> None:
    pairs = lane(1)
    notice = pairs[0][0]
    await queue(pool, *pairs)
    await pool.execute("update notice set state = 'FAILED', ended_at = now(), superseded_by = $1", uuid4())
    async with pool.acquire() as connection, connection.transaction():
        answer = await dead_letters.replay(
            connection, PostgresAuditTrail(), [notice.notice_id], "an operator", clock(), timedelta(hours=1)
        )
    assert (answer.replayed, answer.overtaken) == ([], [notice.notice_id])


async def test_the_lanes_of_a_dead_worker_are_freed_and_its_attempts_are_ambiguous(pool: Pool) -> None:
    async with receiving() as receiver:
        never = asyncio.Event()

        async def hang(*_: object) -> web.StreamResponse:
            await never.wait()
            return web.Response(status=200)

        receiver.answer = hang
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        pairs = lane(2)
        await queue(pool, *pairs)
        async with delivering(pool, directory) as running:
            await eventually(lambda: len(receiver.requests) == 1, "an attempt under way")
            await running.kill()
            assert await pool.fetchval("select state from notice where state = 'SENDING'")
            receiver.answer = lambda *_: web.Response(status=200)
            async with delivering(pool, directory):
                await eventually(lambda: all_in(pool, "DELIVERED"), "delivered by the other worker")
        assert receiver.arrivals == ids(pairs)
        never.set()
        first = UUID(ids(pairs)[0])
        rows = await pool.fetch("select outcome, detail from attempt where notice_id = $1 order by number", first)
        assert [tuple(row) for row in rows] == [("ambiguous", "worker lost"), ("delivered", "")]


async def test_the_drain_records_open_attempts_as_ambiguous(pool: Pool) -> None:
    async with receiving() as receiver:
        never = asyncio.Event()

        async def hang(*_: object) -> web.StreamResponse:
            await never.wait()
            return web.Response(status=200)

        receiver.answer = hang
        directory = StaticDirectory(make_recipient(webhook(receiver.url)))
        await queue(pool, *(pair for _ in range(12) for pair in lane(1)))
        settings = replace(SETTINGS, per_endpoint=4)
        async with delivering(pool, directory, settings) as running:
            await eventually(lambda: len(receiver.requests) == 4, "attempts under way")
            await running.stop()
        never.set()
        rows = await pool.fetch("select outcome, detail, count(*) from attempt group by 1, 2")
        assert {tuple(row) for row in rows} == {("ambiguous", "stopped before the answer", 4)}
        assert await all_in(pool, "QUEUED")
        assert await pool.fetchval("select count(*) from notice where possibly_told") == 4
        assert await no_lease_left(pool)
