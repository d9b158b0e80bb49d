"""Owns how the simulated hospitals send: stop-and-wait over MLLP until each message is answered, and FHIR posts."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import aiohttp

from tocengine.adapters.mllp.client import MllpClient
from tocengine.errors import UnavailableError
from tocengine.simulation.day import Post

RETRY_S = 0.1


class MllpSender:
    """A hospital's interface engine on one connection: what got no answer is sent again, on a new connection."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 5.0, patience_s: float = 60.0) -> None:
        self._host, self._port, self._timeout_s, self._patience_s = host, port, timeout_s, patience_s
        self._client: MllpClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hang_up()

    async def send(self, body: bytes) -> str:
        """The acknowledgment code. Raises UnavailableError when nobody answered for `patience_s`."""
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                if self._client is None:
                    client = MllpClient(self._host, self._port, timeout_s=self._timeout_s)
                    await client.connect()
                    self._client = client
                answer = await self._client.send(body)
                return answer.code if answer else ""
            except UnavailableError:
                await self._hang_up()
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _hang_up(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


async def send_shift(
    posts: Sequence[Post], mllp_port: int, http_port: int, on_answer: Callable[[str], None], connections: int = 4
) -> Counter[str]:
    """Sends one shift; each MLLP connection carries whole visits, in order. Returns the answers by code."""
    answers: Counter[str] = Counter()

    def answered(code: str) -> None:
        answers[code] += 1
        on_answer(code)

    lanes: list[list[bytes]] = [[] for _ in range(connections)]
    bundles: list[bytes] = []
    for post in posts:
        if post.feed == "stj-adt":
            lanes[_lane(post.body, connections)].append(post.body)
        else:
            bundles.append(post.body)
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(_send_messages(lane, mllp_port, answered))
        group.create_task(_send_bundles(bundles, http_port, answered))
    return answers


async def _send_messages(bodies: Sequence[bytes], port: int, answered: Callable[[str], None]) -> None:
    async with MllpSender("127.0.0.1", port) as sender:
        for body in bodies:
            answered(await sender.send(body))


async def _send_bundles(bodies: Sequence[bytes], port: int, answered: Callable[[str], None]) -> None:
    headers = {"content-type": "application/fhir+json"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        for body in bodies:
            async with session.post("/fhir/$process-message", data=body) as response:
                answered(str(response.status))


def _lane(body: bytes, connections: int) -> int:
    """All messages of a visit go down one connection, as a hospital's interface engine sends them."""
    account = next((line.split(b"|")[18] for line in body.split(b"\r") if line.startswith(b"PID")), b"")
    return sum(account) % connections
