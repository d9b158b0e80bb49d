"""Merges and moves beside the visits they concern: on two routing processes at once, and in any order of arrival."""

import asyncio
from random import Random

import pytest
from msgspec.structs import replace

from tests.fixtures.visits import ED, INP, Visit
from tests.integration.test_tracker import Engine
from tocengine.model.event import Event, Merge, Move, Rekeying, VisitMerge
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import MessageId, derive
from tocengine.postgres import SERIALIZATION, Pool

NUMBERS = "ABCDE"
VISITS = """
select e.visit_number, e.survivor_id, e.state,
       case when e.state not in ('MERGED', 'NONE') then coalesce(p.survivor_id, p.patient_id) end as owner
from encounter e join patient p using (patient_id) order by e.visit_number
"""
TRIES = 30


def story(choose: Random) -> list[Event]:
    """Visits, merges, moves and new numbers of five patients, every one recorded at its own time."""
    events: list[Event] = []
    for minute in range(choose.randint(12, 20)):
        one, other = choose.sample(NUMBERS, 2)
        clock = f"{9 + minute // 6:02}:{minute % 6}0"
        visit = Visit(f"V{choose.randint(1, 5)}", one)
        prior = PatientKey("STJ", other)
        kind = choose.choice(["visit"] * 5 + ["merge", "merge", "move", "number", "new"])
        if kind == "visit":
            said = visit.event(
                choose.choice(["A01", "A04", "A06", "A08", "A03", "A11"]), clock, choose.choice([ED, INP])
            )
        elif kind == "merge":
            said = visit.statement("A40", clock, merges=(Merge(prior=prior, surviving=visit.patient),))
        elif kind == "new":
            new = VisitMerge(prior=visit.key, surviving=VisitKey("STJ", f"V{choose.randint(1, 5)}"))
            said = replace(visit.statement("A42", clock), rekeying=Rekeying(visits=(new,)))
        else:
            move = Move(prior=prior, surviving=visit.patient, visit=visit.key if kind == "move" else None)
            said = replace(visit.statement("A45", clock), rekeying=Rekeying(moves=(move,)))
        events.append(replace(said, message_id=MessageId(derive("test", str(minute), clock))))
    return events


async def end(pool: Pool) -> tuple[object, ...]:
    """Who is who, what has become of every visit, and whose it is where anything is known of it."""
    people = await pool.fetch("select value, survivor_id, moved_from, moved_at from patient order by value")
    visits = await pool.fetch(VISITS)
    return [tuple(row) for row in people], [tuple(row) for row in visits]


async def clean(pool: Pool) -> None:
    tables = "message_seen, patient, encounter, encounter_event, patient_event, identity_edge, snapshot, transition"
    await pool.execute(f"truncate {tables} cascade")


async def apply(pool: Pool, events: list[Event]) -> None:
    """As a route process does it: a batch that lost a race is run again."""
    for _ in range(TRIES):
        try:
            await Engine(pool).take(*events)
        except SERIALIZATION:
            continue
        return
    raise AssertionError("a batch never got through")


@pytest.mark.parametrize("seed", range(6))
async def test_two_processes_end_where_one_does(pool: Pool, seed: int) -> None:
    choose = Random(seed)
    events = story(choose)
    for event in events:
        await apply(pool, [event])
    expected = await end(pool)
    await clean(pool)
    streams: tuple[list[Event], list[Event]] = ([], [])
    for event in events:  # a patient's messages are on one partition
        streams[event.patient is not None and event.patient.value in "AB"].append(event)

    async def process(stream: list[Event], pace: Random) -> None:
        while stream:
            size = pace.randint(1, 4)
            batch, stream = stream[:size], stream[size:]
            await apply(pool, batch)

    await asyncio.gather(*(process(stream, Random(f"{seed}{n}")) for n, stream in enumerate(streams)))
    assert await end(pool) == expected


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_arrival_ends_the_same(pool: Pool, seed: int) -> None:
    choose = Random(100 + seed)
    events = story(choose)
    for event in events:
        await apply(pool, [event])
    expected = await end(pool)
    await clean(pool)
    choose.shuffle(events)
    while events:
        size = choose.randint(1, 4)
        await apply(pool, events[:size])
        del events[:size]
    assert await end(pool) == expected
