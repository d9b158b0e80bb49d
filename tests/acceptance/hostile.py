"""Owns the hostile senders of tests and benchmarks: connections that say nothing or stop in mid-frame."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tocengine.formats.mllp import FrameReader, frame

OPENINGS = (b"", b"\x0b", b"\x0bMSH|^~\\&|ADTOUT|STJ|", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00")
"""What one says before it falls silent: nothing, a start, half a header, another protocol, half a handshake."""


@asynccontextmanager
async def silent(port: int, count: int, addresses: int = 1) -> AsyncIterator[list[socket.socket]]:
    """`count` connections that fall silent after one of `OPENINGS`, from so many loopback addresses (127.0.1.x)."""
    held: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for number in range(count):
            made = socket.socket()
            made.setblocking(False)
            made.bind((f"127.0.1.{1 + number % addresses}", 0))
            await loop.sock_connect(made, ("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):  # one too many is closed at once
                await loop.sock_sendall(made, OPENINGS[number % len(OPENINGS)])
            held.append(made)
        yield held
    finally:
        for made in held:
            made.close()


async def latencies(port: int, bodies: Sequence[bytes]) -> list[float]:
    """Seconds from a message's last byte to its answer, one sender that stops and waits. Every answer is AA."""
    reader, sender = await asyncio.open_connection("127.0.0.1", port)
    loop, found = asyncio.get_running_loop(), []
    for body in bodies:
        began = loop.time()
        sender.write(frame(body))
        answer = await first_answer(reader)
        found.append(loop.time() - began)
        assert b"\rMSA|AA|" in answer, answer
    sender.close()
    return found


async def first_answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer; empty where the engine closes instead."""
    frames = FrameReader(1_000_000)
    async with asyncio.timeout(30):
        while data := await reader.read(65_536):
            for item in frames.receive(data):
                return getattr(item, "payload", b"")
    return b""
