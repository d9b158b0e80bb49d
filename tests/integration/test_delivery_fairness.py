"""What one recipient has queued costs the others nothing: turns, portions, and pages read, counted in PostgreSQL."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import orjson
import pytest

from tests.delivery_setting import clock
from tocengine.delivery import leases, postgres
from tocengine.delivery.postgres import QUERIES
from tocengine.postgres import Pool

HOOK = "hook"
BACKLOG = 30_000


async def queue_lanes(pool: Pool, recipient: str, count: int, *, parked: bool = False, expired: int = 0) -> None:
    """Lanes with one notice each, due or parked; the first notices of `expired` of them have expired."""
    await pool.execute(
        """
        with made as (
            insert into lane (recipient_id, encounter_id, due_at, waits_for, parked_until)
            select $1, gen_random_uuid(), case when not $3 then $4::timestamptz - interval '1 h' end,
                case when $3 then $5 end, $4 + case when n <= $6 then interval '-1 s' else interval '1 h' end
            from generate_series(1, $2::int) as n
            returning recipient_id, encounter_id, parked_until
        )
        insert into notice (notice_id, recipient_id, encounter_id, snapshot_id, state, body, created_at, expires_at)
        select gen_random_uuid(), recipient_id, encounter_id, gen_random_uuid(), 'QUEUED', '', $4, parked_until
        from made
        """,
        recipient,
        count,
        parked,
        clock(),
        HOOK,
        expired,
    )


async def claimed(
    pool: Pool, after: str, *, limit: int = 4, allowances: tuple[Sequence[str], Sequence[int]] = ((), ())
) -> list[str]:
    """The recipients of the lanes that a claim takes."""
    async with pool.acquire() as connection, connection.transaction():
        lanes = await postgres.claim_lanes(
            connection, clock(), uuid4(), uuid4(), allowances, after=after, otherwise=3, limit=limit
        )
    return sorted(lane.recipient_id for lane in lanes)


async def rest(pool: Pool) -> None:
    """The endpoint rests."""
    await pool.execute(
        "insert into endpoint_state (endpoint_id, not_before, changed_at) values ($1, $2, now())",
        HOOK,
        clock() + timedelta(hours=1),
    )


async def test_recipients_take_turns_and_none_takes_more_than_its_allowance(pool: Pool) -> None:
    for recipient, count in (("a", 9), ("b", 5), ("c", 1)):
        await queue_lanes(pool, recipient, count)
    assert await claimed(pool, "") == ["a", "a", "a", "b"]
    assert await claimed(pool, "b") == ["c"]
    assert await claimed(pool, "", allowances=(["a"], [0])) == ["b", "b", "b"]


async def test_each_of_many_recipients_with_allowances_is_served_within_one_round(pool: Pool) -> None:
    names = [f"r{number:03}" for number in range(300)]
    await pool.execute(
        "insert into lane (recipient_id, encounter_id, due_at)"
        " select name, gen_random_uuid(), $2 from unnest($1::text[]) as name, generate_series(1, 30)",
        names,
        clock() - timedelta(minutes=1),
    )
    await pool.execute("analyze lane")
    shuffled = sorted(names, key=lambda name: name[::-1])
    served: list[str] = []
    after = ""
    while len(taken := await claimed(pool, after, limit=128, allowances=(shuffled, [20] * 300))) == 128:
        after = taken[-1]
        served += taken
    assert sorted({*served, *taken}) == names
    assert max(Counter(served + taken).values()) <= 20


async def test_an_endpoint_that_is_back_has_its_lanes_woken_in_portions(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "PORTION", 10)
    await queue_lanes(pool, "a", 25, parked=True)
    async with pool.acquire() as connection:
        assert [await leases.sweep(connection, clock()) for _ in range(4)] == [10, 10, 5, 0]
    assert await pool.fetchval("select count(*) from lane where due_at is not null") == 25


async def test_of_an_endpoint_that_rests_only_lanes_with_an_expired_notice_are_woken(pool: Pool) -> None:
    await rest(pool)
    await queue_lanes(pool, "a", 25, parked=True, expired=7)
    async with pool.acquire() as connection:
        assert [await leases.sweep(connection, clock()) for _ in range(2)] == [7, 0]
    assert await pool.fetchval("select count(*) from lane where due_at is not null and parked_until < now()") == 7


async def test_an_endpoint_rests_on_while_the_lane_that_would_probe_it_is_in_other_hands(pool: Pool) -> None:
    await queue_lanes(pool, "a", 1, parked=True)
    await rest(pool)
    await pool.execute("update endpoint_state set not_before = $1", clock() - timedelta(seconds=1))

    async def probing() -> tuple[bool, bool]:
        """Whether the endpoint rests and a lane is to find out whether it is back."""
        async with pool.acquire() as connection, connection.transaction():
            await postgres.begin_probes(connection, clock(), clock() + timedelta(minutes=1))
        rests = await pool.fetchval("select not_before is not null from endpoint_state")
        return rests, await pool.fetchval("select bool_or(probe) from lane")

    async with pool.acquire() as other, other.transaction():
        await other.execute("update lane set parked_until = parked_until + interval '1 s'")
        assert await probing() == (True, False)
    assert await probing() == (True, True)


async def pages(pool: Pool, name: str, *arguments: object) -> int:
    """The pages that a statement reads, from the cache or not. What it does is undone."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        (plan,) = orjson.loads(
            await connection.fetchval("explain (analyze, buffers, format json) " + QUERIES[name], *arguments)
        )
        await transaction.rollback()
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


async def test_a_backlog_of_one_recipient_is_not_read_to_serve_the_others(pool: Pool) -> None:
    await rest(pool)
    await queue_lanes(pool, "slow", BACKLOG)
    await queue_lanes(pool, "dead", BACKLOG, parked=True)
    await queue_lanes(pool, "z", 20)
    await pool.execute("vacuum analyze lane, notice")
    assert await pages(pool, "claim_lanes", clock(), uuid4(), uuid4(), "", ["slow"], [0], 8, 128) < 400
    assert await pages(pool, "next_due") < 100
    assert await pages(pool, "sweep_parked", clock(), 1000) < 100
    assert await pages(pool, "choose_probes", [HOOK], clock(), 64) < 1000
