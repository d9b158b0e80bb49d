"""Owns the recipients of a load: an HTTP server in a process of its own that checks every notice it is sent.

It costs a tenth of what a web framework would, so that it does not compete with what is measured. A notice counts if
its signature is right and it tells the expected recipient, once, of the discharge of a visit that exists.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from array import array
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from typing import cast

import httptools
import msgspec
import uvloop

from tocengine.simulation.load.visits import facility_id, facility_index, number_of

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
KIND, STATUS, LEVEL = "INPATIENT_DISCHARGE", "NEW", "FULL"
RANK = {"INPATIENT_ADMIT": 1, KIND: 2}
"""In which order a visit's notices are told."""


class Received(msgspec.Struct, kw_only=True):
    """What has arrived so far. `arrived` is by visit number, in seconds of the monotonic clock; 0 for nothing."""

    arrived: "array[float]"
    taken: int = 0  # visits
    duplicated: int = 0
    reordered: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)


class _Encounter(msgspec.Struct):
    visit_number: str


class _Data(msgspec.Struct):
    notice_id: str
    kind: str
    status: str
    level: str
    encounter: _Encounter


class _Envelope(msgspec.Struct):
    data: _Data


_decode = msgspec.json.Decoder(_Envelope).decode


class _Book:
    """Checks notices and counts them."""

    def __init__(self, visits: int, secret: bytes, tag: str) -> None:
        self._tag = tag
        self.received = Received(arrived=array("d", bytes(8 * visits)))
        self._secret = secret
        self._ranks = bytearray(visits)

    def take(self, path: bytes, headers: dict[bytes, bytes], body: bytes) -> bytes:
        """The answer to a request."""
        now = time.monotonic()
        problem = self._problem(path, headers, body, now)
        if problem:
            self.received.refused[problem] += 1
            return REFUSED
        return TAKEN

    def _problem(self, path: bytes, headers: dict[bytes, bytes], body: bytes, now: float) -> str:
        notice_id = headers.get(b"webhook-id", b"")
        signed = b".".join((notice_id, headers.get(b"webhook-timestamp", b""), body))
        signature = b"v1," + base64.b64encode(hmac.digest(self._secret, signed, hashlib.sha256))
        if not hmac.compare_digest(headers.get(b"webhook-signature", b""), signature):
            return "signature"
        try:
            data = _decode(body).data
            number = number_of(data.encounter.visit_number)
        except (msgspec.MsgspecError, ValueError):
            return "content"
        if data.notice_id.encode() != notice_id or data.level != LEVEL:
            return "envelope"
        if self._tag not in data.encounter.visit_number or not 0 <= number < len(self._ranks):
            return "another load"
        if path != _path(number):
            return "recipient"
        return self._count(number, data, now)

    def _count(self, number: int, data: _Data, now: float) -> str:
        rank = RANK.get(data.kind, 0)
        if rank < self._ranks[number]:
            self.received.reordered += 1
        if (data.kind, data.status) != (KIND, STATUS):
            return f"{data.status} {data.kind}"
        self._ranks[number] = rank
        if self.received.arrived[number]:
            self.received.duplicated += 1
        else:
            self.received.arrived[number] = now
            self.received.taken += 1
        return ""


def _path(number: int) -> bytes:
    return f"/webhook/{facility_id(facility_index(number))}".encode()


class _Connection(asyncio.Protocol):
    def __init__(self, book: _Book) -> None:
        self._book = book
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # --- what the parser tells us

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._transport.write(self._book.take(self._path, self._headers, b"".join(self._body)))


async def _serve(pipe: "Pipe[Received | int, str]", visits: int, secret: bytes, tag: str) -> None:
    loop = asyncio.get_running_loop()
    book = _Book(visits, secret, tag)
    server = await loop.create_server(lambda: _Connection(book), "127.0.0.1", 0, backlog=512)
    pipe.send(server.sockets[0].getsockname()[1])
    ended = asyncio.Event()

    def asked() -> None:
        try:
            question = pipe.recv()
        except EOFError:
            loop.remove_reader(pipe.fileno())
            ended.set()
            return
        pipe.send(book.received if question == "all" else book.received.taken)

    loop.add_reader(pipe.fileno(), asked)
    await ended.wait()
    server.close()


def serve(pipe: "Pipe[Received | int, str]", visits: int, secret: bytes, tag: str) -> None:
    """Says its port, then answers "taken" with the number of visits told of and "all" with everything."""
    uvloop.run(_serve(pipe, visits, secret, tag))
