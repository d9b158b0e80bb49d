"""Owns the fairness benchmark: what a bad neighbour does to the acknowledgments and deliveries of everybody else.

One engine, one steady load; it is measured undisturbed, then beside each disturbance, then undisturbed again. The ratio
of the percentiles to the quieter of the two is the figure: the bar is 2.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from aiohttp import web
from msgspec.structs import replace
from rich.table import Table

from tests.benchmarks import engine
from tocengine.commands.output import stdout as console
from tocengine.model.directory import Recipient
from tocengine.postgres import Pool
from tocengine.simulation.configuration import Ports
from tocengine.simulation.load import recipients
from tocengine.simulation.load.bench import Shape, bench, new_tag
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
    flood: Annotated[int, typer.Option(help="Connections of the overloaded feed, each as fast as answered.")] = 16,
) -> None:
    """Measure what a bad neighbour does to others."""
    measured = asyncio.run(_measure(Shape(messages=messages, rate=rate), flood))
    names = ("ack_p50_ms", "ack_p99_ms", "e2e_p50_ms", "e2e_p99_ms")
    table = Table("beside", *names, "ACK p99, times", "delivery p99, times", "lost, twice, disordered", box=None)
    quiet = min((measured["nobody"], measured["nobody, again"]), key=lambda figures: figures.ack_p99_ms)
    for name, figures in measured.items():
        table.add_row(
            name,
            *(f"{getattr(figures, each):,.1f}" for each in names),
            f"{figures.ack_p99_ms / quiet.ack_p99_ms:.2f}",
            f"{figures.e2e_p99_ms / quiet.e2e_p99_ms:.2f}",
            f"{figures.lost}, {figures.duplicated}, {figures.reordered}",
        )
    console.print(table)


async def _measure(shape: Shape, flood: int) -> Mapping[str, Figures]:
    measured: dict[str, Figures] = {}
    ports = Ports.free()
    async with engine.rig(extra=_second_feed(ports.mllp)) as rig, _bad_receiver() as port:
        disturbances: Mapping[str, Disturbance] = {
            "nobody": contextlib.nullcontext,
            "a dead receiver, 100,000 notices queued": partial(_backlog, rig.pool, DEAD, 9, QUEUED, parked=True),
            "a receiver that takes 30 s, 1,000 queued": partial(_backlog, rig.pool, SLOW, port, 1000),
            "a poisonous notice": partial(_backlog, rig.pool, POISON, port, 1),
            "a feed that sends all it can": partial(_flood, rig, ports.mllp, flood),
            "nobody, again": contextlib.nullcontext,
        }
        visits = shape.messages * len(disturbances)
        async with bench(rig.pool, rig.target(), shape, visits=visits) as load:
            for index, (name, disturbance) in enumerate(disturbances.items()):
                first = index * shape.messages
                await load.admit(first, first + shape.messages)
                async with disturbance():
                    measured[name], _ = await load.measure(first, first + shape.messages)
                console.print(f"{name}: {measured[name]}")
    return measured


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
