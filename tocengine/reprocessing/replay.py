"""Owns the replay: a stretch of the log, or the messages that waited for a code, normalized again portion by portion.

Memory does not depend on how much that is: one portion at a time, and no faster than the events are published.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.model.codes import CodeKey
from tocengine.model.event import NO_CODE
from tocengine.model.message import Message
from tocengine.ports import MessageScanner
from tocengine.reprocessing.lookup import MARGIN, find, messages_of
from tocengine.reprocessing.postgres import Reprocessor, Request, Tally

PORTION = 200
Flow = Callable[[], Awaitable[None]]
"""Returns when more may be kept for publishing."""
Progress = Callable[[Tally, datetime], None]
"""Told after each portion what it came to so far, and when its last message was received."""
Ignores = Callable[[Message], bool]
"""Whether a message is stored and not read: the gate of its feed has passed it by."""

_BEGINNING = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Messages received from `since` until `until`; of one feed, or of all."""

    since: datetime
    until: datetime
    feed: str = ""


async def replay(
    scanner: MessageScanner,
    reprocessor: Reprocessor,
    stretch: Stretch,
    request: Request,
    flow: Flow,
    progress: Progress,
    ignores: Ignores,
    *,
    dry_run: bool = False,
) -> Tally:
    """Normalizes a stretch of the log again. Raises UnavailableError; what was kept until then goes its way."""
    tally = Tally()
    async for records in scanner.messages(stretch.since - MARGIN, stretch.until + MARGIN, PORTION):
        messages = [
            message
            for message in messages_of(records)
            if stretch.since <= message.received_at < stretch.until and stretch.feed in ("", message.feed)
        ]
        if messages:
            read = [message for message in messages if not ignores(message)]
            tally.leave_out(len(messages) - len(read))
            tally.add(await reprocessor.apply(read, request, dry_run=dry_run))
            progress(tally, messages[-1].received_at)
            await flow()
    return tally


async def replay_waiting(
    scanner: MessageScanner,
    reprocessor: Reprocessor,
    key: CodeKey,
    request: Request,
    flow: Flow,
    progress: Progress,
    *,
    settled: bool = False,
) -> Tally:
    """Normalizes what waits for a code again, with `settled` also what waited for it before it was mapped.

    Text that is no code waits under one name for all of it.
    """
    tally = Tally()
    after = _BEGINNING
    while True:
        async with reprocessor.pool.acquire() as connection:
            waiting = await PostgresLocalCodes().waiting(connection, key, NO_CODE, after, PORTION, settled=settled)
        if not waiting:
            return tally
        after = (waiting[-1][1], waiting[-1][0])
        found = await find(scanner, dict(waiting))
        tally.missing += len(waiting) - len(found)
        tally.add(await reprocessor.apply(list(found.values()), request))
        progress(tally, waiting[-1][1])
        await flow()
