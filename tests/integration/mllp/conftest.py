"""Owns the fixture of the MLLP tests."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.mllp.setting import Start, sites


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts feeds, and ends them with the test: ``await start(profile, setting=value)``."""
    async with sites() as start:
        yield start
