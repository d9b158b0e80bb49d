"""Owns the fixtures of the FHIR tests."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.integration.fhir.setting import Partner, Start
from tocengine.postgres import Pool


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def start(pool: Pool, session: aiohttp.ClientSession) -> AsyncIterator[Start]:
    """Starts servers, and ends them with the test."""
    started: list[Partner] = []

    async def start(**settings: Any) -> Partner:
        partner = Partner(pool, session, **settings)
        await partner.server.start()
        started.append(partner)
        return partner

    yield start
    for partner in started:
        await partner.server.stop()


@pytest.fixture
async def partner(start: Start) -> Partner:
    """A server with its defaults."""
    return await start()
