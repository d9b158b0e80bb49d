"""What every registered channel must do, against a real server on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.delivery_setting import (
    IDENTITY,
    SECRET,
    SECRET_TEXT,
    Receiver,
    clock,
    make_notice,
    make_recipient,
    make_snapshot,
    receiving,
)
from tocengine.delivery.channels.base import HttpPoster, Surroundings
from tocengine.delivery.channels.registry import CHANNELS
from tocengine.delivery.networks import NetworkGuard
from tocengine.model.directory import ChannelKind
from tocengine.model.notice import Failure, Notice, Outcome
from tocengine.ports import Address, Channel

SNAPSHOT = make_snapshot()
NOTICE: Notice = make_notice(SNAPSHOT)
CHART = b'{"resourceType":"Bundle","type":"collection","entry":[]}'


class Bench(NamedTuple):
    """A channel and the receiver it sends to."""

    kind: ChannelKind
    channel: Channel
    receiver: Receiver

    def body(self) -> bytes:
        return self.channel.render(NOTICE, SNAPSHOT, CHART, make_recipient(), self.receiver.url)

    async def send(self, url: str | None = None, timeout_s: float = 2.0) -> Outcome:
        address = Address(
            endpoint_id="e",
            url=url or self.receiver.url,
            secrets=(SECRET,),
            headers={"x-api-key": "k"},
            timeout_s=timeout_s,
        )
        return await self.channel.send(address, NOTICE, self.body(), clock())


@pytest.fixture(params=list(CHANNELS), ids=str)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    kind: ChannelKind = request.param
    async with receiving() as receiver, HttpPoster(NetworkGuard(["127.0.0.0/8"])) as poster:
        yield Bench(kind, CHANNELS[kind](Surroundings(poster=poster, identity=IDENTITY)), receiver)


async def test_success_is_delivered(bench: Bench) -> None:
    for status in (200, 201, 204):
        bench.receiver.answer = lambda *_, status=status: web.Response(status=status)
        assert await bench.send() == Outcome(status=status)
    headers, body = bench.receiver.requests[-1]
    assert headers["x-api-key"] == "k"
    assert str(NOTICE.notice_id) in body.decode()


async def test_202_is_received_only(bench: Bench) -> None:
    bench.receiver.answer = lambda *_: web.Response(status=202)
    assert await bench.send() == Outcome(status=202, delivered=False)


@pytest.mark.parametrize(
    ("status", "failure", "reached"),
    [
        (301, Failure.PERMANENT, False),
        (400, Failure.PERMANENT, False),
        (401, Failure.PAUSE, False),
        (403, Failure.PAUSE, False),
        (404, Failure.PERMANENT, False),
        (408, Failure.AMBIGUOUS, True),
        (410, Failure.DISABLE, False),
        (413, Failure.PERMANENT, False),
        (422, Failure.PERMANENT, False),
        (429, Failure.TRANSIENT, False),
        (500, Failure.TRANSIENT, True),
        (502, Failure.AMBIGUOUS, True),
        (503, Failure.TRANSIENT, False),
        (504, Failure.AMBIGUOUS, True),
    ],
)
async def test_every_status_has_its_class(bench: Bench, status: int, failure: Failure, reached: bool) -> None:
    bench.receiver.answer = lambda *_: web.Response(status=status)
    assert await bench.send() == Outcome(
        failure=failure, delivered=False, reached=reached, status=status, detail=f"HTTP {status}"
    )


async def test_retry_after_counts_with_429_and_503(bench: Bench) -> None:
    in_two_minutes = datetime.fromtimestamp(int(clock().timestamp()) + 120, UTC)
    for status, value, expected in (
        (429, "120", 120.0),
        (503, format_datetime(in_two_minutes, usegmt=True), 120.0),
        (500, "120", None),
        (429, "soon", None),
    ):
        bench.receiver.answer = lambda *_, s=status, v=value: web.Response(status=s, headers={"Retry-After": v})
        found = (await bench.send()).retry_after_s
        assert found == expected or (expected and found and abs(found - expected) < 3)


async def test_a_timeout_after_sending_is_ambiguous(bench: Bench) -> None:
    async def hang(*_: object) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    bench.receiver.answer = hang
    outcome = await bench.send(timeout_s=0.3)
    assert (outcome.failure, outcome.reached, outcome.detail) == (Failure.AMBIGUOUS, True, "timeout")


async def test_a_refused_connection_is_certain(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    outcome = await bench.send(f"http://127.0.0.1:{port}/x")
    assert (outcome.failure, outcome.reached) == (Failure.TRANSIENT, False)


async def test_a_name_that_does_not_resolve_is_certain(bench: Bench) -> None:
    outcome = await bench.send("http://nowhere.invalid/x")
    assert (outcome.failure, outcome.reached) == (Failure.TRANSIENT, False)


@pytest.mark.parametrize("read_first", [False, True], ids=["before reading", "after reading"])
async def test_a_connection_that_is_lost_is_ambiguous(bench: Bench, read_first: bool) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if read_first:
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        outcome = await bench.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    assert (outcome.failure, outcome.reached) == (Failure.AMBIGUOUS, True)


async def test_an_answer_that_is_no_http_is_ambiguous(bench: Bench) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        outcome = await bench.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    assert (outcome.failure, outcome.reached) == (Failure.AMBIGUOUS, True)


async def test_a_huge_answer_is_bounded(bench: Bench) -> None:
    sent = 0

    async def flood(_id: str, _body: bytes) -> web.StreamResponse:
        nonlocal sent
        response = web.Response(status=500, body=b"x" * 50_000_000)
        sent += 1
        return response

    bench.receiver.answer = flood
    outcome = await asyncio.wait_for(bench.send(timeout_s=5), 5)
    assert (outcome.status, outcome.failure) == (500, Failure.TRANSIENT)


async def test_a_slow_answer_is_bounded(bench: Bench) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 No\r\ncontent-length: 1000\r\n\r\nx")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        outcome = await asyncio.wait_for(bench.send(url, timeout_s=1.5), 5)
    assert (outcome.status, outcome.failure) == (400, Failure.PERMANENT)


async def test_redirects_are_not_followed(bench: Bench) -> None:
    bench.receiver.answer = lambda *_: web.Response(status=307, headers={"Location": "/elsewhere"})
    outcome = await bench.send()
    assert (outcome.failure, outcome.status) == (Failure.PERMANENT, 307)
    assert len(bench.receiver.requests) == 1


async def test_a_resend_is_the_same_to_the_byte(bench: Bench) -> None:
    await bench.send()
    await bench.send()
    (_, first), (_, second) = bench.receiver.requests
    assert first == second


async def test_loopback_is_out_of_bounds_unless_allowed(bench: Bench) -> None:
    async with HttpPoster(NetworkGuard()) as poster:
        guarded = bench._replace(channel=CHANNELS[bench.kind](Surroundings(poster=poster, identity=IDENTITY)))
        for host in ("127.0.0.1", "localhost"):
            outcome = await guarded.send(f"http://{host}:{bench.receiver.port}/x")
            assert (outcome.failure, outcome.reached, outcome.detail) == (
                Failure.PAUSE,
                False,
                "address not allowed",
            )
    assert bench.receiver.requests == []


@pytest.mark.parametrize("bench", [ChannelKind.WEBHOOK], indirect=True)
async def test_the_webhook_is_signed_for_an_outside_judge(bench: Bench) -> None:
    other = b"the secret that is being retired"
    address = Address(endpoint_id="e", url=bench.receiver.url, secrets=(SECRET, other))
    await bench.channel.send(address, NOTICE, bench.body(), clock())
    headers, body = bench.receiver.requests[0]
    assert headers["webhook-id"] == str(NOTICE.notice_id)
    for key in (SECRET_TEXT, other):
        assert Webhook(key).verify(body, dict(headers))["type"] == "notice.inpatient_discharge"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET_TEXT).verify(body.replace(b"MARY", b"MARK"), dict(headers))


@pytest.mark.parametrize("bench", [ChannelKind.FHIR], indirect=True)
async def test_fhir_goes_to_process_message_and_an_operation_outcome_can_refuse(bench: Bench) -> None:
    assert (await bench.send()).failure is None
    headers, body = bench.receiver.requests[0]
    assert headers["content-type"] == "application/fhir+json"
    assert orjson.loads(body)["identifier"]["value"] == f"urn:uuid:{NOTICE.notice_id}"
    for severity, failure in (("error", Failure.PERMANENT), ("fatal", Failure.PERMANENT), ("warning", None)):
        resource = {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": "invalid"}]}
        bench.receiver.answer = lambda *_, one=resource: web.json_response(one)
        assert (await bench.send()).failure is failure
    bench.receiver.answer = lambda *_: web.Response(body=b"x" * 1_000_000)
    assert (await bench.send()).failure is Failure.AMBIGUOUS
