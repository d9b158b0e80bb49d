"""Two processes of each role share the work on Kafka, also while one joins and another one dies in mid-load."""

import re
from pathlib import Path

import aiohttp
import pytest

from tests.acceptance.load import Load, arrived
from tests.acceptance.setting import scaled_out
from tests.services.kafka import KafkaCluster
from tocengine.simulation.engine import EngineProcess
from tocengine.simulation.receivers import Receivers

pytestmark = [pytest.mark.crash, pytest.mark.kafka, pytest.mark.timeout(300)]


async def _counted(process: EngineProcess, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{process.admin}/metrics") as response:
        text = await response.text()
    return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)))


async def test_two_of_each_role_share_the_work_through_rebalances(
    folder: Path, receivers: Receivers, secret: bytes, postgres_dsn: str, kafka: KafkaCluster
) -> None:
    setting = scaled_out(folder, receivers, secret, postgres_dsn, kafka.bootstrap, 1)
    await setting.apply()
    try:
        await setting.start()
        ingest, ports = setting.second("ingest")
        await ingest.start()
        async with Load(setting.ports.mllp) as here, Load(ports.mllp, number_from=500_001) as there:
            await here.until_acknowledged(60)
            for role in ("route", "deliver"):
                await setting.second(role)[0].start()  # partitions and lanes are shared from now on
            await here.until_acknowledged(100)
            await there.until_acknowledged(100)
            shared = [
                await _counted(setting.processes[name], metric)
                for name, metric in (
                    ("ingest-2", "tocengine_messages_received_total"),
                    ("route", "tocengine_events_tracked_total"),
                    ("route-2", "tocengine_events_tracked_total"),
                    ("deliver", "tocengine_delivery_attempts_total"),
                    ("deliver-2", "tocengine_delivery_attempts_total"),
                )
            ]
            assert all(shared), shared
            await setting.processes.pop("route").killed()  # the other one takes all partitions, nobody comes back
            await setting.processes.pop("deliver").killed()
            await here.until_acknowledged(100)
        tally = await arrived(here.expected + there.expected, receivers)
        assert (tally.lost, tally.duplicated, tally.disordered) == (0, 0, 0)
        (verified,) = await setting.engine.ask("audit", "verify")
        assert verified["intact"] is True
    finally:
        await setting.stop()
