"""Owns one HTTP/1.1 connection: a request is written whole, its answer read up to a limit and within a time.

A client of its own because a notice is one small POST to a receiver that is asked often: a general client costs four
times the CPU of it. The answers are read by llhttp (httptools).
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

ANSWER_LIMIT = 64 * 1024
"""Bytes of an answer that are read, head and body; what a receiver sends beyond that is not looked at."""
DRAIN_S = 1.0
"""How long the rest of an answer nobody needs may take before its connection is given up."""


class BrokenAnswerError(ConnectionError):
    """What came back is no HTTP/1.1 answer. A connection that ends before the answer is a ConnectionError as well."""


class Received(msgspec.Struct, frozen=True):
    """An answer. `body` is None where it was not complete within the limits."""

    status: int
    retry_after: str | None
    body: bytes | None


class HttpConnection(asyncio.Protocol):
    """A connection and the one exchange that may be under way on it. `on_close` is called once it cannot be used."""

    def __init__(self, on_close: Callable[["HttpConnection"], None]) -> None:
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[Received] | None = None
        self._whole = False  # the last answer was read to its end, and another request may follow it
        self.closed = False
        self._begin()

    async def exchange(self, request: bytes, timeout_s: float, *, read: bool) -> Received:
        """Sends `request` and returns its answer; with `read` False its body is not waited for long.

        Raises TimeoutError and ConnectionError where no status came. The connection is closed unless it can be used
        again.
        """
        self._begin()
        self._read = read
        self._done = self._loop.create_future()
        self._timer = self._loop.call_later(timeout_s, self._late)
        try:
            self._transport.write(request)
            return await self._done
        finally:
            self._timer.cancel()
            self._done = None
            if not self._whole or self._transport.get_write_buffer_size():
                self.close()

    def close(self) -> None:
        """Ends the connection at once."""
        if not self.closed:
            self.closed = True
            self._transport.abort()
            self._on_close(self)

    def _begin(self) -> None:
        self._status = self._size = 0
        self._retry_after: str | None = None
        self._delimited = self._whole = self._stray = False
        self._body = bytearray()

    def _end(self, body: bytes | None, otherwise: Exception) -> None:
        """The exchange is over: with an answer where there is a status, else with `otherwise`."""
        if self._done is None or self._done.done():
            return
        if self._status:
            self._done.set_result(Received(self._status, self._retry_after, body))
        else:
            self._done.set_exception(otherwise)

    def _late(self) -> None:
        self._end(None, TimeoutError())

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        if self._done is None or self._done.done():  # nobody asked
            self.close()
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._whole = False
            self._end(None, BrokenAnswerError("broken answer"))
        if self._size > ANSWER_LIMIT:
            self._end(None, BrokenAnswerError("the head is too long"))

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        whole = error is None and not self._delimited  # its body ends with the connection
        self._whole = False
        self._end(bytes(self._body) if whole else None, ConnectionError("connection lost"))
        self.close()

    # --- what the parser tells us

    def on_message_begin(self) -> None:
        """Part of httptools: the answer begins, or what follows an interim one, or one that nobody asked for."""
        self._stray = bool(self._status)
        self._retry_after = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools."""
        name = name.lower()
        if name == b"retry-after":
            self._retry_after = value.decode("latin-1")
        elif name in (b"content-length", b"transfer-encoding"):
            self._delimited = True

    def on_headers_complete(self) -> None:
        """Part of httptools. Interim answers (1xx) are passed over."""
        status = self._parser.get_status_code()
        if status < 200 or self._stray:
            return
        self._status = status
        if not self._read:
            self._timer.cancel()
            self._timer = self._loop.call_later(min(DRAIN_S, self._timer.when() - self._loop.time()), self._late)

    def on_body(self, body: bytes) -> None:
        """Part of httptools."""
        if len(self._body) <= ANSWER_LIMIT:
            self._body += body

    def on_message_complete(self) -> None:
        """Part of httptools."""
        if not self._status:
            return
        small = self._size <= ANSWER_LIMIT
        self._whole = small and not self._stray and self._parser.should_keep_alive()
        self._end(bytes(self._body) if small else None, BrokenAnswerError())
