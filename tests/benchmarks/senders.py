"""Owns the load: stop-and-wait MLLP senders in a process of their own, as fast as they are answered or at a given rate.

Latencies count from when a message was due: at an offered rate one that waits for a free sender is late by that.
"""

import asyncio
import time
from array import array
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from typing import cast

import msgspec
import uvloop

from tests.benchmarks.messages import Visits
from tocengine.formats.mllp import END, frame

GIVE_UP_S = 60.0
"""How long the senders wait for an answer before the run has failed."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: the admissions or the discharges of the visits `first` to `last` (exclusive)."""

    port: int
    first: int
    last: int
    discharges: bool = True
    connections: int = 16
    rate: float = 0.0  # messages per second; 0 is as fast as they are answered


class Sent(msgspec.Struct, kw_only=True):
    """What came of it, by message in order: when each was due and answered, in seconds of the monotonic clock."""

    due: "array[float]"
    answered: "array[float]"
    answers: Counter[str]
    cpu_s: float = 0.0


class _Load:
    def __init__(self, order: Order, visits: Visits) -> None:
        self.order = order
        self._write = visits.discharge if order.discharges else visits.admission
        count = order.last - order.first
        self.sent = Sent(due=array("d", bytes(8 * count)), answered=array("d", bytes(8 * count)), answers=Counter())
        self.finished = asyncio.Event()
        self.failure: str = ""
        self._next = 0
        self._busy = order.connections
        self._start = 0.0

    def take(self) -> tuple[int, bytes, float] | None:
        """The next message with its number in the order and when it is due; None when all are taken."""
        number = self._next
        if number >= len(self.sent.due):
            self._busy -= 1
            if not self._busy:
                self.finished.set()
            return None
        self._next += 1
        now = time.monotonic()
        self._start = self._start or now
        due = self._start + number / self.order.rate if self.order.rate else now
        self.sent.due[number] = due
        return number, frame(self._write(self.order.first + number)), due - now

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.finished.set()


class _Sender(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._answer = b""
        self._number = -1  # of the message that waits for its answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(END):
            return
        self._load.sent.answered[self._number] = time.monotonic()
        code = self._answer.partition(b"\rMSA|")[2][:2].decode("ascii", "replace")
        self._load.sent.answers[code] += 1
        self._answer, self._number = b"", -1
        self.send_next()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._number >= 0:
            self._load.fail("the engine closed a connection without an answer")

    def send_next(self) -> None:
        """Sends the next message when it is due."""
        taken = self._load.take()
        if taken is None:
            self._transport.close()
            return
        number, framed, wait_s = taken
        if wait_s > 0:
            self._loop.call_later(wait_s, self._send, number, framed)
        else:
            self._send(number, framed)

    def _send(self, number: int, framed: bytes) -> None:
        self._number = number
        self._transport.write(framed)


async def _send_all(order: Order, visits: Visits) -> Sent:
    load = _Load(order, visits)
    loop = asyncio.get_running_loop()
    senders = []
    for _ in range(order.connections):
        _, sender = await loop.create_connection(lambda: _Sender(load), "127.0.0.1", order.port)
        senders.append(sender)
    began = time.process_time()
    for sender in senders:
        sender.send_next()
    span = len(load.sent.due) / order.rate if order.rate else 0.0
    while not load.finished.is_set():
        answered = load.sent.answers.total()
        try:
            await asyncio.wait_for(load.finished.wait(), GIVE_UP_S)
        except TimeoutError:
            if answered == load.sent.answers.total() and (not span or load.sent.answers.total() < len(load.sent.due)):
                load.fail(f"no answer for {GIVE_UP_S:g} s")
    if load.failure:
        raise RuntimeError(load.failure)
    load.sent.cpu_s = time.process_time() - began
    return load.sent


def serve(pipe: "Pipe[Sent | str, Order]", visits: Visits) -> None:
    """Carries out one order after the other; answers with what came of it, or with what went wrong as text."""
    while True:
        try:
            order = pipe.recv()
        except EOFError:  # whoever gave the orders is gone
            return
        try:
            pipe.send(uvloop.run(_send_all(order, visits)))
        except (RuntimeError, OSError) as error:
            pipe.send(str(error))
