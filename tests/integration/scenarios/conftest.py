"""Owns the fixtures of the scenarios: a town with a hospital, two nursing homes, a panel and a physician."""

import secrets
from pathlib import Path

import pytest

from tests.integration.scenarios.hospital import Hospital
from tests.integration.scenarios.setting import HOMES, TOWN, Setting, directory, person
from tocengine.postgres import Pool
from tocengine.simulation.configuration import Ports, write_settings


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


@pytest.fixture
def configuration(tmp_path: Path, postgres_dsn: str) -> Path:
    """The configuration of an engine on the database of the test."""
    for name in ("hash", "signing"):
        (tmp_path / name).write_text(secrets.token_hex(32))
    keys = f'[keys]\npatient_hash = "file:{tmp_path}/hash"\naudit_signing = "file:{tmp_path}/signing"\n'
    return write_settings(tmp_path, Ports.free(), f'[postgres]\ndsn = "{postgres_dsn}"\n{keys}')
