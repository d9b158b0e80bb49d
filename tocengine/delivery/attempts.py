"""Owns the attempt while it is under way: what was committed as its intent, and what came of it."""

from datetime import datetime
from uuid import UUID

import msgspec

from tocengine.delivery.lifecycle import Standing
from tocengine.model.directory import Endpoint
from tocengine.model.ids import EncounterId, NoticeId, RecipientId
from tocengine.model.notice import Failure, Notice, Outcome
from tocengine.ports import Address

NOT_SENT = Outcome(failure=Failure.TRANSIENT, delivered=False, reached=False, detail="not sent")
"""The outcome of an attempt that was intended and, by a stop or a resting endpoint, never begun."""
DRAINED = Outcome(failure=Failure.AMBIGUOUS, delivered=False, detail="stopped before the answer")
"""The outcome of an attempt that was still open when the worker had to end."""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A lane under a lease. `probes` names the endpoint it may try although that one rests."""

    recipient_id: RecipientId
    encounter_id: EncounterId
    lease: UUID
    probes: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One intended sending of the head of a lane."""

    attempt_id: UUID
    lane: Lane
    notice: Notice
    feed: str
    received_at: datetime  # of the message the notice speaks of
    standing: Standing
    endpoint: Endpoint
    address: Address
    body: bytes
    digest: bytes  # SHA-256 of `body`

    @property
    def notice_id(self) -> NoticeId:
        """The notice, under whose id it is sent however often."""
        return self.notice.notice_id

    @property
    def probe(self) -> bool:
        """Whether it is sent to find out if the endpoint is back."""
        return self.lane.probes == self.endpoint.id


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that ended at `at` after `seconds`."""

    attempt: Attempt
    outcome: Outcome
    at: datetime
    seconds: float

    @property
    def positive(self) -> bool:
        """Whether the receiver took it: recorded whoever holds the lane by now."""
        return self.outcome.failure is None

    @property
    def name(self) -> str:
        """The outcome as the attempt's row and the metrics have it."""
        if self.outcome.failure is not None:
            return self.outcome.failure.value
        return "delivered" if self.outcome.delivered else "received"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a lane whose lease ends: due at a time, or parked until `waits_for` is back."""

    lane: Lane
    due_at: datetime | None
    waits_for: str | None = None
    until: datetime | None = None  # of a parked lane: when its first notice expires
