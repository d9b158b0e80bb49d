"""The HTTP client of delivery against servers that answer in every way a server may."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fixtures.certificates import Authority
from tocengine.delivery.channels.base import ANSWER_LIMIT, Answer, HttpPoster
from tocengine.delivery.networks import NetworkGuard
from tocengine.model.notice import Failure, Outcome

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Server:
    """Answers each request with the next of `answers`; an empty one closes the connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.requests, self.connections = list(answers), list[bytes](), 0
        self.url, self.ended = "", asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.answers:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionResetError):
                self.ended.set()
                break
            length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
            self.requests.append(head + await reader.readexactly(length))
            answer = self.answers.pop(0)
            writer.write(answer)
            if not answer or b"content-length" not in answer:
                break
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, HttpPoster]]:
    server = Server(*answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/a?b=c"
    async with listener, HttpPoster(NetworkGuard(["127.0.0.0/8"])) as poster:
        yield server, poster


async def post(poster: HttpPoster, url: str, headers: dict[str, str] | None = None) -> Answer | Outcome:
    return await poster.post(url, b"body", headers or {}, 2.0, NOW, read=True)


async def test_a_connection_is_kept_and_a_request_is_whole() -> None:
    async with serving(OK, OK) as (server, poster):
        for _ in range(2):
            assert await post(poster, server.url, {"x-key": "v"}) == Answer(200, None, b"hi")
        assert server.connections == 1
        head, _, body = server.requests[1].partition(b"\r\n\r\n")
        first, *fields = head.split(b"\r\n")
        assert first == b"POST /a?b=c HTTP/1.1"
        told = {b"x-key: v", b"content-length: 4", b"host: " + server.url.split("/")[2].encode()}
        assert told <= {each.lower() for each in fields}
        assert body == b"body"


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",  # one answer too many
        b"HTTP/1.1 200 OK\r\n\r\nhi",  # it ends with the connection
    ],
    ids=["close", "1.0", "two answers", "no length"],
)
async def test_a_connection_that_may_not_be_used_again_is_not(first: bytes) -> None:
    async with serving(first, OK) as (server, poster):
        assert await post(poster, server.url) == Answer(200, None, b"hi")
        assert await post(poster, server.url) == Answer(200, None, b"hi")
        assert server.connections == 2


async def test_an_interim_answer_is_passed_over() -> None:
    async with serving(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nretry-after: 9\r\n\r\n" + OK) as (
        server,
        poster,
    ):
        assert await post(poster, server.url) == Answer(200, None, b"hi")


async def test_a_body_that_breaks_off_is_none() -> None:
    async with serving(b"HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal") as (server, poster):
        assert await post(poster, server.url) == Answer(400, None, None)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20"])
async def test_no_answer_is_ambiguous(answer: bytes) -> None:
    async with serving(answer) as (server, poster):
        outcome = await post(poster, server.url)
        assert isinstance(outcome, Outcome)
        assert (outcome.failure, outcome.reached) == (Failure.AMBIGUOUS, True)


async def test_a_head_without_end_is_ambiguous() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * ANSWER_LIMIT) as (server, poster):
        outcome = await post(poster, server.url)
        assert isinstance(outcome, Outcome)
        assert (outcome.failure, outcome.detail) == (Failure.AMBIGUOUS, "broken answer")


async def test_a_certificate_nobody_vouches_for_is_certain(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = Authority(tmp_path).issue("receiver")
    tls.load_cert_chain(issued.certfile, issued.keyfile)
    async with serving(OK, tls=tls) as (server, poster):
        outcome = await post(poster, server.url)
        assert outcome == Outcome(failure=Failure.TRANSIENT, delivered=False, reached=False, detail="TLS handshake")


async def test_a_kept_connection_ends_after_its_time() -> None:
    async with serving(OK, OK) as (server, _), HttpPoster(NetworkGuard(["127.0.0.0/8"]), keepalive_s=0.05) as poster:
        await post(poster, server.url)
        await asyncio.wait_for(server.ended.wait(), 5)
        await post(poster, server.url)
        assert server.connections == 2
