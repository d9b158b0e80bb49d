"""Owns what an attempt's outcome makes of a notice: outcome in, verdict out. Pure; rows are written elsewhere.

QUEUED -> SENDING (intent committed) -> DELIVERED | SENT (received only) | QUEUED again | FAILED (dead letter)
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from tocengine.model.notice import Failure, NoticeState, Outcome
from tocengine.model.work import WorkKind


class EndReason(StrEnum):
    """Why a notice ended other than by delivery; the `reason` of its row."""

    MAX_AGE = "MAX_AGE"
    REJECTED = "REJECTED"
    NO_ENDPOINT = "NO_ENDPOINT"
    ENDPOINT_DISABLED = "ENDPOINT_DISABLED"
    NO_RECIPIENT = "NO_RECIPIENT"
    CANCELLATION_NOT_SENDABLE = "CANCELLATION_NOT_SENDABLE"
    RENDER_FAILED = "RENDER_FAILED"
    OPTED_OUT = "OPTED_OUT"


WORK_FOR_REASON = {
    EndReason.MAX_AGE: WorkKind.NOTICE_UNDELIVERABLE,
    EndReason.REJECTED: WorkKind.NOTICE_UNDELIVERABLE,
    EndReason.NO_ENDPOINT: WorkKind.NOTICE_UNDELIVERABLE,
    EndReason.ENDPOINT_DISABLED: WorkKind.NOTICE_UNDELIVERABLE,
    EndReason.RENDER_FAILED: WorkKind.NOTICE_UNDELIVERABLE,
    EndReason.CANCELLATION_NOT_SENDABLE: WorkKind.CANCELLATION_NOT_SENDABLE,
}
"""Which ends a person must hear of. A recipient retired on purpose is none of them,
and neither is a patient who wants nothing told."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a notice stood when its attempt began.

    `usable` are the indexes of the recipient's endpoints that can carry it, in order of preference;
    `possibly_told` is what was known before this attempt.
    """

    attempt: int
    endpoint: int
    usable: tuple[int, ...]
    possibly_told: bool
    expires_at: datetime


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Where it stands now. `due_at` None on a QUEUED notice: it waits until its endpoint is resumed."""

    state: NoticeState
    endpoint: int
    possibly_told: bool
    expires_at: datetime
    due_at: datetime | None = None
    reason: EndReason | None = None
    moved: bool = False  # it goes on over another endpoint

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the notice by itself."""
        return self.state is not NoticeState.QUEUED


def after_attempt(standing: Standing, outcome: Outcome, now: datetime, delay_s: float, max_age: timedelta) -> Verdict:
    """The verdict on an attempt (domain 4.1 and 5.6).

    `delay_s` is what the backoff curve asks for after this attempt; a receiver's Retry-After prolongs it.
    A failed notice is due no later than it expires, so that its end is noticed on time.
    """
    told = standing.possibly_told or outcome.reached
    if outcome.failure is None:
        state = NoticeState.DELIVERED if outcome.delivered else NoticeState.SENT
        return Verdict(state=state, endpoint=standing.endpoint, possibly_told=True, expires_at=standing.expires_at)
    if outcome.failure is Failure.PAUSE:
        return Verdict(
            state=NoticeState.QUEUED,
            endpoint=standing.endpoint,
            possibly_told=told,
            expires_at=standing.expires_at,
        )
    if outcome.failure in (Failure.PERMANENT, Failure.DISABLE):
        reason = EndReason.REJECTED if outcome.failure is Failure.PERMANENT else EndReason.ENDPOINT_DISABLED
        return move_on(standing, told, reason, now, max_age)
    wait_s = max(delay_s, outcome.retry_after_s or 0.0)
    return Verdict(
        state=NoticeState.QUEUED,
        endpoint=standing.endpoint,
        possibly_told=told,
        expires_at=standing.expires_at,
        due_at=min(now + timedelta(seconds=wait_s), max(now, standing.expires_at)),
    )


def move_on(standing: Standing, possibly_told: bool, reason: EndReason, now: datetime, max_age: timedelta) -> Verdict:
    """The next usable endpoint of the recipient, with an age of its own; without one, a dead letter."""
    following = next((index for index in standing.usable if index > standing.endpoint), None)
    if following is None:
        return Verdict(
            state=NoticeState.FAILED,
            endpoint=standing.endpoint,
            possibly_told=possibly_told,
            expires_at=standing.expires_at,
            reason=reason,
        )
    return Verdict(
        state=NoticeState.QUEUED,
        endpoint=following,
        possibly_told=possibly_told,
        expires_at=max(standing.expires_at, now + max_age) if reason is EndReason.MAX_AGE else standing.expires_at,
        due_at=now,
        moved=True,
    )
