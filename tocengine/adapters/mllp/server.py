"""Owns the MLLP listener: sockets, time limits and TLS around the pure session of each connection."""

import asyncio
import socket
import ssl
from typing import Final, cast

import structlog

from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.mllp.session import Arrival, Session
from tocengine.config import FeedSettings, TlsSettings, listen_address
from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.formats.mllp import Broken, Frame
from tocengine.telemetry import Metrics, origin_of

_log = structlog.get_logger()
DRAIN_S: Final = 8.0


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """The TLS context of a listener: 1.2 at least, client certificates demanded where `client_ca` is set.

    Raises ConfigurationError where a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "the TLS certificate, key or client CA cannot be used", file=str(settings.certfile), hint=str(error)
        ) from error
    return context


class MllpServer:
    """The listener of one feed."""

    def __init__(
        self,
        settings: FeedSettings,
        feed: HL7Feed,
        metrics: Metrics,
        *,
        settle_s: float = 1.0,
        tick_s: float = 0.25,
    ) -> None:
        """`settle_s`: silence after which a frame without its final CR is complete; `tick_s`: how often limits
        are looked at."""
        self.settings = settings
        self.feed = feed
        self.metrics = metrics
        self.settle_s = settle_s
        self.connections: set[Connection] = set()
        self._tick_s = tick_s
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._nobody_left = asyncio.Event()
        self._draining = False

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else 0

    async def start(self) -> None:
        """Listens. Raises ConfigurationError where the address or TLS files cannot be used."""
        host, port = listen_address(self.settings.listen)
        context = tls_context(self.settings.tls) if self.settings.tls else None
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self),
                host or None,
                port,
                ssl=context,
                ssl_handshake_timeout=self.settings.frame_timeout_s if context else None,
                backlog=512,
            )
        except OSError as error:
            raise ConfigurationError(
                f"feed {self.settings.name!r} cannot listen on {self.settings.listen}", hint=error.strerror or ""
            ) from error
        self._ticking = loop.call_later(self._tick_s, self._tick)
        _log.info("feed_listening", feed=self.settings.name, listen=f"{host}:{self.port}")

    async def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Stops accepting, answers what was received whole, and closes; what is left after `timeout_s` is cut off
        without an answer."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.stop()
        if self.connections:
            try:
                await asyncio.wait_for(self._nobody_left.wait(), timeout_s)
            except TimeoutError:
                _log.warning("drain_cut_short", feed=self.settings.name, count=len(self.connections))
                for connection in list(self.connections):
                    connection.abort()
        if self._ticking is not None:
            self._ticking.cancel()

    def admit(self, connection: "Connection") -> bool:
        """False where the connection would be one too many."""
        if self._draining or len(self.connections) >= self.settings.max_connections:
            reason = "draining" if self._draining else "limit"
            self.metrics.connections_refused.labels(self.settings.name, reason).inc()
            return False
        self.connections.add(connection)
        self.metrics.connections.labels(self.settings.name).set(len(self.connections))
        return True

    def forget(self, connection: "Connection") -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        self.metrics.connections.labels(self.settings.name).set(len(self.connections))
        if self._draining and not self.connections:
            self._nobody_left.set()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self.connections):
            connection.look_at_the_clock(now)
        self._ticking = loop.call_later(self._tick_s, self._tick)


class Connection(asyncio.Protocol):
    """One sender. Reads only as fast as messages become durable and answers are taken."""

    def __init__(self, server: MllpServer) -> None:
        self._server = server
        settings = server.settings
        self._session = Session(settings.max_frame_bytes, settings.max_in_flight)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._admitted = self._lost = False
        self._writable, self._reading = True, True
        self._peer = ""
        now = self._loop.time()
        self._last_data = self._last_sign = self._frame_since = self._stuck_since = now
        self._junk_counted = 0

    # --- what the transport tells us ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A sender connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._admitted = self._server.admit(self)
        if not self._admitted:
            self._transport.abort()
            return
        peer = self._transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _log.info("sender_connected", feed=self._server.settings.name, peer=self._peer)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if not self._admitted:
            return
        now = self._loop.time()
        unfinished = self._session.in_frame
        completed = self._session.receive(data)
        self._last_data = self._last_sign = now
        if completed or not unfinished:
            self._frame_since = now
        self._proceed()

    def eof_received(self) -> bool:
        """The sender will send no more; it may still read what we owe it, unless TLS ended with it."""
        if not self._admitted:
            return False
        self._session.end(Broken.CUT_OFF)
        self._proceed()
        return self._transport.get_extra_info("ssl_object") is None and not self._session.finished

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone. What is being stored is stored; nobody is there to be answered."""
        self._lost = True
        if not self._admitted:
            return
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

    def stop(self) -> None:
        """Answers what was received whole, then closes."""
        self._session.stop()
        self._proceed()

    def abort(self) -> None:
        """Closes now, without another answer."""
        for task in self._tasks:
            task.cancel()
        self._transport.abort()

    def look_at_the_clock(self, now: float) -> None:
        """Enforces the limits of time: an unfinished frame, answers not taken, silence."""
        settings, session = self._server.settings, self._session
        if not self._writable:
            if now - self._stuck_since > settings.frame_timeout_s:
                self._give_up("answers_not_read")
        elif session.awaits_return and self._reading and now - self._last_data > self._server.settle_s:
            session.settle()
            self._proceed()
        elif session.in_frame and self._reading and now - self._frame_since > settings.frame_timeout_s:
            session.end(Broken.TIMED_OUT)
            self._proceed()
        elif session.idle and now - self._last_sign > settings.idle_timeout_s:
            self._give_up("idle")

    # --- the work ---

    def _proceed(self) -> None:
        """Begins what may begin, sends what may be sent, and closes or reads on."""
        answers = self._session.to_write()
        if answers and not self._lost:
            self._transport.write(answers)
            self._last_sign = self._loop.time()
        if self._writable or self._lost:  # what came whole is taken, even if nobody is left to be told
            self._begin()
        self._count_junk()
        if self._lost:
            return
        if self._session.finished:
            self._transport.close()
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
                answer = await feed.take(item.payload, self._peer)
            else:
                answer = await feed.take_broken(item, self._peer)
        except UnavailableError:
            _log.warning("message_not_stored", feed=self._server.settings.name, peer=self._peer)
            self._session.not_stored(arrival.number)
        except Exception as error:  # whatever it was, the message may not be durable: no answer
            _log.error("message_failed", feed=self._server.settings.name, peer=self._peer, **origin_of(error))
            self._session.not_stored(arrival.number)
        else:
            self._session.answered(arrival.number, answer.body, readable=answer.readable)
        self._proceed()

    def _choose_to_read(self) -> None:
        """Backpressure: not reading is the one honest way to slow a sender down."""
        if self._lost or self._transport.is_closing():
            return
        wanted = self._writable and self._session.wants_data
        if wanted and not self._reading:
            self._transport.resume_reading()
            self._last_data = self._frame_since = self._loop.time()  # it could not go on while we did not read
        elif not wanted and self._reading:
            self._transport.pause_reading()
        self._reading = wanted

    def _give_up(self, reason: str) -> None:
        _log.info("sender_disconnected", feed=self._server.settings.name, peer=self._peer, reason=reason)
        self._server.metrics.connections_refused.labels(self._server.settings.name, reason).inc()
        self._transport.abort()

    def _count_junk(self) -> None:
        if self._session.junk_bytes > self._junk_counted:
            self._junk_counted = self._session.junk_bytes
            self._server.metrics.frames_broken.labels(self._server.settings.name, "junk").inc()
            _log.warning("junk_received", feed=self._server.settings.name, peer=self._peer)
