"""Owns the fairness benchmark: what a bad neighbour does to the acknowledgments and deliveries of everybody else.

One engine, one steady load; it is measured undisturbed and beside each disturbance in turns, so that each has baselines
of its own right before and after it: a machine that others use drifts. The figure is the ratio of the percentiles to
the mean of the two, the median over the rounds: the bar is 2.
"""

import asyncio
import contextlib
import itertools
import os
import statistics
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import msgspec
import typer
from aiohttp import web
from msgspec.structs import replace
from rich.table import Table

from tests.benchmarks import engine
from tocengine.commands.output import stdout as console
from tocengine.eventlog import Topic
from tocengine.eventlog.postgres_progress import PostgresLogProgress
from tocengine.model.directory import Recipient
from tocengine.postgres import Pool
from tocengine.simulation.configuration import Ports
from tocengine.simulation.load import recipients
from tocengine.simulation.load.bench import SETTLE_S, Shape, bench, new_tag
from tocengine.simulation.load.figures import Figures
from tocengine.simulation.load.peers import Peers
from tocengine.simulation.load.senders import Order
from tocengine.simulation.load.visits import FACILITIES, Mix

QUEUED = 100_000
SLOW_S = 30.0
NOBODY = 10**9  # of so many discharges one is told: none
DEAD, SLOW, POISON = range(FACILITIES, FACILITIES + 3)  # facilities of their own
Disturbance = Callable[[], AbstractAsyncContextManager[None]]


def main(
    messages: Annotated[int, typer.Option(help="Discharges of the steady load, each time.")] = 400,
    rate: Annotated[float, typer.Option(help="Its messages per second.")] = 30.0,
    flood: Annotated[int, typer.Option(help="Connections of the overloaded feed, each as fast as answered.")] = 64,
    only: Annotated[str, typer.Option(help="Only the neighbours with this in their name.")] = "",
    rounds: Annotated[int, typer.Option(help="How often each neighbour is measured.")] = 1,
) -> None:
    """Measure what a bad neighbour does to others."""
    rounds_of = asyncio.run(_measure(Shape(messages=messages, rate=rate), flood, only, rounds))
    names = ("ack_p50_ms", "ack_p99_ms", "e2e_p50_ms", "e2e_p99_ms")
    table = Table("beside", *names, "ACK p99, times", "delivery p99, times", "lost, twice, disordered", box=None)
    for name, measured in rounds_of.items():
        apart = [Apart.of(*each) for each in measured]
        figures = [beside for _, beside, _ in measured]
        alone = [figures for before, _, after in measured for figures in (before, after)]
        table.add_row("nobody", *(_median(alone, each) for each in names), "", "", _wrong(alone))
        table.add_row(
            name,
            *(_median(figures, each) for each in names),
            f"{statistics.median(each.ack for each in apart):.2f}",
            f"{statistics.median(each.delivery for each in apart):.2f}",
            _wrong(figures),
        )
    console.print(table)
    console.print(f"load average {os.getloadavg()[0]:.1f} at the end")


class Apart(msgspec.Struct, frozen=True):
    """How many times the p99 of acknowledgments and deliveries beside a neighbour is that without it."""

    ack: float
    delivery: float

    @classmethod
    def of(cls, before: Figures, beside: Figures, after: Figures) -> "Apart":
        """Against the mean of what was measured before and after it."""
        return cls(
            2 * beside.ack_p99_ms / (before.ack_p99_ms + after.ack_p99_ms),
            2 * beside.e2e_p99_ms / (before.e2e_p99_ms + after.e2e_p99_ms),
        )


def _median(measured: Sequence[Figures], name: str) -> str:
    return f"{statistics.median(getattr(each, name) for each in measured):,.1f}"


def _wrong(measured: Sequence[Figures]) -> str:
    return ", ".join(str(sum(getattr(each, name) for each in measured)) for name in ("lost", "duplicated", "reordered"))


