"""Owns the senders of a load: stop-and-wait, in a process of their own, as fast as they are answered or at a rate.

Latencies count from when a message was due: at an offered rate one that waits for a free sender is late by that.
"""

import asyncio
import time
from array import array
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from typing import cast

import httptools
import msgspec
import uvloop

from tocengine.formats.mllp import END, frame
from tocengine.simulation.load.visits import Mix, Visits

GIVE_UP_S = 60.0
"""How long the senders wait for an answer before the run has failed."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: the admissions or the discharges of the visits `first` to `last` (exclusive)."""

    port: int  # of the MLLP listener, or of the HTTP listener for discharges that are Bundles
    host: str = "127.0.0.1"
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


class _Message(msgspec.Struct, frozen=True):
    number: int  # in the order; -1 for the admission that comes after its discharge
    wire: bytes
    wait_s: float = 0.0


class _Load:
    """Hands out the messages of one order and notes what came of them."""

    def __init__(self, order: Order, visits: Visits) -> None:
        self.order, self.visits = order, visits
        count = order.last - order.first
        self.sent = Sent(due=array("d", bytes(8 * count)), answered=array("d", bytes(8 * count)), answers=Counter())
        self.finished = asyncio.Event()
        self.failure: str = ""
        self.over_http = visits.mix.bundles and order.discharges
        self._next = 0
        self._busy = order.connections
        self._start = 0.0

    def take(self) -> _Message | None:
        """The next message; None when all are taken. Admissions of visits that come too early are left out."""
        number = self._next
        while not self.order.discharges and self.visits.mix.early(self.order.first + number):
            number += 1
        if number >= len(self.sent.due):
            self._busy -= 1
            if not self._busy:
                self.finished.set()
            return None
        self._next = number + 1
        now = time.monotonic()
        self._start = self._start or now
        due = self._start + number / self.order.rate if self.order.rate else now
        self.sent.due[number] = due
        return _Message(number, self._wire(number), due - now)

    def _wire(self, number: int) -> bytes:
        visit = self.order.first + number
        if self.over_http:
            return _request(self.order, self.visits.discharge(visit))
        return frame(self.visits.discharge(visit) if self.order.discharges else self.visits.admission(visit))

    def answered(self, message: _Message, code: str) -> _Message | None:
        """Notes an answer. Returns what has to follow on the same connection: an admission after its discharge."""
        self.sent.answers[code] += 1
        if message.number < 0:
            return None
        self.sent.answered[message.number] = time.monotonic()
        visit = self.order.first + message.number
        if self.order.discharges and self.visits.mix.early(visit):
            return _Message(-1, frame(self.visits.admission(visit)))
        return None

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.finished.set()


def _request(order: Order, body: bytes) -> bytes:
    head = (
        f"POST /fhir/$process-message HTTP/1.1\r\nhost: {order.host}:{order.port}\r\n"
        f"content-type: application/fhir+json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Sender(asyncio.Protocol):
    """One connection: the next message goes when the one before is answered, and is due."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._waiting: _Message | None = None  # for its answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._waiting is not None:
            self._load.fail("the engine closed a connection without an answer")

    def send_next(self) -> None:
        """Sends the next message when it is due."""
        message = self._load.take()
        if message is None:
            self._transport.close()
        elif message.wait_s > 0:
            self._loop.call_later(message.wait_s, self._send, message)
        else:
            self._send(message)

    def _send(self, message: _Message) -> None:
        self._waiting = message
        self._transport.write(message.wire)

    def _answered(self, code: str) -> None:
        message, self._waiting = self._waiting, None
        if message is None:
            self._load.fail("the engine answered what was not asked")
            return
        follows = self._load.answered(message, code)
        if follows is not None:
            self._send(follows)
        else:
            self.send_next()


class _MllpSender(_Sender):
    def __init__(self, load: _Load) -> None:
        super().__init__(load)
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answer.endswith(END):
            answer, self._answer = self._answer, b""
            self._answered(answer.partition(b"\rMSA|")[2][:2].decode("ascii", "replace"))


class _HttpSender(_Sender):
    def __init__(self, load: _Load) -> None:
        super().__init__(load)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._answered(str(self._parser.get_status_code()))


async def _send_all(order: Order, visits: Visits) -> Sent:
    load = _Load(order, visits)
    loop = asyncio.get_running_loop()
    senders: list[_Sender] = []
    kind: type[_Sender] = _HttpSender if load.over_http else _MllpSender
    for _ in range(order.connections):
        _, sender = await loop.create_connection(lambda: kind(load), order.host, order.port)
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


def serve(pipe: "Pipe[Sent | str, Order]", mix: Mix) -> None:
    """Carries out one order after the other; answers with what came of it, or with what went wrong as text."""
    visits = Visits(mix)
    while True:
        try:
            order = pipe.recv()
        except EOFError:  # whoever gave the orders is gone
            return
        try:
            pipe.send(uvloop.run(_send_all(order, visits)))
        except (RuntimeError, OSError) as error:
            pipe.send(str(error))
