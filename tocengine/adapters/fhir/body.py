"""Owns how much of a request is read: its media type, its size on the wire and unpacked, and the time it may take."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request

from tocengine.adapters.fhir.request import FHIR_JSON, Answer, media_type_accepted, refusal
from tocengine.config import HttpSettings
from tocengine.model.message import Problem

_GZIP = 16 + zlib.MAX_WBITS


class RefusedRequest(Exception):  # noqa: N818 - an answer on its way, not a failure
    """Ends a request with an answer before any message exists; `reason` is the metric's word for it."""

    def __init__(
        self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None, *, reason: str = ""
    ) -> None:
        super().__init__(text)
        self.reason = reason or code
        self.answer: Answer = refusal((Problem(reason=code, text=text, code=code),), status)
        self.headers = dict(headers or {})


async def read_body(request: Request, settings: HttpSettings) -> bytes:
    """The body, unpacked. Raises RefusedRequest (408, 413, 415, 400 for what is no gzip)."""
    headers = request.headers
    encoding = headers.get("content-encoding", "").strip().lower()
    if not media_type_accepted(headers.get("content-type", "")):
        raise RefusedRequest(415, "not-supported", f"Send {FHIR_JSON} of FHIR R4, in UTF-8.", reason="media_type")
    if encoding not in ("", "identity", "gzip"):
        text = "A body is sent as it is, or with Content-Encoding: gzip."
        raise RefusedRequest(415, "not-supported", text, {"Accept-Encoding": "gzip"}, reason="encoding")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > settings.max_body_bytes:
        raise too_large(settings.max_body_bytes)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await _read(request.stream(), settings.max_body_bytes, packed=encoding == "gzip")
    except TimeoutError:
        text = "The body did not arrive in time."
        raise RefusedRequest(408, "timeout", text, {"Connection": "close"}, reason="slow_body") from None


async def _read(stream: AsyncIterator[bytes], limit: int, *, packed: bool) -> bytes:
    """Never more than `limit` in memory, however small it was on the wire: unpacking stops at the limit."""
    unpacker = zlib.decompressobj(_GZIP) if packed else None
    parts: list[bytes] = []
    size = 0
    async for part in stream:
        if unpacker is not None:
            if unpacker.eof and part:
                raise _not_gzip()
            try:
                part = unpacker.decompress(part, limit - size + 1)
            except zlib.error:
                raise _not_gzip() from None
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
    if unpacker is not None and (not unpacker.eof or unpacker.unused_data):
        raise _not_gzip()
    return b"".join(parts)


def too_large(limit: int) -> RefusedRequest:
    """413; the connection ends, so that nobody reads the rest."""
    text = f"The body is larger than {limit} bytes."
    return RefusedRequest(413, "too-long", text, {"Connection": "close"}, reason="too_large")


def _not_gzip() -> RefusedRequest:
    return RefusedRequest(400, "structure", "The body is not one whole gzip stream.", reason="gzip")
