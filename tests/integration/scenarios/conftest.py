"""Owns the fixtures of the scenarios: a town with a hospital, two nursing homes, a panel and a physician."""

from pathlib import Path

import pytest

from tests.integration.scenarios.hospital import Hospital
from tests.integration.scenarios.setting import TOWN, Setting
from tocengine.postgres import Pool


@pytest.fixture
def hospital() -> Hospital:
    return Hospital()


@pytest.fixture
async def town(pool: Pool, tmp_path: Path) -> Setting:
    setting = Setting(pool, tmp_path)
    await setting.apply(TOWN)
    return setting
