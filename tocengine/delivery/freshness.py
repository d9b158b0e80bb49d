"""Owns the question before each attempt: is this notice still to be sent, over which endpoint, and now? Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from tocengine.delivery.breaker import FRESH, EndpointStanding, EndpointStatus
from tocengine.delivery.lifecycle import EndReason, Standing, move_on
from tocengine.model.directory import ChannelKind, Endpoint, Recipient
from tocengine.model.encounter import TransitionStatus
from tocengine.model.ids import EndpointId
from tocengine.model.notice import Notice, NoticeState

TAKES_BACK = (TransitionStatus.CANCELLED, TransitionStatus.RETRACTED)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first open notice of a lane, as its row has it."""

    notice: Notice
    endpoint: int
    attempts: int
    possibly_told: bool
    expires_at: datetime


class Ready(msgspec.Struct, frozen=True):
    """Send it now."""

    endpoint: Endpoint
    standing: Standing


class Waiting(msgspec.Struct, frozen=True):
    """Its endpoint is paused or resting: park the lane until that changes, or until it is too late for it. `moved` is
    the endpoint's index where it goes on over that one from now on, being too old for the one before."""

    endpoint_id: EndpointId
    until: datetime
    moved: int | None = None


class Ended(msgspec.Struct, frozen=True):
    """It is not to be sent any more."""

    state: NoticeState  # FAILED or SUPPRESSED
    reason: EndReason


def check(
    head: Head,
    recipient: Recipient | None,
    endpoints: Mapping[str, EndpointStanding],
    now: datetime,
    max_age: timedelta,
    probing: str | None = None,
) -> Ready | Waiting | Ended:
    """Decides on the head of a lane; `probing` names the endpoint this lane may try although it rests."""
    if recipient is None:
        return Ended(NoticeState.SUPPRESSED, EndReason.NO_RECIPIENT)
    usable, obstacle = _usable(head.notice, recipient, endpoints)
    chosen = next((index for index in usable if index >= head.endpoint), None)
    if chosen is None:
        return Ended(NoticeState.FAILED, obstacle)
    standing = Standing(
        attempt=head.attempts + 1,
        endpoint=chosen,
        usable=usable,
        possibly_told=head.possibly_told,
        expires_at=head.expires_at,
    )
    moved: int | None = None
    if now >= head.expires_at:
        verdict = move_on(standing, head.possibly_told, EndReason.MAX_AGE, now, max_age)
        if verdict.ended:
            return Ended(NoticeState.FAILED, EndReason.MAX_AGE)
        standing = msgspec.structs.replace(standing, endpoint=verdict.endpoint, expires_at=verdict.expires_at)
        moved = verdict.endpoint
    endpoint = recipient.endpoints[standing.endpoint]
    known = endpoints.get(endpoint.id, FRESH)
    resting = known.not_before is not None and now < known.not_before and probing != endpoint.id
    if known.status is EndpointStatus.PAUSED or resting:
        return Waiting(endpoint.id, standing.expires_at, moved)
    return Ready(endpoint, standing)


def _usable(
    notice: Notice, recipient: Recipient, endpoints: Mapping[str, EndpointStanding]
) -> tuple[tuple[int, ...], EndReason]:
    """Indexes of the endpoints that can carry the notice, and what to say where none is left.

    Da Vinci has no code for a cancellation: a bundle that takes something back goes only to a partner who
    agreed to read it (domain 4.1); anyone else would read a second discharge.
    """
    carrying = [
        index
        for index, endpoint in enumerate(recipient.endpoints)
        if notice.status not in TAKES_BACK or endpoint.channel is not ChannelKind.FHIR or endpoint.accepts_cancel
    ]
    usable = tuple(
        index
        for index in carrying
        if endpoints.get(recipient.endpoints[index].id, FRESH).status is not EndpointStatus.DISABLED
    )
    if not recipient.endpoints:
        return usable, EndReason.NO_ENDPOINT
    if not carrying:
        return usable, EndReason.CANCELLATION_NOT_SENDABLE
    return usable, EndReason.NO_ENDPOINT if usable else EndReason.ENDPOINT_DISABLED
