"""Owns the end of a command's way: its events are in the log, and routing has come to them.

Where an engine takes messages in, that engine publishes; where none does, the command does it itself.
"""

import asyncio
import time
from types import TracebackType

from tocengine.config import EventLogSettings
from tocengine.errors import UnavailableError
from tocengine.eventlog import Topic, open_event_log
from tocengine.eventlog.postgres_session import LockClass, close_session, open_session, try_locks
from tocengine.eventlog.relay import RENORMALIZED, OutboxRelay
from tocengine.ports import EventLog
from tocengine.postgres import Pool, unavailable_errors
from tocengine.reprocessing.postgres import SQL, Request

BACKLOG = 2_000
"""Events that may wait to be published while a run goes on."""
PATIENCE_S = 30.0
_POLL_S = 0.1


class Publisher:
    """Used as a context: what it opened is closed at its end."""

    def __init__(self, pool: Pool, dsn: str, settings: EventLogSettings, patience_s: float = PATIENCE_S) -> None:
        self._pool, self._dsn, self._settings, self._patience_s = pool, dsn, settings, patience_s
        self._log: EventLog | None = None
        self.led = False  # no engine takes messages in: this process published

    async def __aenter__(self) -> "Publisher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._log is not None:
            await self._log.close()

    async def flow(self) -> None:
        """Returns when few enough events wait for a run to go on."""
        await self._until(BACKLOG)

    async def finish(self) -> None:
        """Returns when all events are in the log. Raises UnavailableError where nothing moves."""
        await self._until(0)

    async def tracked(self, request: Request) -> int:
        """Waits while routing comes to the events of a run; returns how many it has not come to when it stands still.

        Zero but where no engine routes, or it is far behind.
        """

        async def untracked() -> int:
            count: int = await self._pool.fetchval(SQL["untracked"], request.run_id)
            return count

        left = await untracked()
        moved = time.monotonic()
        while left and not self.led and time.monotonic() - moved < self._patience_s:
            await asyncio.sleep(_POLL_S)
            before, left = left, await untracked()
            moved = time.monotonic() if left < before else moved
        return left

    async def _until(self, at_most: int) -> None:
        left = await self._unpublished()
        moved = time.monotonic()
        while left > at_most:
            if time.monotonic() - moved > self._patience_s:
                raise UnavailableError(f"{left} events wait to be published; they are as soon as the engine can")
            if not await self._lead():
                await asyncio.sleep(_POLL_S)
            before, left = left, await self._unpublished()
            moved = time.monotonic() if left < before else moved

    async def _unpublished(self) -> int:
        with unavailable_errors():
            count: int = await self._pool.fetchval(SQL["unpublished"])
            return count

    async def _lead(self) -> bool:
        """Publishes what waits, unless another process does."""
        connection = None
        try:
            with unavailable_errors():
                connection = await open_session(self._dsn, "renormalized relay")
                if not await try_locks(connection, LockClass.RELAY, [RENORMALIZED.lock]):
                    return False
                if self._log is None:
                    topics = (Topic.MESSAGES, Topic.EVENTS, Topic.QUARANTINE)
                    self._log = await open_event_log(self._settings, self._dsn, topics=topics)
                await OutboxRelay(self._dsn, self._log, outbox=RENORMALIZED).publish(connection)
                self.led = True
                return True
        finally:
            await close_session(connection)
