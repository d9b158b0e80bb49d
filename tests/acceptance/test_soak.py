"""A short soak: random kills and failing receivers for a minute. `make soak MINUTES=60` is the long one."""

from pathlib import Path

import pytest

from tests.acceptance.setting import embedded
from tests.endurance.partners import FailingReceivers
from tests.endurance.soak import Plan, embedded_kills, soaking

pytestmark = [pytest.mark.crash, pytest.mark.alone, pytest.mark.timeout(420)]


async def test_a_minute_with_kills_and_failing_receivers_loses_nothing(folder: Path, secret: bytes) -> None:
    plan = Plan(minutes=1.0, rate=30.0, connections=8, kill_every_s=12.0)
    async with FailingReceivers(secret) as receivers:
        setting = embedded(folder, receivers, secret)
        async with soaking(setting, receivers, embedded_kills(setting), plan, folder / "soak.jsonl") as soak:
            report = await soak.run()
    assert report.defects() == []
    assert sum(report.kills.values()) >= 2
    assert report.receiver_failures > 20
    assert report.notices > 1000
