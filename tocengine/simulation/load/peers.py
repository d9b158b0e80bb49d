"""Owns the processes of a load's senders and of its receiver, as whoever measures talks to them."""

import asyncio
import multiprocessing
import secrets
from typing import Self

from tocengine.errors import UnavailableError
from tocengine.simulation.load import receiver, senders, usage
from tocengine.simulation.load.visits import Mix


class Peers:
    """The senders' and the receiver's processes, running while the context is open."""

    def __init__(self, visits: int, mix: Mix) -> None:
        self.mix = mix
        self.secret = secrets.token_bytes(24)
        spawn = multiprocessing.get_context("spawn")
        self._book, far = spawn.Pipe()
        self._receiver = spawn.Process(target=receiver.serve, args=(far, visits, self.secret, mix.tag), daemon=True)
        self._orders, far_orders = spawn.Pipe()
        self._senders = spawn.Process(target=senders.serve, args=(far_orders, mix), daemon=True)
        self.port = 0  # of the receiver

    def __enter__(self) -> Self:
        self._receiver.start()
        self._senders.start()
        self.port = int(self._book.recv())
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._senders, self._receiver):
            process.terminate()
            process.join()

    async def send(self, order: senders.Order) -> senders.Sent:
        """Raises UnavailableError where the engine did not answer, or answered no."""
        self._orders.send(order)
        sent = await asyncio.to_thread(self._orders.recv)
        if isinstance(sent, str):
            raise UnavailableError(sent)
        assert isinstance(sent, senders.Sent)
        if set(sent.answers) - {"AA", "CA", "202"}:
            raise UnavailableError(f"the engine did not take every message: {dict(sent.answers)}")
        return sent

    def receiver_cpu_s(self) -> float:
        """What the receiver has used so far."""
        assert self._receiver.pid is not None
        return usage.own_cpu_s(self._receiver.pid)

    async def taken(self) -> int:
        """Visits that a notice has arrived of."""
        self._book.send("taken")
        return int(await asyncio.to_thread(self._book.recv))

    async def received(self) -> receiver.Received:
        """Everything the receiver knows."""
        self._book.send("all")
        received = await asyncio.to_thread(self._book.recv)
        assert isinstance(received, receiver.Received)
        return received
