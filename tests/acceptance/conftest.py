"""Owns the fixtures of the acceptance tests, and the table of what the kills did, printed at the end of the run."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.load import Tally
from tests.acceptance.received import assert_valid
from tests.acceptance.setting import Setting, embedded, scaled_out
from tests.conftest import fresh_database
from tests.services.kafka import KafkaCluster
from tests.services.memory import place
from tocengine.simulation.receivers import Receivers

KILLS = pytest.StashKey[list[tuple[str, Tally, list[float]]]]()


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that a PostgreSQL started by root can pass through; on the disk where its seconds count."""
    where = None if request.node.get_closest_marker("alone") else place()
    with tempfile.TemporaryDirectory(prefix="tocengine-acceptance-", dir=where, ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture
def secret() -> bytes:
    """What the partners' webhooks are signed with."""
    return secrets.token_bytes(24)


@pytest.fixture
async def receivers(secret: bytes) -> AsyncIterator[Receivers]:
    """The partners; every FHIR notice they took is looked at once more when the test is over."""
    async with Receivers(secret) as receivers:
        yield receivers
    assert_valid(receivers.bodies)


@pytest.fixture(params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
async def setting(
    request: pytest.FixtureRequest, folder: Path, receivers: Receivers, secret: bytes, postgres_server: str
) -> AsyncIterator[Setting]:
    """The engine, not started yet, on each event log. Stopped by the fixture whatever the test did."""
    if request.param == "postgres":
        made: Setting = embedded(folder, receivers, secret)
        yield made
        await made.stop()
        return
    kafka: KafkaCluster = request.getfixturevalue("kafka")
    async for dsn in fresh_database(postgres_server):
        made = scaled_out(folder, receivers, secret, dsn, kafka.bootstrap, 1)
        yield made
        await made.stop()


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> list[tuple[str, Tally, list[float]]]:
    """Where a crash test leaves its row of the table: what was killed, the tally, seconds to recover from each."""
    return request.config.stash.setdefault(KILLS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the crash table."""
    rows = config.stash.get(KILLS, [])
    if not rows:
        return
    terminalreporter.section("kills in mid-load")
    head = ("killed", "times", "acked", "lost", "duplicated", "same id again", "disordered", "recovery s (max)")
    terminalreporter.write_line("{:<24}{:>6}{:>8}{:>6}{:>12}{:>15}{:>12}{:>18}".format(*head))
    for name, tally, seconds in rows:
        terminalreporter.write_line(
            f"{name:<24}{len(seconds):>6}{tally.acknowledged:>8}{tally.lost:>6}{tally.duplicated:>12}"
            f"{tally.repeated:>15}{tally.disordered:>12}{max(seconds):>18.1f}"
        )