async def _measure(
    shape: Shape, flood: int, only: str, rounds: int
) -> Mapping[str, Sequence[tuple[Figures, Figures, Figures]]]:
    measured: dict[str, list[tuple[Figures, Figures, Figures]]] = {}
    ports = Ports.free()
    async with engine.rig(extra=_second_feed(ports.mllp)) as rig, _bad_receiver() as port:
        disturbances: Mapping[str, Disturbance] = {
            "a dead receiver, 100,000 notices queued": partial(_backlog, rig.pool, DEAD, 9, QUEUED, parked=True),
            "a receiver that takes 30 s, 1,000 queued": partial(_backlog, rig.pool, SLOW, port, 1000),
            "a poisonous notice": partial(_backlog, rig.pool, POISON, port, 1),
            "a feed that sends all it can": partial(_flood, rig, ports.mllp, flood),
        }
        chosen = {name: each for name, each in disturbances.items() if only in name}
        visits = shape.messages * (1 + 2 * len(chosen) * rounds)
        async with bench(rig.pool, rig.target(), shape, visits=visits) as load:
            firsts = itertools.count(0, shape.messages)

            async def beside(name: str, disturbance: Disturbance) -> Figures:
                first = next(firsts)
                await load.admit(first, first + shape.messages)
                async with disturbance():
                    figures, _ = await load.measure(first, first + shape.messages)
                console.print(f"{name}: {figures}")
                return figures

            after = await beside("nobody", contextlib.nullcontext)
            for _ in range(rounds):
                for name, disturbance in chosen.items():
                    before, figures = after, await beside(name, disturbance)
                    await _all_routed(rig.pool)
                    after = await beside("nobody", contextlib.nullcontext)
                    measured.setdefault(name, []).append((before, figures, after))
    return measured


async def _all_routed(pool: Pool) -> None:
    """Returns when nothing of a flood is left: it must not disturb the baseline that comes after it."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            seen = await PostgresLogProgress(pool, Topic.EVENTS).look()
            if seen.applied >= seen.appended:
                return
            await asyncio.sleep(0.2)


def _second_feed(port: int) -> str:
    return f"""
[[feeds]]
name = "flood"
facility = "stj"
protocol = "mllp"
listen = "127.0.0.1:{port}"
profile = "stj"
"""


@asynccontextmanager
async def _backlog(pool: Pool, index: int, port: int, queued: int, *, parked: bool = False) -> AsyncIterator[None]:
    """A facility with notices queued, each of another encounter: parked at an endpoint that rests, or due."""
    facility = recipients.facility(index, port, b"nobody's secret at all..")
    await recipients.add(pool, (facility,), datetime.now(UTC))
    await _queue(pool, facility, queued, parked)
    try:
        yield
    finally:
        await pool.execute(
            "update notice set ended_at = now(), state = 'CANCELLED' where recipient_id = $1 and state = 'QUEUED'",
            facility.recipient_id,
        )
        await pool.execute("delete from lane where recipient_id = $1 and lease is null", facility.recipient_id)


async def _queue(pool: Pool, facility: Recipient, queued: int, parked: bool) -> None:
    hook = facility.endpoints[0].id
    if parked:
        await pool.execute(
            "insert into endpoint_state (endpoint_id, not_before, failures, changed_at) "
            "values ($1, now() + interval '2 s', 9, now())",
            hook,
        )
    await pool.execute(
        """
        with pattern as (select * from notice where state = 'DELIVERED' limit 1), made as (
            insert into notice (notice_id, recipient_id, encounter_id, snapshot_id, state, body, created_at, expires_at)
            select gen_random_uuid(), $1, gen_random_uuid(), p.snapshot_id, 'QUEUED', p.body, now(),
                now() + interval '1 day'
            from pattern p, generate_series(1, $2::int)
            returning recipient_id, encounter_id, expires_at
        )
        insert into lane (recipient_id, encounter_id, due_at, waits_for, parked_until)
        select recipient_id, encounter_id, case when not $3 then now() end, case when $3 then $4 end,
            case when $3 then expires_at end
        from made
        """,
        facility.recipient_id,
        queued,
        parked,
        hook,
        timeout=120,
    )
    await pool.execute("analyze lane, notice")


@asynccontextmanager
async def _flood(rig: engine.Rig, port: int, connections: int) -> AsyncIterator[None]:
    """Another hospital's feed, as fast as it is answered; nobody is told of its patients."""
    mix = Mix(tag=new_tag(), told_every=NOBODY, hospital=rig.target().hospital)
    with Peers(1, replace(mix, bundles=False)) as peers:
        order = Order(port=port, first=1, last=1_000_000, discharges=False, connections=connections)
        sending = asyncio.create_task(peers.send(order))
        await asyncio.sleep(1.0)
        try:
            yield
        finally:
            sending.cancel()


@asynccontextmanager
async def _bad_receiver() -> AsyncIterator[int]:
    """The port of a receiver that answers the slow facility after 30 s and the poisonous notice with 500."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith(f"-{SLOW:02d}"):
            await asyncio.sleep(SLOW_S)
            return web.Response(status=204)
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/webhook/{recipient}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    typer.run(main)
