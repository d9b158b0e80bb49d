"""`tocengine send` and its client against receivers that are not ours, and names that cannot be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tocengine.adapters.mllp.client import MllpClient
from tocengine.cli import app
from tocengine.errors import UnavailableError
from tocengine.formats.mllp import frame

BHS = b"BHS|^~\\&|REG|NORTH|TOC|HUB|20260301||adt||B1\r"
MSH = b"MSH|^~\\&|REG|NORTH|TOC|HUB|20260301||ADT^A01|1|P|2.5.1"
ACK = b"MSH|^~\\&|TOC|HUB|REG|NORTH|20260301||ACK|9|P|2.5.1\rMSA|%s|1\r"
SILENT = MSH + b"|||NE|NE\r"


@asynccontextmanager
async def receiver(answer: bytes) -> AsyncIterator[int]:
    """A receiver that answers whatever it gets with `answer`; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\x1c\r")
        writer.write(frame(answer))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=10_000_000)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def command(*arguments: str) -> Result:
    """`tocengine send ARGUMENTS`, on a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["send", *arguments])


async def test_an_answer_that_is_too_long_is_told_at_once() -> None:
    async with receiver(b"x" * 5000) as port, MllpClient("127.0.0.1", port, max_frame_bytes=1024) as client:
        with pytest.raises(UnavailableError, match="too long to be read"):
            await client.send(MSH + b"\r")


async def test_the_answer_to_a_large_batch_is_read() -> None:
    count = 30_000
    answer = BHS + ACK % b"AA" * count + b"BTS|%d\r" % count
    async with receiver(answer) as port, MllpClient("127.0.0.1", port) as client:
        answers, _ = await client.send_batch(BHS + (MSH + b"\r") * count)
    assert len(answers) == count


@pytest.mark.parametrize(
    ("message", "answer", "status"),
    [
        (MSH + b"\r", ACK % b"AA" + b"BTS|1|OK\r", 0),
        (MSH + b"\r", ACK % b"AR" + b"BTS|1\r", 1),
        (MSH + b"\r", b"BTS|0\r", 1),
        (SILENT, b"BTS|0\r", 0),
        (SILENT, b"BTS|0|refused\r", 1),
    ],
)
async def test_a_batch_is_taken_where_its_messages_are(
    tmp_path: Path, message: bytes, answer: bytes, status: int
) -> None:
    (tmp_path / "batch").write_bytes(BHS + message + b"BTS|1\r")
    async with receiver(BHS + answer) as port:
        result = await command(str(tmp_path / "batch"), "--to", f"127.0.0.1:{port}")
    assert result.exit_code == status, result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--to", ":2575", "--tls"],
        ["--to", "[]:2575", "--tls"],
        ["--to", "a..b:2575"],
        ["--to", "127.0.0.1:2575", "--server-name", ".hub"],
        ["--to", "127.0.0.1:2575", "--server-name", "h" * 64],
    ],
)
async def test_a_name_that_cannot_be_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "message").write_bytes(MSH + b"\r")
    result = await command(str(tmp_path / "message"), *arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
