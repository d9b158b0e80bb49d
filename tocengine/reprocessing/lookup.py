"""Owns how single messages are found again in a log that has no index: by when they were received."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

from tocengine.errors import EventDataError
from tocengine.eventlog.records import CloudEventReader
from tocengine.model.ids import MessageId
from tocengine.model.message import Message
from tocengine.ports import LogRecord, MessageScanner

MARGIN = timedelta(minutes=5)
"""How far the clocks of a listener and of the log may differ, with the time an append may take."""
APART = timedelta(minutes=10)
"""Messages that lie further apart are looked for separately."""

_reader = CloudEventReader()


def messages_of(records: Sequence[LogRecord]) -> Iterator[Message]:
    """Those that can be decoded; what stands in the log otherwise was never taken from a sender."""
    for record in records:
        try:
            yield _reader.message(record)
        except EventDataError:
            continue


async def find(scanner: MessageScanner, wanted: Mapping[MessageId, datetime]) -> dict[MessageId, Message]:
    """The messages of `wanted` (id -> when received) that the log still holds. Raises UnavailableError."""
    found: dict[MessageId, Message] = {}
    for group in _groups(sorted(wanted.items(), key=lambda item: item[1])):
        left = {message_id for message_id, _ in group}
        scan = scanner.messages(group[0][1] - MARGIN, group[-1][1] + MARGIN)
        async with aclosing(scan):  # the way is not always gone to its end
            async for records in scan:
                for message in messages_of(records):
                    if message.message_id in left:
                        left.remove(message.message_id)
                        found[message.message_id] = message
                if not left:
                    break
    return found


def _groups(ordered: Sequence[tuple[MessageId, datetime]]) -> Iterator[list[tuple[MessageId, datetime]]]:
    group: list[tuple[MessageId, datetime]] = []
    for item in ordered:
        if group and item[1] - group[-1][1] > APART:
            yield group
            group = []
        group.append(item)
    if group:
        yield group
