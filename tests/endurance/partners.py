"""Owns partners that fail a share of their requests, in the two ways that matter: before taking a notice, and after."""

import random
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

from tests.acceptance.load import Silence
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers


@dataclass
class FailingReceivers(Receivers):
    """Refuses half of `failing` with 503; takes the other half and answers 504, as a gateway that lost the answer.

    Bodies are not kept: an hour of them does not fit in memory.
    """

    failing: float = 0.05
    failures: int = 0
    silence: Silence = field(default_factory=Silence)  # of notices
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    def __post_init__(self) -> None:
        """Failures before a notice is taken go the way of the fault injection there is."""
        self.answer = lambda _notice_id: self._status(503)

    def _accept(self, notice: Expected, notice_id: str, body: bytes) -> web.Response:
        self.arrivals.append((notice, notice_id))
        self.silence.heard()
        return web.Response(status=self._status(504))

    def _status(self, failure: int) -> int:
        if self.chance.random() >= self.failing / 2:
            return 200
        self.failures += 1
        return failure
