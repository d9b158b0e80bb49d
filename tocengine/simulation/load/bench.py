"""Owns a load on a running engine: admissions before the clock starts, then discharges, and the figures of it all."""

import asyncio
import secrets
import string
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec

from tocengine.errors import UnavailableError
from tocengine.postgres import Pool
from tocengine.simulation.load import recipients, usage
from tocengine.simulation.load.figures import Figures, Run, figures_of
from tocengine.simulation.load.peers import Peers
from tocengine.simulation.load.senders import Order, Sent
from tocengine.simulation.load.target import Machine, Target, postgres_here, routed, stored_bytes
from tocengine.simulation.load.visits import Mix

SETTLE_S = 120.0  # how long notices may take to arrive after the last answer
TRIES, TRY_S = 20, 2.0  # for a first notice, before anything is measured


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How much to send, and how."""

    messages: int = 3000
    connections: int = 16
    rate: float = 0.0  # offered messages per second; 0 is as fast as they are answered
    mix: Mix = Mix()


def new_tag() -> str:
    """What tells the numbers of one load from those of another one: four letters."""
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(4))


class Bench:
    """A load that is going on. Visits are numbered; whoever measures sees to it that none is sent twice."""

    def __init__(self, pool: Pool, target: Target, peers: Peers, machine: Machine, shape: Shape) -> None:
        self._pool, self._target, self.peers, self.machine = pool, target, peers, machine
        self._shape = shape
        self._routed = 0  # messages of the feed that are folded, when all we sent are

    async def warm_up(self, first: int) -> None:
        """Returns when a first notice has arrived. Raises UnavailableError, having used `TRIES` visits from `first`."""
        self._routed = await routed(self._pool, self._target.feed)
        told = [
            number for number in range(first, first + TRIES * self._shape.mix.told_every) if self.peers.mix.told(number)
        ]
        for number in told:
            await self.admit(number, number + 1)
            before = await self.peers.taken()
            await self._send(number, number + 1, connections=1)
            if await self._arrived(before + 1, TRY_S):
                await self._all_routed()
                return
        received = await self.peers.received()
        raise UnavailableError(
            f"no notice arrived of {TRIES} discharges (refused by the receiver: {dict(received.refused)}); "
            "`tocengine trace` says of one what became of it",
        )

    async def admit(self, first: int, last: int) -> None:
        """Loads the admissions of these visits; returns when all are folded. Bundles need none."""
        if not self._target.bundles:
            sent = await self._send(first, last, discharges=False)
            self._routed += sent.answers.total()
            await self._all_routed()

    async def discharge(self, first: int, last: int) -> Sent:
        """Discharges these visits; returns when all notices have arrived, or have not within `SETTLE_S`."""
        before = await self.peers.taken()
        sent = await self._send(first, last, rate=self._shape.rate)
        await self._arrived(before + sum(map(self.peers.mix.told, range(first, last))), SETTLE_S)
        return sent

    async def measure(self, first: int, last: int) -> tuple[Figures, dict[str, float]]:
        """Discharges these visits: figures, and CPU milliseconds per message of each process, the load's own too."""
        stored, before, receiving = await stored_bytes(self._pool), self.machine.usage(), self.peers.receiver_cpu_s()
        sent = await self.discharge(first, last)
        await self._all_routed()
        used = self.machine.usage().since(before)
        run = Run(
            first=first,
            last=last,
            sent=sent,
            received=await self.peers.received(),
            used=used,
            peak_mb=max(map(usage.peak_mb, self.machine.engine_pids()), default=0.0),
            grown_bytes=await stored_bytes(self._pool) - stored,
        )
        spent = used.engine | {"the senders": sent.cpu_s, "the receiver": self.peers.receiver_cpu_s() - receiving}
        each = {name: round(seconds / run.messages * 1000, 2) for name, seconds in spent.items()}
        return figures_of(run, self.peers.mix), each

    async def _send(
        self, first: int, last: int, *, discharges: bool = True, connections: int = 0, rate: float = 0.0
    ) -> Sent:
        order = Order(
            host=self._target.host,
            port=self._target.port,
            first=first,
            last=last,
            discharges=discharges,
            connections=connections or self._shape.connections,
            rate=rate,
        )
        sent = await self.peers.send(order)
        if discharges:
            self._routed += sent.answers.total()
        return sent

    async def _all_routed(self) -> None:
        """Returns when all that was sent is folded: what is measured must not share the cores with what is not."""
        deadline = time.monotonic() + SETTLE_S
        while await routed(self._pool, self._target.feed) < self._routed:
            if time.monotonic() > deadline:
                raise UnavailableError("the messages were not routed in time")
            await asyncio.sleep(0.1)

    async def _arrived(self, visits: int, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while await self.peers.taken() < visits:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


@asynccontextmanager
async def bench(
    pool: Pool, target: Target, shape: Shape, *, visits: int = 0, broker: int | None = None
) -> AsyncIterator[Bench]:
    """A load whose recipients are in the engine's directory for as long as the context is open, and heard already.

    `visits` are the numbers used besides those of the measured run. Raises UnavailableError.
    """
    mix = msgspec.structs.replace(shape.mix, bundles=target.bundles, hospital=target.hospital, tag=new_tag())
    used = shape.messages + visits
    machine = Machine(target, await postgres_here(pool), broker)
    with Peers(used + TRIES * (mix.told_every + 1), mix) as peers:
        told = recipients.all_of(peers.port, peers.secret)
        await recipients.add(pool, told, datetime.now(UTC))
        try:
            made = Bench(pool, target, peers, machine, shape)
            await made.warm_up(used)
            yield made
        finally:
            await recipients.retire(pool, frozenset(each.recipient_id for each in told), datetime.now(UTC))
