"""The event log: what was received and what happened, durable and in order, in PostgreSQL or in Kafka."""

from collections.abc import Sequence

from tocengine.config import EventLogSettings
from tocengine.errors import ConfigurationError
from tocengine.eventlog.topics import Topic
from tocengine.ports import EventLog, LogConsumer, LogProgress, MessageScanner
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics

__all__ = ["Topic", "open_consumer", "open_event_log", "open_progress", "open_scanner"]


async def open_event_log(
    settings: EventLogSettings, dsn: str, *, topics: Sequence[Topic] = (), metrics: Metrics | None = None
) -> EventLog:
    """The writing side, connected. `topics` are those this process appends to from the start.

    On PostgreSQL it becomes their appender at once, of others with the first append to them (the outbox relay's
    way: whoever leads appends). Raises UnavailableError, ConfigurationError. Close it after use.
    """
    if settings.kind == "postgres":
        from tocengine.eventlog.postgres import PostgresEventLog

        postgres = PostgresEventLog(dsn, settings, metrics)
        try:
            await postgres.start(topics)
        except BaseException:
            await postgres.close()
            raise
        return postgres
    if settings.kind == "kafka":
        from tocengine.eventlog.kafka import KafkaEventLog
        from tocengine.eventlog.kafka_topics import prepare_topics

        await prepare_topics(settings.kafka)
        kafka = KafkaEventLog(settings, metrics)
        await kafka.start()
        return kafka
    raise _unknown(settings.kind)


async def open_consumer(
    settings: EventLogSettings, dsn: str, pool: Pool, topics: Sequence[Topic], *, group: str = "tocengine.route"
) -> LogConsumer:
    """The reading side of `topics`. Raises UnavailableError, ConfigurationError. Close it after use."""
    if settings.kind == "postgres":
        from tocengine.eventlog.postgres_consumer import PostgresLogConsumer

        return PostgresLogConsumer(dsn, topics)
    if settings.kind == "kafka":
        from tocengine.eventlog.kafka_consumer import KafkaLogConsumer
        from tocengine.eventlog.kafka_topics import prepare_topics

        cluster_id = await prepare_topics(settings.kafka)
        return KafkaLogConsumer(settings.kafka, pool, topics, cluster_id=cluster_id, group=group)
    raise _unknown(settings.kind)


async def open_progress(settings: EventLogSettings, pool: Pool, topic: Topic) -> LogProgress:
    """How far routing is with `topic`. Raises UnavailableError, ConfigurationError. Close it after use."""
    if settings.kind == "postgres":
        from tocengine.eventlog.postgres_progress import PostgresLogProgress

        return PostgresLogProgress(pool, topic)
    if settings.kind == "kafka":
        from tocengine.eventlog.kafka_progress import KafkaLogProgress
        from tocengine.eventlog.kafka_topics import prepare_topics

        cluster_id = await prepare_topics(settings.kafka)
        return KafkaLogProgress(settings.kafka, pool, topic, cluster_id=cluster_id)
    raise _unknown(settings.kind)


def open_scanner(settings: EventLogSettings, dsn: str) -> MessageScanner:
    """Reads the messages of the log again. Raises ConfigurationError."""
    if settings.kind == "postgres":
        from tocengine.eventlog.postgres_scan import PostgresMessageScanner

        return PostgresMessageScanner(dsn)
    if settings.kind == "kafka":
        from tocengine.eventlog.kafka_scan import KafkaMessageScanner

        return KafkaMessageScanner(settings.kafka)
    raise _unknown(settings.kind)


def _unknown(kind: str) -> ConfigurationError:
    return ConfigurationError(f"event_log.kind is {kind!r}", hint='"postgres" or "kafka"')
