"""Owns how much of a request is read: its media type, its size on the wire and unpacked, and the time it may take.

Of what is refused, what came is kept: all of a body of another media type, of others the beginning.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request

from tocengine.adapters.fhir.request import FHIR_JSON, Answer, media_type_accepted, refusal
from tocengine.config import HttpSettings
from tocengine.errors import UnreadBodyError
from tocengine.model.message import Problem

KEPT_OF_REFUSED = 65_536
"""Bytes kept of a body that is no whole one: enough to recognize it."""
LINGER_S = 1.0
"""How long a body is waited for that is refused whatever is in it."""
_GZIP = 16 + zlib.MAX_WBITS


class RefusedRequest(Exception):  # noqa: N818 - an answer on its way, not a failure
    """Ends a request with an answer before any message exists; `reason` is the metric's word for it.

    `came` is what there is to keep of its body, which is all of it where `whole`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        text: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: str = "",
        came: bytes = b"",
    ) -> None:
        super().__init__(text)
        self.reason, self.came, self.whole = reason or code, came, bool(came)
        self._problem, self._status = Problem(reason=self.reason, text=text, code=code, stage="gate"), status
        self.answer: Answer = refusal((self._problem,), status)
        self.headers = dict(headers or {})

    @property
    def error(self) -> UnreadBodyError:
        """Why the body was not read, for its keeping; what is not whole cannot be read later either."""
        stage = "gate" if self.whole else "framing"
        return UnreadBodyError(msgspec.structs.replace(self._problem, stage=stage), self._status)


async def read_body(request: Request, settings: HttpSettings) -> bytes:
    """The body, unpacked. Raises RefusedRequest (408, 413, 415, 400 for what is no gzip)."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    refused = _refused_by_headers(request.headers, encoding, settings.max_body_bytes)
    arriving = _Arriving(settings.max_body_bytes, encoding=encoding)
    try:
        if refused is None:
            async with asyncio.timeout(settings.body_timeout_s):
                return await arriving.whole(request.stream())
        if "expect" not in request.headers:  # it would be sent only because somebody reads
            async with asyncio.timeout(min(settings.body_timeout_s, LINGER_S)):
                enough = settings.max_body_bytes if refused.reason == "media_type" else KEPT_OF_REFUSED
                refused.whole = await arriving.some(request.stream(), enough)
    except TimeoutError:
        text = "The body did not arrive in time."
        refused = refused or RefusedRequest(408, "timeout", text, {"Connection": "close"}, reason="slow_body")
    except RefusedRequest as error:
        refused = error
    refused.came = bytes(arriving.came)
    raise refused from None


def _refused_by_headers(headers: Headers, encoding: str, limit: int) -> RefusedRequest | None:
    if not media_type_accepted(headers.get("content-type", "")):
        return RefusedRequest(415, "not-supported", f"Send {FHIR_JSON} of FHIR R4, in UTF-8.", reason="media_type")
    if encoding not in ("", "identity", "gzip"):
        text = "A body is sent as it is, or with Content-Encoding: gzip."
        return RefusedRequest(415, "not-supported", text, {"Accept-Encoding": "gzip"}, reason="encoding")
    length = headers.get("content-length", "")
    return too_large(limit, f" {length} are announced.") if length.isdigit() and int(length) > limit else None


class _Arriving:
    """What has come of a body so far. Never more than `limit` in memory, however small it was on the wire."""

    def __init__(self, limit: int, *, encoding: str) -> None:
        self.came = bytearray()  # the beginning, as it is on the wire
        self._limit, self._plain = limit, encoding in ("", "identity")
        self._unpacker = zlib.decompressobj(_GZIP) if encoding == "gzip" else None

    async def whole(self, stream: AsyncIterator[bytes]) -> bytes:
        """All of it. Raises RefusedRequest where it is too large or no gzip; unpacking stops at the limit."""
        unpacker, size, parts = self._unpacker, 0, []
        async for part in stream:
            self._keep(part, KEPT_OF_REFUSED)
            if unpacker is not None:
                if unpacker.eof and part:
                    raise _not_gzip()
                try:
                    part = unpacker.decompress(part, self._limit - size + 1)
                except zlib.error:
                    raise _not_gzip() from None
            size += len(part)
            if size > self._limit:
                raise too_large(self._limit)
            parts.append(part)
        if unpacker is not None and (not unpacker.eof or unpacker.unused_data):
            raise _not_gzip()
        return b"".join(parts)

    async def some(self, stream: AsyncIterator[bytes], enough: int) -> bool:
        """As much of it as is enough; whether that is all of it."""
        async for part in stream:
            if len(self.came) + len(part) > enough:
                self._keep(part, enough)
                return False
            self._keep(part, enough)
        return self._plain  # what is packed cannot be read as it is

    def _keep(self, part: bytes, enough: int) -> None:
        self.came += part[: enough - len(self.came)]


def too_large(limit: int, more: str = "") -> RefusedRequest:
    """413; the connection ends, so that nobody reads the rest."""
    text = f"The body is larger than {limit} bytes.{more}"
    return RefusedRequest(413, "too-long", text, {"Connection": "close"}, reason="too_large")


def _not_gzip() -> RefusedRequest:
    return RefusedRequest(400, "structure", "The body is not one whole gzip stream.", reason="gzip")
