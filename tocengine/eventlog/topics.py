"""Owns the topics: their names, their numbers in PostgreSQL, who may append to them, and how large a record may be."""

from enum import StrEnum
from typing import Final

from tocengine.errors import ContentError
from tocengine.model.message import Problem
from tocengine.ports import LogRecord

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""Key, headers and value of one record. A frame of 5 MiB fits as base64, and as an event with its FHIR."""

_RECORD_OVERHEAD: Final = 256


class Topic(StrEnum):
    """The topics of the engine, without any configured prefix."""

    MESSAGES = "toc.messages.v1"  # raw bytes, as received
    EVENTS = "toc.events.v1"  # normalized
    TRANSITIONS = "toc.transitions.v1"  # what happened to encounters
    QUARANTINE = "toc.quarantine.v1"  # what could not be normalized, with its bytes


class TopicGroup(StrEnum):
    """Topics that one process appends to in one commit; the PostgreSQL log has one appender for each group."""

    INTAKE = "intake"
    OUTCOME = "outcome"


TOPIC_NUMBERS: Final = {  # log_record.topic; never renumber
    Topic.MESSAGES: 1,
    Topic.EVENTS: 2,
    Topic.TRANSITIONS: 3,
    Topic.QUARANTINE: 4,
}

TOPIC_GROUPS: Final = {
    Topic.MESSAGES: TopicGroup.INTAKE,
    Topic.EVENTS: TopicGroup.INTAKE,
    Topic.QUARANTINE: TopicGroup.INTAKE,
    Topic.TRANSITIONS: TopicGroup.OUTCOME,
}

GROUP_NUMBERS: Final = {TopicGroup.INTAKE: 1, TopicGroup.OUTCOME: 2}


def record_bytes(record: LogRecord) -> int:
    """The size a record counts for, in bytes; raises ContentError where no log takes it (MAX_RECORD_BYTES)."""
    size = len(record.value) + len(record.key) + _RECORD_OVERHEAD
    if size > MAX_RECORD_BYTES:
        raise ContentError(
            Problem(reason="record_too_large", text="The message is larger than the event log takes", stage="log")
        )
    return size
