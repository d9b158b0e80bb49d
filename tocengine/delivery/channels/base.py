"""Owns one HTTP POST: bounded in time and size, guarded against our own network, every end turned into an Outcome."""

import asyncio
import errno
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from tocengine import __version__
from tocengine.delivery.networks import NetworkGuard
from tocengine.delivery.retry import retry_after_s
from tocengine.model.notice import Failure, Outcome
from tocengine.model.profile import EngineIdentity

ANSWER_LIMIT = 64 * 1024
"""Bytes of an answer that are read; what a receiver sends beyond that is not looked at."""
CONNECT_S = 10.0
DRAIN_S = 1.0
"""How long the rest of an answer nobody needs may take before its connection is given up."""


class Answer(msgspec.Struct, frozen=True):
    """What a receiver said. `body` is None where it was not asked for, not complete, or beyond the limit."""

    status: int
    retry_after_s: float | None
    body: bytes | None


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What every channel is built from."""

    poster: "HttpPoster"
    identity: EngineIdentity


class HttpPoster:
    """A pooled HTTP client for one process. No redirects, no cookies, no proxies from the environment."""

    def __init__(self, guard: NetworkGuard, *, keepalive_s: float = 15.0) -> None:
        self._guard = guard
        self._keepalive_s = keepalive_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,  # attempts in flight are bounded where they are started
            ttl_dns_cache=30,
            keepalive_timeout=self._keepalive_s,
            socket_factory=self._guard.socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # an answer is not worth a decompression bomb
            headers={"user-agent": f"tocengine/{__version__}"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

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
        assert self._session is not None, "used outside of its context"
        answer: Answer | None = None
        # connecting has a time of its own, so that an attempt that never got through is known as such
        timeout = aiohttp.ClientTimeout(total=None, connect=min(CONNECT_S, timeout_s / 2))
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    method, url, data=body, headers=headers, allow_redirects=False, timeout=timeout
                ) as response,
            ):
                asked = retry_after_s(response.headers.get("retry-after"), now)
                answer = Answer(response.status, asked, None)
                content = await _content(response, None if read else DRAIN_S)
                return msgspec.structs.replace(answer, body=content)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # asyncio.TimeoutError is an OSError too; a broken answer raises ValueError in places.
            return answer or unanswered(error)


async def _content(response: aiohttp.ClientResponse, patience_s: float | None) -> bytes | None:
    """The answer's body up to the limit; a connection with more to say is closed instead of being kept."""
    content = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            while chunk := await response.content.read(ANSWER_LIMIT + 1 - len(content)):
                content += chunk
                if len(content) > ANSWER_LIMIT:
                    response.close()
                    return None
    except TimeoutError:
        response.close()
        return None
    return bytes(content)


def unanswered(error: Exception) -> Outcome:
    """The outcome of an attempt that ended without an answer. Certain only where no connection was made."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return _not_reached(Failure.TRANSIENT, "name not resolved")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return _not_reached(Failure.TRANSIENT, "TLS handshake")
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.EACCES:
            return _not_reached(Failure.PAUSE, "address not allowed")
        case aiohttp.ClientConnectorError():
            return _not_reached(Failure.TRANSIENT, "connection refused")
        case aiohttp.ConnectionTimeoutError():
            return _not_reached(Failure.TRANSIENT, "connect timeout")
        case aiohttp.InvalidURL():
            return _not_reached(Failure.PAUSE, "invalid URL")
        case TimeoutError():
            return Outcome(failure=Failure.AMBIGUOUS, detail="timeout")
        case aiohttp.ClientResponseError():
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
