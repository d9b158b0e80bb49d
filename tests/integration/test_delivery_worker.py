"""Delivery end to end: real PostgreSQL, a real worker, a real HTTP receiver."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.delivery_setting import (
    SETTINGS,
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
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import BackoffSettings
from tocengine.delivery import dead_letters, endpoints
from tocengine.model.directory import ChannelKind, Endpoint
from tocengine.model.encounter import Snapshot, TransitionKind, TransitionStatus
from tocengine.model.facts import known
from tocengine.model.identity import Identifier
from tocengine.model.ids import EndpointId
from tocengine.model.notice import Notice
from tocengine.postgres import Pool

SUNNYSIDE = "facility:sunnyside"


def lane(count: int, recipient: str = SUNNYSIDE) -> list[tuple[Notice, Snapshot]]:
    """`count` notices about one encounter."""
    encounter = uuid4()
    pairs = []
    for _ in range(count):
        snapshot = make_snapshot(encounter)
        pairs.append((make_notice(snapshot, recipient, created_at=clock()), snapshot))
    return pairs


def ids(pairs: list[tuple[Notice, Snapshot]]) -> list[str]:
    return [str(notice.notice_id) for notice, _ in pairs]


async def all_in(pool: Pool, state: str) -> bool:
    return set((await states(pool)).values()) == {state}


async def audit_actions(pool: Pool, notice_id: UUID) -> list[str]:
    rows = await pool.fetch("select action from audit_record where notice_id = $1 order by audit_id", notice_id)
    return [row["action"] for row in rows]


async def open_items(pool: Pool) -> list[tuple[str, str]]:
    rows = await pool.fetch("select kind, subject from work_item where closed_at is null order by opened_at")
    return [(row["kind"], row["subject"]) for row in rows]


async def no_lease_left(pool: Pool) -> bool:
    return not await pool.fetchval("select count(*) from lane where lease is not null")


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
