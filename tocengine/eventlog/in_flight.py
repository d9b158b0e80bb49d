"""Owns the bound on what is being appended at one time, so that a slow log holds senders back and not memory."""

import asyncio
from collections import deque
from contextlib import suppress

import msgspec


class _Waiter(msgspec.Struct, eq=False):
    records: int
    size: int
    admitted: asyncio.Future[None]


class InFlight:
    """Admits appends first come, first served while both bounds hold; a larger one than the bounds goes alone."""

    def __init__(self, max_records: int = 512, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_records, self._max_bytes = max_records, max_bytes
        self._records = self._bytes = 0
        self._waiting: deque[_Waiter] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    async def enter(self, records: int, size: int) -> None:
        """Returns when there is room for `records` of `size` bytes together; pair it with `leave`."""
        if not self._waiting and self._fits(records, size):
            self._admit(records, size)
            return
        waiter = _Waiter(records, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled():
                self.leave(records, size)  # admitted and cancelled in the same turn of the loop
            else:
                with suppress(ValueError):
                    self._waiting.remove(waiter)
                self.leave(0, 0)  # whoever stood behind a large one may fit now
            raise

    def leave(self, records: int, size: int) -> None:
        """Gives the room back."""
        self._records -= records
        self._bytes -= size
        while self._waiting and self._fits(self._waiting[0].records, self._waiting[0].size):
            waiter = self._waiting.popleft()
            if waiter.admitted.done():  # cancelled, and not yet woken to leave the line itself
                continue
            self._admit(waiter.records, waiter.size)
            waiter.admitted.set_result(None)
        if self._records == 0:
            self._idle.set()

    async def drained(self) -> None:
        """Returns when nothing is admitted any more."""
        await self._idle.wait()

    def _fits(self, records: int, size: int) -> bool:
        return self._records == 0 or (
            self._records + records <= self._max_records and self._bytes + size <= self._max_bytes
        )

    def _admit(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size
        self._idle.clear()
