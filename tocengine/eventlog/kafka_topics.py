"""Owns the topics in Kafka: creates them with settings that keep what was acknowledged, and checks those it finds."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from tocengine.config import KafkaSettings
from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.eventlog.kafka_client import KAFKA_ERRORS, connection_options, log_templates_only
from tocengine.eventlog.topics import MAX_RECORD_BYTES, Topic

log = structlog.get_logger()

MAX_MESSAGE_BYTES: Final = MAX_RECORD_BYTES + 1024 * 1024
"""The topics' limit for a batch: one record of the largest size, with the batch's own overhead."""
FETCH_BYTES: Final = MAX_MESSAGE_BYTES
_TOPIC_ALREADY_EXISTS: Final = 36
_SETTLE_S: Final = 10.0


def topic_name(settings: KafkaSettings, topic: Topic) -> str:
    """The name in Kafka, with the configured prefix."""
    return settings.topic_prefix + topic


async def prepare_topics(settings: KafkaSettings, topics: Sequence[Topic] = tuple(Topic)) -> str:
    """Creates what is missing, checks what is there, and returns the cluster's id.

    Raises ConfigurationError for topics that cannot hold what the engine writes, UnavailableError when the
    brokers do not answer in time.
    """
    if settings.min_insync > settings.replication_factor:
        raise ConfigurationError(
            f"event_log.kafka.min_insync is {settings.min_insync}, more than replication_factor "
            f"({settings.replication_factor})",
            hint="nothing could be written",
        )
    log_templates_only()
    admin = AIOKafkaAdminClient(**connection_options(settings))
    try:
        async with asyncio.timeout(2 * settings.request_timeout_s):
            await admin.start()
            await _create(admin, settings, topics)
            await _check(admin, settings, topics)
            cluster = (await admin.describe_cluster()).get("cluster_id")
            return str(cluster or "")
    except KAFKA_ERRORS as error:
        raise UnavailableError(f"Kafka does not answer at {settings.bootstrap_servers}") from error
    finally:
        try:
            await asyncio.wait_for(admin.close(), 2.0)
        except KAFKA_ERRORS:
            log.info("kafka_admin_not_closed")


def topic_configuration(settings: KafkaSettings) -> dict[str, str]:
    """What a new topic is created with. Kept for `retention_days`; acknowledged only by `min_insync` replicas."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.retention_days * 24 * 3600 * 1000),
        "retention.bytes": "-1",
        "min.insync.replicas": str(settings.min_insync),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }


async def _create(admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: Sequence[Topic]) -> None:
    present = set(await admin.list_topics())
    missing = [topic_name(settings, topic) for topic in topics if topic_name(settings, topic) not in present]
    if not missing:
        return
    response = await admin.create_topics(
        [
            NewTopic(
                name, settings.partitions, settings.replication_factor, topic_configs=topic_configuration(settings)
            )
            for name in missing
        ]
    )
    for name, code, *_ in response.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):  # another process may have been faster
            raise ConfigurationError(
                f"topic {name} cannot be created: {for_code(code).__name__}",
                hint="replication_factor needs as many brokers; or create the topics beforehand",
            )
        log.info("topic_created", topic=name, count=settings.partitions)


async def _check(admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: Sequence[Topic]) -> None:
    names = [topic_name(settings, topic) for topic in topics]
    for description in await _described(admin, names):
        found = len(description["partitions"])
        if found != settings.partitions:
            raise ConfigurationError(
                f"topic {description['topic']} has {found} partitions, event_log.kafka.partitions is "
                f"{settings.partitions}",
                hint="fixed once created: another number would break the order of each patient",
            )
    responses = await admin.describe_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": "", "min.insync.replicas": ""})
            for name in names
        ]
    )
    for response in responses:
        for code, _message, _kind, name, entries, *_ in response.resources:
            if code == 0:
                _check_configuration(settings, name, {entry[0]: entry[1] for entry in entries})


def _check_configuration(settings: KafkaSettings, name: str, found: dict[str, str]) -> None:
    largest = int(found.get("max.message.bytes", MAX_MESSAGE_BYTES))
    if largest < MAX_MESSAGE_BYTES:
        raise ConfigurationError(
            f"topic {name}: max.message.bytes is {largest}",
            hint=f"at least {MAX_MESSAGE_BYTES}, or large messages cannot be stored",
        )
    insync = int(found.get("min.insync.replicas", settings.min_insync))
    if insync < settings.min_insync:
        raise ConfigurationError(
            f"topic {name}: min.insync.replicas is {insync}, event_log.kafka.min_insync is {settings.min_insync}",
            hint="what is acknowledged could be lost with one broker",
        )


async def _described(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[dict[str, Any]]:
    """The topics' metadata, once every partition has a leader: a new topic takes a moment."""
    deadline = asyncio.get_running_loop().time() + _SETTLE_S
    while True:
        found: list[dict[str, Any]] = await admin.describe_topics(list(names))
        settled = all(
            topic["error_code"] == 0 and topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"])
            for topic in found
        )
        if settled or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(0.1)
