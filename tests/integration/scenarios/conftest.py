"""Owns the fixtures of the scenarios: a town with a hospital, two nursing homes, a panel and a physician."""

from pathlib import Path

import pytest

from tests.integration.scenarios.hospital import Hospital
from tests.integration.scenarios.setting import HOMES, TOWN, Setting, directory, person
from tocengine.postgres import Pool


@pytest.fixture
def hospital() -> Hospital:
    return Hospital()


@pytest.fixture
async def town(pool: Pool, tmp_path: Path) -> Setting:
    setting = Setting(pool, tmp_path)
    await setting.apply(TOWN)
    return setting


@pytest.fixture
async def panels(town: Setting) -> Setting:
    """Patient 11 is haven's resident, patient 22 meadow's."""
    await town.apply(directory(HOMES, [person("patel", "1234567893")], {"haven": ["11"], "meadow": ["22"]}))
    return town
