"""Owns one sender's connection: when to read, when to write and when to give up, around its pure session."""

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, cast

import structlog

from tocengine.adapters.mllp.admission import Closed
from tocengine.adapters.mllp.pins import is_pinned
from tocengine.adapters.mllp.session import Arrival, Session
from tocengine.errors import UnavailableError
from tocengine.formats.mllp import Broken, Frame
from tocengine.telemetry import origin_of

if TYPE_CHECKING:
    from tocengine.adapters.mllp.server import MllpServer

_log = structlog.get_logger()
DOUBTED: Final = 5  # times as long is waited where the end stands in mid-segment: a lost packet is back by then


class Connection(asyncio.Protocol):
    """One sender. Reads only as fast as messages become durable and answers are taken."""

    def __init__(self, server: "MllpServer", peer: str) -> None:
        """`peer` is the sender's address. The connection counts from now, before TLS has been spoken."""
        self._server = server
        settings = server.settings
        self._session = Session(settings.max_frame_bytes, settings.max_in_flight, commit_blocks=settings.commit_blocks)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._writable, self._reading = True, True
        self.peer = peer
        self.useful = False
        """It has sent a message."""
        now = self._loop.time()
        self._last_data = self._last_sign = self._frame_since = self._stuck_since = now
        self._junk_counted = 0

    # --- what the transport tells us ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A sender connected, and TLS stands where it is wanted."""
        self._transport = cast(asyncio.Transport, transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None and not is_pinned(tls.getpeercert(True), self._server.pins):
            self._give_up(Closed.CERTIFICATE)
            return
        _log.info("sender_connected", feed=self._server.settings.name, peer=self.peer)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._open.is_closing():
            return
        now = self._loop.time()
        unfinished = self._session.in_frame
        completed = self._session.receive(data)
        self._last_data = now
        if self._session.busy:
            self._last_sign = now
        if completed or not unfinished:
            self._frame_since = now
        self._proceed()

    def eof_received(self) -> bool:
        """The sender will send no more; it may still read what we owe it, unless TLS ended with it."""
        self._session.end(Broken.CUT_OFF)
        self._proceed()
        return self._open.get_extra_info("ssl_object") is None and not self._session.finished

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone. What is being stored is stored; nobody is there to be answered."""
        self._lost = True
        self._session.end(Broken.CUT_OFF)
        self._proceed()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """The sender does not read its answers."""
        self._writable = False
        self._stuck_since = self._loop.time()
        self._choose_to_read()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._proceed()

    # --- what the server tells us ---

    @property
    def in_flight(self) -> int:
        """Its messages that have begun and are not answered."""
        return self._session.in_flight

    @property
    def opened(self) -> bool:
        """A transport carries it."""
        return self._transport is not None

    def stop(self) -> None:
        """Answers what was received whole, then closes."""
        self._session.stop()
        if self._transport is not None:
            self._proceed()

    def abort(self) -> None:
        """Closes now, without another answer."""
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def look_at_the_clock(self, now: float) -> None:
        """Enforces the limits of time: an unfinished frame, answers not taken, silence."""
        settings, session = self._server.settings, self._session
        if self._transport is None:
            return  # the handshake has its own limit
        self._choose_to_read()
        if not self._writable:
            if now - self._stuck_since > settings.frame_timeout_s:
                self._give_up(Closed.ANSWERS_NOT_READ)
        elif session.awaits_return and self._reading and now - self._last_data > self._settles_after():
            session.settle()
            self._proceed()
        elif session.in_frame and self._reading and now - self._frame_since > settings.frame_timeout_s:
            session.end(Broken.TIMED_OUT)
            self._proceed()
        elif session.idle and now - self._last_sign > settings.idle_timeout_s:
            self._give_up(Closed.IDLE)

    def _settles_after(self) -> float:
        """Seconds of silence after which a frame without its final CR is complete."""
        return self._server.settle_s * (DOUBTED if self._session.doubts_end else 1)

    # --- the work ---

    @property
    def _open(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("the connection is not open yet")
        return self._transport

    def _proceed(self) -> None:
        """Begins what may begin, sends what may be sent, and closes or reads on."""
        answers = self._session.to_write()
        if answers and not self._lost:
            self._open.write(answers)
            self._last_sign = self._loop.time()
        if self._writable or self._lost:  # what came whole is taken, even if nobody is left to be told
            self._begin()
        self._count_junk()
        self._server.hold(self, self._session.held_bytes)
        if self._lost:
            return
        if self._session.finished:
            self._open.close()
        else:
            self._choose_to_read()

    def _begin(self) -> None:
        for arrival in self._session.start():
            task = self._loop.create_task(self._take(arrival))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _take(self, arrival: Arrival) -> None:
        item = arrival.item
        feed = self._server.feed
        try:
            if isinstance(item, Frame):
                answer = await feed.take(item.payload, self.peer, line=self)
            else:
                answer = await feed.take_broken(item, self.peer)
        except UnavailableError:
            _log.warning("message_not_stored", feed=self._server.settings.name, peer=self.peer)
            self._session.not_stored(arrival.number)
        except Exception as error:  # whatever it was, the message may not be durable: no answer
            _log.error("message_failed", feed=self._server.settings.name, peer=self.peer, **origin_of(error))
            self._session.not_stored(arrival.number)
        else:
            self.useful = self.useful or answer.readable
            self._session.answered(arrival.number, answer.body, readable=answer.readable)
        self._proceed()

    def _choose_to_read(self) -> None:
        """Backpressure: not reading is the one honest way to slow a sender down."""
        if self._lost or self._open.is_closing():
            return
        wanted = self._writable and self._session.wants_data and self._server.may_grow(self)
        if wanted and not self._reading:
            self._open.resume_reading()
            self._last_data = self._frame_since = self._loop.time()  # it could not go on while we did not read
        elif not wanted and self._reading:
            self._open.pause_reading()
        self._reading = wanted

    def _give_up(self, reason: Closed) -> None:
        self._server.count_closed(reason, self.peer)
        self._open.abort()

    def _count_junk(self) -> None:
        if self._session.junk_bytes > self._junk_counted:
            self._junk_counted = self._session.junk_bytes
            self._server.metrics.frames_broken.labels(self._server.settings.name, "junk").inc()
            _log.warning("junk_received", feed=self._server.settings.name, peer=self.peer)
