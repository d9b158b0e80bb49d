"""Owns the fixtures for real Kafka brokers, and what the test run says where there are none.

Each pytest-xdist worker that meets a Kafka test starts a broker of its own: a shared one would have to outlive the
worker that started it. Topics get a prefix per test, so that one broker serves a whole session.
"""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.services.kafka import JavaKafka, KafkaCluster, NoKafkaError, find_kafka, java_missing
from tests.services.memory import place
from tocengine.config import EventLogSettings, KafkaSettings

REQUIRED = os.environ.get("TOCENGINE_REQUIRE_SERVICES") == "1"
_missing_here: list[str] = []


def _absent(reason: str) -> None:
    """Skips the test, or fails it where services are required."""
    if REQUIRED:
        pytest.fail(f"no Kafka, and TOCENGINE_REQUIRE_SERVICES=1: {reason}", pytrace=False)
    if reason not in _missing_here:
        _missing_here.append(reason)
    pytest.skip(f"no Kafka: {reason}")


@pytest.fixture(scope="session")
def _kafka_or_reason() -> Iterator[KafkaCluster | str]:
    try:
        cluster = find_kafka()
    except NoKafkaError as error:
        yield str(error)
        return
    yield cluster
    cluster.stop()


@pytest.fixture
def kafka(_kafka_or_reason: KafkaCluster | str) -> KafkaCluster:
    """The session's Kafka, one broker; the test is skipped where there is none."""
    if isinstance(_kafka_or_reason, str):
        _absent(_kafka_or_reason)
        raise AssertionError("unreachable")
    return _kafka_or_reason


@pytest.fixture
def kafka_settings(kafka: KafkaCluster) -> EventLogSettings:
    """Event log settings on the session's Kafka, with topics of this test's own."""
    return settings_for(kafka)


@pytest.fixture
def own_kafka() -> Iterator[JavaKafka]:
    """One broker of this test's own, to be killed."""
    yield from _own(1)


@pytest.fixture
def three_kafka_brokers() -> Iterator[JavaKafka]:
    """Three brokers of this test's own (replication 3, min.insync 2), to be killed."""
    yield from _own(3)


def _own(brokers: int) -> Iterator[JavaKafka]:
    if reason := java_missing():
        _absent(reason)
    cluster = JavaKafka(brokers, place=place())
    yield cluster
    cluster.stop()


def settings_for(
    cluster: KafkaCluster, *, partitions: int = 4, request_timeout_s: float = 10.0, session_timeout_s: float = 6.0
) -> EventLogSettings:
    """Settings for `cluster` with a prefix that no other test uses."""
    return EventLogSettings(
        kind="kafka",
        kafka=KafkaSettings(
            bootstrap_servers=cluster.bootstrap,
            topic_prefix=f"t{uuid4().hex[:8]}.",
            partitions=partitions,
            replication_factor=cluster.brokers,
            min_insync=min(2, cluster.brokers),
            request_timeout_s=request_timeout_s,
            session_timeout_s=session_timeout_s,
        ),
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in the last lines that Kafka was not there."""
    reasons = list(_missing_here)
    for report in terminalreporter.stats.get("skipped", []):  # of xdist workers: only their reports come here
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if "no Kafka: " in text and (reason := text.partition("no Kafka: ")[2]) not in reasons:
            reasons.append(reason)
    if reasons:
        terminalreporter.section("Kafka")
        terminalreporter.line(f"Kafka suites did not run: {'; '.join(reasons)}")
