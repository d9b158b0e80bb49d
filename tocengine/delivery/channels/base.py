"""Owns one HTTP POST: bounded in time and size, guarded against our own network, every end turned into an Outcome."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from aiohappyeyeballs import start_connection
from yarl import URL

from tocengine import __version__
from tocengine.delivery.channels.connection import BrokenAnswerError, HttpConnection
from tocengine.delivery.networks import NetworkGuard
from tocengine.delivery.retry import retry_after_s
from tocengine.model.notice import Failure, Outcome
from tocengine.model.profile import EngineIdentity

CONNECT_S = 10.0


class Answer(msgspec.Struct, frozen=True):
    """What a receiver said. `body` is None where it was not asked for, not complete, or beyond the limit."""

    status: int
    retry_after_s: float | None
    body: bytes | None


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What every channel is built from."""

    poster: "HttpPoster"
    identity: EngineIdentity


class Origin(NamedTuple):
    """Whom a connection leads to."""

    secure: bool
    host: str
    port: int


class Target(msgspec.Struct, frozen=True):
    """What a URL names."""

    origin: Origin
    authority: str  # as the Host header has it
    path: str


class HttpPoster:
    """An HTTP client for one process that keeps connections. No redirects, no cookies, no proxies, no compression."""

    def __init__(self, guard: NetworkGuard, *, keepalive_s: float = 15.0) -> None:
        self._guard = guard
        self._keepalive_s = keepalive_s
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._kept: dict[Origin, dict[HttpConnection, asyncio.TimerHandle]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for kept in list(self._kept.values()):
            for connection in list(kept):
                connection.close()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, now: datetime, *, read: bool
    ) -> Answer | Outcome:
        """The receiver's answer, or the outcome where there was none. `read` asks for the answer's body."""
        return await self._ask("POST", url, body, headers, timeout_s, now, read=read)

    async def get(self, url: str, headers: Mapping[str, str], timeout_s: float, now: datetime) -> Answer | Outcome:
        """The status of a resource; its body is not read."""
        return await self._ask("GET", url, None, headers, timeout_s, now, read=False)

    async def _ask(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
        now: datetime,
        *,
        read: bool,
    ) -> Answer | Outcome:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        try:
            target = _target(url)
            request = _request(method, target, headers, body)
            connection = self._take(target.origin)
            if connection is None:
                # connecting has a time of its own, so that an attempt that never got through is known as such
                async with asyncio.timeout(min(CONNECT_S, timeout_s / 2)):
                    connection = await self._connect(target.origin)
        except (OSError, ValueError) as error:
            return not_reached(error)
        try:
            received = await connection.exchange(request, deadline - clock(), read=read)
        except (TimeoutError, ConnectionError) as error:
            return unanswered(error)
        self._keep(target.origin, connection)
        asked = retry_after_s(received.retry_after, now) if received.retry_after else None
        return Answer(received.status, asked, received.body if read else None)

    async def _connect(self, origin: Origin) -> HttpConnection:
        """Raises OSError; ValueError for a name that is none."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        made = await start_connection(
            found, happy_eyeballs_delay=0.25, interleave=1, loop=loop, socket_factory=self._guard.socket
        )
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls, name = (self._tls, origin.host) if origin.secure else (None, None)
        try:
            _, connection = await loop.create_connection(
                lambda: HttpConnection(self._forget), sock=made, ssl=tls, server_hostname=name
            )
        except BaseException:
            made.close()
            raise
        return connection

    def _take(self, origin: Origin) -> HttpConnection | None:
        """The connection that was used last."""
        kept = self._kept.get(origin)
        if not kept:
            return None
        connection, ends = kept.popitem()
        ends.cancel()
        return connection

    def _keep(self, origin: Origin, connection: HttpConnection) -> None:
        if not connection.closed:
            ends = asyncio.get_running_loop().call_later(self._keepalive_s, connection.close)
            self._kept.setdefault(origin, {})[connection] = ends

    def _forget(self, connection: HttpConnection) -> None:
        for origin, kept in self._kept.items():
            if ends := kept.pop(connection, None):
                ends.cancel()
                if not kept:
                    del self._kept[origin]
                return


@lru_cache(maxsize=4096)
def _target(url: str) -> Target:
    """Raises ValueError for what is no absolute http or https URL."""
    parts = URL(url)
    if parts.scheme not in ("http", "https") or not parts.raw_host or parts.port is None:
        raise ValueError("no absolute URL")
    origin = Origin(parts.scheme == "https", parts.raw_host, parts.port)
    return Target(origin, parts.host_port_subcomponent or "", parts.raw_path_qs)


_AGENT = f"tocengine/{__version__}"


def _request(method: str, target: Target, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A request as it is sent. Raises ValueError for a header that would break out of its line."""
    lines = [f"{method} {target.path} HTTP/1.1", f"host: {target.authority}", f"user-agent: {_AGENT}", "accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1 or "\0" in head:
        raise ValueError("a header with a line break")
    return b"%b\r\n\r\n%b" % (head.encode(), body or b"")


def not_reached(error: Exception) -> Outcome:
    """The outcome of an attempt for which no connection was made: certain that nothing was told."""
    match error:
        case ssl.SSLError():  # a certificate that is not right is a ValueError too
            return _not_reached(Failure.TRANSIENT, "TLS handshake")
        case ValueError():
            return _not_reached(Failure.PAUSE, "invalid URL or header")
        case socket.gaierror():
            return _not_reached(Failure.TRANSIENT, "name not resolved")
        case TimeoutError():
            return _not_reached(Failure.TRANSIENT, "connect timeout")
        case OSError(errno=errno.EACCES):
            return _not_reached(Failure.PAUSE, "address not allowed")
    return _not_reached(Failure.TRANSIENT, "connection refused")


def unanswered(error: Exception) -> Outcome:
    """The outcome of an attempt that ended without an answer after it was sent: nobody knows."""
    match error:
        case TimeoutError():
            return Outcome(failure=Failure.AMBIGUOUS, detail="timeout")
        case BrokenAnswerError():
            return Outcome(failure=Failure.AMBIGUOUS, detail="broken answer")
    return Outcome(failure=Failure.AMBIGUOUS, detail="connection lost")


def _not_reached(failure: Failure, detail: str) -> Outcome:
    return Outcome(failure=failure, delivered=False, reached=False, detail=detail)


_BY_STATUS = {
    401: Failure.PAUSE,
    403: Failure.PAUSE,
    408: Failure.AMBIGUOUS,
    410: Failure.DISABLE,
    425: Failure.TRANSIENT,
    429: Failure.TRANSIENT,
    502: Failure.AMBIGUOUS,  # a gateway lost sight of what it had passed on
    504: Failure.AMBIGUOUS,
}
_MAY_HOLD_IT = frozenset({408, 500, 502, 504})
"""Failures after which the receiver may hold the notice all the same."""


def classify(answer: Answer) -> Outcome:
    """What an HTTP status means for the notice (interface "Webhook notice"; domain 4.1).

    2xx delivered, 202 received only; redirects are not followed, so they and other 4xx are permanent; 5xx may
    pass. Retry-After counts with 429 and 503.
    """
    status = answer.status
    if 200 <= status < 300:
        return Outcome(delivered=status != 202, status=status)
    other = Failure.TRANSIENT if status >= 500 else Failure.PERMANENT
    return Outcome(
        failure=_BY_STATUS.get(status, other),
        delivered=False,
        reached=status in _MAY_HOLD_IT,
        status=status,
        detail=f"HTTP {status}",
        retry_after_s=answer.retry_after_s if status in (429, 503) else None,
    )
