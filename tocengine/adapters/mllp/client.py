"""Owns the sending side of MLLP: frames out, acknowledgments in, in order and bounded in time."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Final, Self

import msgspec

from tocengine.errors import SyntaxRefusedError, UnavailableError
from tocengine.formats.hl7v2.ack import Acknowledgment, Verdict, code_for, read_ack, read_sent
from tocengine.formats.hl7v2.batch import comment_of, is_batch, read_remains
from tocengine.formats.mllp import Frame, FrameReader, frame

_READ: Final = 65_536
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Room for the answer to a batch of 10 MiB, the largest a feed takes, whose messages are shorter than their answers."""


class Reply(msgspec.Struct, frozen=True):
    """What became of the `number`-th message (from 0) of a call. `acknowledgment` is None where the message asks
    for no answer to success; `seconds` is from the message's last byte to the answer."""

    number: int
    acknowledgment: Acknowledgment | None
    seconds: float


class MllpClient:
    """One connection to a receiver.

    async with MllpClient("127.0.0.1", 2575) as client:
        acknowledgment = await client.send(body)

    With `tls` the receiver's certificate has to be for `server_name`, where it is given, instead of `host`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        max_frame_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._host, self._port = host, port
        self._timeout_s = timeout_s
        self._tls, self._server_name = tls, server_name or host
        self._frames = FrameReader(max_frame_bytes)
        self._received: deque[bytes] = deque()

    async def connect(self) -> None:
        """Connects. Raises UnavailableError where nobody answers within `timeout_s`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await asyncio.open_connection(
                    self._host, self._port, ssl=self._tls, server_hostname=self._server_name if self._tls else None
                )
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"cannot connect to {self._host}:{self._port}: {_name(error)}") from error

    async def close(self) -> None:
        """Closes the connection; whatever was not answered stays so."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, body: bytes) -> Acknowledgment | None:
        """Sends one message and waits for its answer; None, at once, where it asks for no answer to success.

        Raises UnavailableError where the receiver closes, does not answer within `timeout_s`, or answers more than
        is read: whether it took the message is not known then.
        """
        await self._write(body)
        return self._read(await self._answer()) if is_answered(body) else None

    async def send_batch(self, body: bytes) -> tuple[list[Acknowledgment], str]:
        """Sends a batch (FHS, BHS) and waits for its answer: the acknowledgments in it, and what is said of all of it.

        Raises like `send`. A receiver that knows no batches may answer with one acknowledgment.
        """
        await self._write(body)
        answer = await self._answer()
        if not is_batch(answer):
            return [self._read(answer)], ""
        return [self._read(each) for each in read_remains(answer).messages], comment_of(answer)

    async def send_all(self, bodies: Iterable[bytes], *, window: int = 1) -> AsyncIterator[Reply]:
        """Sends messages with at most `window` unanswered at a time; replies in the order of the messages.

        Raises like `send`, for the message that follows the last reply.
        """
        loop = asyncio.get_running_loop()
        open_messages: deque[tuple[int, float]] = deque()
        for number, body in enumerate(bodies):
            while len(open_messages) >= window:
                yield await self._reply(*open_messages.popleft())
            await self._write(body)
            if is_answered(body):
                open_messages.append((number, loop.time()))
            else:
                while open_messages:
                    yield await self._reply(*open_messages.popleft())
                yield Reply(number, None, 0.0)
        while open_messages:
            yield await self._reply(*open_messages.popleft())

    async def _reply(self, number: int, sent_at: float) -> Reply:
        acknowledgment = self._read(await self._answer())
        return Reply(number, acknowledgment, asyncio.get_running_loop().time() - sent_at)

    async def _write(self, body: bytes) -> None:
        try:
            self._writer.write(frame(body))
            async with asyncio.timeout(self._timeout_s):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"cannot send to {self._host}:{self._port}: {_name(error)}") from error

    async def _answer(self) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                while not self._received:
                    if self._frames.closed:
                        text = "its answer is too long to be read; it may have taken what was sent"
                        raise UnavailableError(f"{self._host}:{self._port}: {text}")
                    data = await self._reader.read(_READ)
                    if not data:
                        raise UnavailableError(f"{self._host}:{self._port} closed the connection without an answer")
                    items = self._frames.receive(data)
                    self._received += [item.payload for item in items if isinstance(item, Frame)]
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"no answer from {self._host}:{self._port}: {_name(error)}") from error
        return self._received.popleft()

    def _read(self, answer: bytes) -> Acknowledgment:
        try:
            return read_ack(answer)
        except SyntaxRefusedError as error:
            raise UnavailableError(f"{self._host}:{self._port} answered something that is no message") from error


def is_answered(body: bytes) -> bool:
    """The message asks for an answer where it is taken."""
    return bool(code_for(read_sent(body), Verdict.ACCEPT))


def _name(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
