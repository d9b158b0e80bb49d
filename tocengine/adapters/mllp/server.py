"""Owns the MLLP listener of a feed: who is let in, TLS in front of it, and how it ends."""

import asyncio
import errno
import socket
from typing import Final

import structlog

from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.mllp.admission import Admission, Budget, Closed, plain_address
from tocengine.adapters.mllp.connection import Connection
from tocengine.config import FeedSettings, listen_address
from tocengine.errors import ConfigurationError
from tocengine.telemetry import Metrics
from tocengine.tls import LOOK_S, ListenerTls

_log = structlog.get_logger()
DRAIN_S: Final = 8.0
BACKLOG: Final = 512
_ACCEPTED_AT_ONCE: Final = 64
_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""A peer that vanished without a word is noticed after two minutes, far sooner than it is idle."""


class MllpServer:
    """The listener of one feed.

    Sockets are accepted here and not by an asyncio server, so that a connection counts, and may be refused or made
    room for, before TLS has been spoken over it.
    """

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
        self.pins = feed.certificates
        self.connections: dict[Connection, None] = {}  # the oldest first
        self.port = 0
        """The port in use since `start`."""
        self._admission = Admission(
            settings.max_connections, settings.max_connections_per_address, settings.allowed_networks
        )
        self._budget: Budget[Connection] = Budget(settings.max_held_bytes)
        self._tls: ListenerTls | None = None
        self._tick_s = tick_s
        self.tls_look_s = LOOK_S
        """How often the TLS files are looked at."""
        self._tls_looked_at = 0.0
        self._sockets: list[socket.socket] = []
        self._opening: dict[Connection, asyncio.Task[None]] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._nobody_left = asyncio.Event()
        self._draining = False

    async def start(self) -> None:
        """Listens. Raises ConfigurationError where the address or TLS files cannot be used."""
        host, port = listen_address(self.settings.listen)
        if self.settings.tls:
            self._tls = ListenerTls(self.settings.tls, self.settings.name, self.metrics)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in dict.fromkeys(found):
                listener = socket.create_server((str(address[0]), int(address[1])), family=family, backlog=BACKLOG)
                self._sockets.append(listener)
                listener.setblocking(False)
        except OSError as error:
            self._close_listeners()
            raise ConfigurationError(
                f"feed {self.settings.name!r} cannot listen on {self.settings.listen}", hint=error.strerror or ""
            ) from error
        self.port = int(self._sockets[0].getsockname()[1])
        for listener in self._sockets:
            loop.add_reader(listener, self._accept, listener)
        self._ticking = loop.call_later(self._tick_s, self._tick)
        _log.info("feed_listening", feed=self.settings.name, listen=f"{host}:{self.port}")

    async def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Stops accepting, answers what was received whole, and closes; what is left after `timeout_s` is cut off
        without an answer."""
        self._draining = True
        self._close_listeners()
        for opening in list(self._opening.values()):
            opening.cancel()
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

    # --- what a connection asks of its server ---

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self._admission.leave(connection.peer)
        self._budget.hold(connection, 0)
        self.metrics.connections.labels(self.settings.name).set(len(self.connections))
        if self._draining and not self.connections:
            self._nobody_left.set()

    def hold(self, connection: Connection, size: int) -> None:
        """The connection holds `size` bytes of messages now."""
        if connection in self.connections:
            self._budget.hold(connection, size)

    def may_grow(self, connection: Connection) -> bool:
        """Whether the connection may read more."""
        return self._budget.may_grow(connection)

    def count_closed(self, reason: Closed, peer: str) -> None:
        """A connection is closed without a word."""
        _log.info("sender_disconnected", feed=self.settings.name, peer=peer, reason=reason)
        self.metrics.connections_refused.labels(self.settings.name, reason).inc()

    # --- letting in ---

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                self._rest(listener)
                return
            self._welcome(accepted, plain_address(str(address[0])))

    def _rest(self, listener: socket.socket) -> None:
        """No file is free for another connection: those that wait are accepted when one is."""
        _log.error("out_of_files", feed=self.settings.name, count=len(self.connections))
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(1.0, lambda: self._draining or loop.add_reader(listener, self._accept, listener))

    def _welcome(self, accepted: socket.socket, peer: str) -> None:
        refusal = Closed.DRAINING if self._draining else self._admission.refusal(peer)
        if refusal is Closed.LIMIT and self._make_room():
            refusal = None
        if refusal is not None:
            self.count_closed(refusal, peer)
            accepted.close()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                accepted.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        connection = Connection(self, peer)
        self.connections[connection] = None
        self._admission.enter(peer)
        self.metrics.connections.labels(self.settings.name).set(len(self.connections))
        opening = asyncio.get_running_loop().create_task(self._open(connection, accepted))
        self._opening[connection] = opening
        opening.add_done_callback(lambda _: self._opened(connection, accepted))

    def _make_room(self) -> bool:
        """At the limit the oldest connection that never sent a message goes, so that silent ones lock nobody out."""
        silent = next((each for each in self.connections if not each.useful), None)
        if silent is None:
            return False
        self.count_closed(Closed.MADE_ROOM, silent.peer)
        opening = self._opening.get(silent)
        if opening is not None:
            opening.cancel()
        silent.abort()
        self.forget(silent)
        return True

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        """Speaks TLS where it is wanted and hands the connection over to its transport."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls.context if self._tls else None,
                ssl_handshake_timeout=self.settings.frame_timeout_s if self._tls else None,
            )
        except OSError as error:  # ssl.SSLError is one: no TLS, no common version, no certificate
            if self._tls:
                self.count_closed(Closed.HANDSHAKE, connection.peer)
            _log.info("connection_failed", feed=self.settings.name, error_type=type(error).__name__)

    def _opened(self, connection: Connection, accepted: socket.socket) -> None:
        del self._opening[connection]
        if not connection.opened:
            accepted.close()  # whoever owns it by now has closed it, unless nobody does
            self.forget(connection)

    def _close_listeners(self) -> None:
        for listener in self._sockets:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._sockets.clear()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self.connections):
            connection.look_at_the_clock(now)
        under_way = sum(connection.in_flight for connection in self.connections)
        self.metrics.connection_messages.labels(self.settings.name).set(under_way)
        self.metrics.connection_bytes.labels(self.settings.name).set(self._budget.total)
        if self._tls is not None and now - self._tls_looked_at > self.tls_look_s:
            self._tls_looked_at = now
            self._tls.refresh()
        self._ticking = loop.call_later(self._tick_s, self._tick)
