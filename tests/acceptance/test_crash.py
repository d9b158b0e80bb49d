"""kill -9 in mid-load: nothing acknowledged is lost, nobody is told twice, order holds, work goes on within 10 s.

`TOCENGINE_KILLS` says how often each is killed: 1 in `make test`, 10 in `make crash`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.acceptance.load import Load, Tally, arrived
from tests.acceptance.setting import Embedded, ScaledOut, Setting, embedded, scaled_out
from tests.services.kafka import JavaKafka, KafkaCluster
from tocengine.simulation.receivers import Receivers

pytestmark = [pytest.mark.crash, pytest.mark.alone, pytest.mark.timeout(900)]
TIMES = int(os.environ.get("TOCENGINE_KILLS", "1"))
LOADED = 60  # acknowledgments between two kills: enough for every stage to be busy
RECOVERY_S = 10.0
UNDER_WAY = 3  # notices that the one unanswered message of a connection may lead to
Kills = list[tuple[str, Tally, list[float]]]


async def _prove(setting: Setting, name: str, kill: Callable[[int], Awaitable[None]], kills: Kills) -> None:
    await setting.apply()
    await setting.start()
    seconds = []
    async with Load(setting.ports.mllp) as load:
        await load.until_acknowledged(LOADED)
        for number in range(TIMES):
            await kill(number)
            seconds.append(await _recovered(load, setting.receivers))
            await load.until_acknowledged(LOADED)
    tally = await arrived(load.expected, setting.receivers)
    tally.acknowledged = load.acknowledged
    kills.append((name, tally, seconds))
    assert (tally.lost, tally.duplicated, tally.disordered) == (0, 0, 0)
    assert max(seconds) < RECOVERY_S
    (verified,) = await setting.engine.ask("audit", "verify")
    assert verified["intact"] is True


async def _recovered(load: Load, receivers: Receivers) -> float:
    """Seconds until all that was acknowledged before the kill, and more than was under way then, have been told."""
    began, enough = time.monotonic(), len(load.expected) + UNDER_WAY * load.connections
    async with asyncio.timeout(60):
        while len(load.expected) < enough or set(load.expected[:enough]) - {each for each, _ in receivers.arrivals}:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("target", ["ingest", "deliver", "postgres"])
async def test_kill_on_the_embedded_default(
    target: str, folder: Path, receivers: Receivers, secret: bytes, kills: Kills
) -> None:
    """The supervisor starts again what dies; "deliver" is the process that routes and delivers."""
    setting: Embedded = embedded(folder, receivers, secret)

    async def kill(_number: int) -> None:
        setting.kill(target)

    try:
        await _prove(setting, f"embedded: {target}", kill, kills)
    finally:
        await setting.stop()


@pytest.mark.kafka
@pytest.mark.parametrize("role", ["ingest", "route", "deliver"])
async def test_kill_of_a_role_on_kafka(
    role: str, folder: Path, receivers: Receivers, secret: bytes, kills: Kills, postgres_dsn: str, kafka: KafkaCluster
) -> None:
    setting: ScaledOut = scaled_out(folder, receivers, secret, postgres_dsn, kafka.bootstrap, 1)

    async def kill(_number: int) -> None:
        await setting.kill_and_restart(role)

    try:
        await _prove(setting, f"kafka: {role}", kill, kills)
    finally:
        await setting.stop()


@pytest.mark.kafka
async def test_kill_of_one_broker_of_three(
    folder: Path, receivers: Receivers, secret: bytes, kills: Kills, postgres_dsn: str, three_kafka_brokers: JavaKafka
) -> None:
    brokers = three_kafka_brokers
    setting = scaled_out(folder, receivers, secret, postgres_dsn, brokers.bootstrap, 3)

    async def kill(number: int) -> None:
        if number > 0:  # the one killed before comes back first, so that two are always there
            await asyncio.to_thread(brokers.start_broker, (number - 1) % 3)
        brokers.kill_broker(number % 3)

    try:
        await _prove(setting, "kafka: a broker of three", kill, kills)
    finally:
        await setting.stop()
