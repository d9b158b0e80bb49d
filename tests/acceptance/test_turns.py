"""Feeds take turns at the running engine: who stands before whom in the log where all arrived at once. Untimed."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from tests.acceptance.hostile import Hospital, first_answer, ingest_pid, latencies, metric
from tests.acceptance.setting import Embedded, children, embedded
from tocengine.config_file import load_config
from tocengine.embedded import running_server
from tocengine.eventlog.topics import TOPIC_NUMBERS, Topic
from tocengine.formats.mllp import frame
from tocengine.simulation.configuration import Ports
from tocengine.simulation.receivers import Receivers

pytestmark = pytest.mark.timeout(180)
CONNECTIONS = 64
ROUNDS = 4

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def test_a_message_of_a_quiet_feed_waits_for_a_few_of_a_flood(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    """While the process stands still a flood of 64 messages arrives, then one of a quiet feed."""
    hospital, flooded = Hospital(), Ports.free().mllp
    setting = embedded(folder, receivers, secret, _feed("flood", flooded))
    try:
        await setting.engine.start(deadline_s=90)
        flood = [await asyncio.open_connection("127.0.0.1", flooded) for _ in range(CONNECTIONS)]
        quiet = await asyncio.open_connection("127.0.0.1", setting.ports.mllp)
        before = []
        for _ in range(ROUNDS):
            await _arrive_at_once(setting, hospital, [*flood, quiet])
            before.append(await _before_the_last_of_few(setting))
        for _, writer in (*flood, quiet):
            writer.close()
    finally:
        await setting.stop()
    assert max(before) <= 6, before


async def test_who_routes_steps_back_for_who_answers(folder: Path, receivers: Receivers, secret: bytes) -> None:
    setting = embedded(folder, receivers, secret, "[routing]\nniceness = 3\n")
    try:
        await setting.engine.start(deadline_s=90)
        mine = os.getpriority(os.PRIO_PROCESS, setting.engine.pid)
        back = {
            command[command.index("--supervised") + 1]: os.getpriority(os.PRIO_PROCESS, pid) - mine
            for pid, command in children(setting.engine.pid).items()
            if "--supervised" in command
        }
    finally:
        await setting.stop()
    assert back == {"ingest": 0, "route-deliver": 3}


async def _arrive_at_once(setting: Embedded, hospital: Hospital, connections: list[Connection]) -> None:
    pid = ingest_pid(setting)
    os.kill(pid, signal.SIGSTOP)
    try:
        for (_, writer), body in zip(connections, hospital.messages(len(connections)), strict=True):
            writer.write(frame(body))
            await writer.drain()
    finally:
        os.kill(pid, signal.SIGCONT)
    for reader, _ in connections:
        assert b"\rMSA|AA|" in await first_answer(reader)


async def _before_the_last_of_few(setting: Embedded) -> int:
    """How many of the newest round's messages stand before the one whose feed sent only one."""
    dsn = running_server(load_config(setting.folder / "tocengine.toml").engine.data_dir)
    connection = await asyncpg.connect(dsn)
    try:
        keys = await connection.fetch(
            "select key from log_record where topic = $1 order by position desc limit $2",
            TOPIC_NUMBERS[Topic.MESSAGES],
            CONNECTIONS + 1,
        )
    finally:
        await connection.close()
    order = [row["key"] for row in reversed(keys)]
    (quiet,) = [key for key in set(order) if order.count(key) == 1]
    return order.index(quiet)


def _feed(name: str, port: int) -> str:
    return f"""
[[feeds]]
name = "{name}"
facility = "stj"
protocol = "mllp"
listen = "127.0.0.1:{port}"
profile = "stj"
"""


async def test_while_routing_stands_still_a_flood_is_held_back_and_a_quiet_feed_is_not(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    """Routing and delivery are stopped, and go on later. Everything is taken all the while, and routed in the end."""
    hospital, flooded = Hospital(), Ports.free().mllp
    setting = embedded(folder, receivers, secret, _feed("flood", flooded), {"TOCENGINE__INTAKE__UNSLOWED_RATE": "10"})
    try:
        await setting.engine.start(deadline_s=90)
        (routing,) = [pid for pid, command in children(setting.engine.pid).items() if "deliver" in command]
        os.kill(routing, signal.SIGSTOP)
        try:
            async with _Flood(flooded, hospital.messages(4000)) as flood:
                while await metric(setting, "tocengine_intake_level") != 10:  # noqa: ASYNC110 - of the process
                    await asyncio.sleep(0.1)
                assert await metric(setting, "tocengine_intake_lag_seconds") > 0.5
                passed = []
                for body in hospital.messages(12):
                    before = flood.answered
                    await latencies(setting.ports.mllp, [body])
                    passed.append(flood.answered - before)
                    await asyncio.sleep(0.2)  # what a quiet feed is
                await flood.goes_on()
        finally:
            os.kill(routing, signal.SIGCONT)
        taken = flood.answered + len(passed)
        while await metric(setting, "tocengine_events_tracked_total") < taken:  # noqa: ASYNC110 - of the process
            await asyncio.sleep(0.2)
        while await metric(setting, "tocengine_intake_level"):  # noqa: ASYNC110 - of the process
            await asyncio.sleep(0.1)
    finally:
        await setting.stop()
    assert sum(passed) / len(passed) < CONNECTIONS / 4, passed


class _Flood:
    """A feed that sends all it can on many connections, for as long as the context is open."""

    def __init__(self, port: int, bodies: list[bytes]) -> None:
        self._port, self._bodies = port, bodies
        self.answered = 0

    async def __aenter__(self) -> "_Flood":
        self._senders = [asyncio.create_task(self._send()) for _ in range(CONNECTIONS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bodies.clear()
        await asyncio.gather(*self._senders)

    async def goes_on(self) -> None:
        """Returns when every connection can have had an answer more: held back is not shut out."""
        wanted = self.answered + CONNECTIONS
        async with asyncio.timeout(60):
            while self.answered < wanted:  # noqa: ASYNC110 - a poll is all a test needs
                await asyncio.sleep(0.1)

    async def _send(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while self._bodies:
            writer.write(frame(self._bodies.pop()))
            assert b"\rMSA|AA|" in await first_answer(reader)
            self.answered += 1
        writer.close()
