"""Owns how every Kafka client of the engine connects and is stopped: settings, secrets, bounds on time."""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypedDict

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

from tocengine.config import KafkaSettings
from tocengine.errors import ConfigurationError

log = structlog.get_logger()

KAFKA_ERRORS: Final = (KafkaError, OSError, TimeoutError)
"""What talking to Kafka raises when the brokers, or the way to them, are in trouble."""
STOP_TIMEOUT_S: Final = 3.0
REPEAT_WARNING_S: Final = 5.0
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class _TemplatesOnly(logging.Handler):
    """Passes aiokafka's warnings on as their templates, without arguments: those may be keys and values."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        template = str(record.msg)
        if record.created - self._told.get(template, 0.0) >= REPEAT_WARNING_S:
            self._told[template] = record.created
            log.warning("kafka_client", reason=template, status=record.levelname.lower())


def log_templates_only() -> None:
    """Takes aiokafka's own logging out of the process's: it writes values at debug level, and floods in an outage."""
    logger = logging.getLogger("aiokafka")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    if not any(isinstance(handler, _TemplatesOnly) for handler in logger.handlers):
        logger.addHandler(_TemplatesOnly())


class ConnectionOptions(TypedDict, total=False):
    """Arguments that producers, consumers and admin clients share."""

    bootstrap_servers: str
    security_protocol: str
    ssl_context: ssl.SSLContext
    sasl_mechanism: str
    sasl_plain_username: str
    sasl_plain_password: str
    request_timeout_ms: int
    metadata_max_age_ms: int


def connection_options(settings: KafkaSettings) -> ConnectionOptions:
    """The arguments for `settings`. Raises ConfigurationError for an unknown protocol or an unreadable secret."""
    protocol = settings.security_protocol
    if protocol not in _PROTOCOLS:
        raise ConfigurationError(
            f"event_log.kafka.security_protocol is {protocol!r}", hint=f"one of {', '.join(_PROTOCOLS)}"
        )
    options = ConnectionOptions(
        bootstrap_servers=settings.bootstrap_servers,
        security_protocol=protocol,
        request_timeout_ms=int(settings.request_timeout_s * 1000),
        metadata_max_age_ms=30_000,
    )
    if protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if protocol.startswith("SASL"):
        if settings.sasl_mechanism not in _MECHANISMS:
            raise ConfigurationError(
                f"event_log.kafka.sasl_mechanism is {settings.sasl_mechanism!r}",
                hint=f"one of {', '.join(_MECHANISMS)}",
            )
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = secret_text("event_log.kafka.sasl_password", settings.sasl_password)
    return options


def secret_text(setting: str, reference: str) -> str:
    """What ``env:NAME`` or ``file:PATH`` refers to. Raises ConfigurationError if it is not there."""
    kind, _, place = reference.partition(":")
    try:
        if kind == "env" and place:
            return os.environ[place]
        if kind == "file" and place:
            return Path(place).read_text(encoding="utf-8").strip()
    except (KeyError, OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{setting}: {reference} cannot be read") from None
    raise ConfigurationError(f"{setting} is not a reference to a secret", hint="env:NAME or file:PATH")


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = create_ssl_context(
            cafile=settings.ssl_cafile or None,
            certfile=settings.ssl_certfile or None,
            keyfile=settings.ssl_keyfile or None,
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"event_log.kafka.ssl_*: the certificates cannot be used ({type(error).__name__})"
        ) from error
    assert isinstance(context, ssl.SSLContext)
    return context


async def drop_producer(producer: AIOKafkaProducer) -> None:
    """Ends a producer that may be stuck; whatever it still holds fails. Never raises, takes a few seconds at most.

    aiokafka 0.14: with idempotence and the broker gone `stop` waits for ever for batches that never expire, and
    a sender left alone would publish them much later. So they are failed and the sender is cancelled first.
    """
    producer._message_accumulator.fail_all(KafkaError("the producer was dropped"))
    task = producer._sender.sender_task
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
        if not task.done():
            task.cancel()  # the first one waits for requests in flight; this one ends them
            await asyncio.wait([task], timeout=1.0)
    await _bounded(producer.stop())
    await _bounded(producer.client.close())


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leaves the group and ends the consumer. Never raises, takes a few seconds at most."""
    await _bounded(consumer.stop())
    await _bounded(consumer._client.close())


async def _bounded(stopping: Awaitable[object]) -> None:
    with suppress(Exception):
        await asyncio.wait_for(stopping, STOP_TIMEOUT_S)
