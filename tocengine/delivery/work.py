"""Owns what delivery asks of people and tells the audit: the work items and records of endings."""

from collections.abc import Mapping
from datetime import datetime

from tocengine.delivery.breaker import EndpointStanding, EndpointStatus
from tocengine.delivery.lifecycle import WORK_FOR_REASON, EndReason
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import EncounterId, NoticeId, RecipientId
from tocengine.model.notice import NoticeState
from tocengine.model.work import WorkItem, WorkKind

_SUMMARIES: Mapping[EndReason, str] = {
    EndReason.MAX_AGE: "A notice was not delivered within its time",
    EndReason.REJECTED: "A notice was refused by every endpoint of its recipient",
    EndReason.NO_ENDPOINT: "A notice has no endpoint left to be sent to",
    EndReason.ENDPOINT_DISABLED: "A notice's recipient has only endpoints that are gone (HTTP 410)",
    EndReason.RENDER_FAILED: "A notice could not be rendered",
    EndReason.CANCELLATION_NOT_SENDABLE: (
        "A cancellation cannot be sent: the recipient takes notices over FHIR only and has not agreed to read "
        "cancellations there; tell it in person"
    ),
}
_STATUS_KIND = {
    EndpointStatus.PAUSED: WorkKind.ENDPOINT_PAUSED,
    EndpointStatus.DISABLED: WorkKind.ENDPOINT_DISABLED,
}


def notice_ended(
    notice_id: NoticeId,
    recipient_id: RecipientId,
    encounter_id: EncounterId,
    state: NoticeState,
    reason: EndReason,
    now: datetime,
    feed: str = "",
) -> tuple[AuditRecord, WorkItem | None]:
    """The audit row of a notice that ended without delivery, and the work item where a person must know."""
    record = AuditRecord(
        action=AuditAction.NOTICE_DEAD if state is NoticeState.FAILED else AuditAction.NOTICE_DROPPED,
        at=now,
        encounter_id=encounter_id,
        notice_id=notice_id,
        recipient_id=recipient_id,
        detail={"reason": reason.value, "state": state.value},
    )
    kind = WORK_FOR_REASON.get(reason)
    if kind is None:
        return record, None
    return record, WorkItem(
        kind=kind,
        subject=str(notice_id),
        summary=f"{_SUMMARIES[reason]} ({recipient_id})",
        opened_at=now,
        feed=feed,
        encounter_id=encounter_id,
        notice_id=notice_id,
    )


def endpoint_changed(
    endpoint_id: str, standing: EndpointStanding, now: datetime, actor: str = "tocengine"
) -> tuple[AuditRecord, WorkItem | None]:
    """The audit row of an endpoint paused, disabled or resumed, and the work item of the first two."""
    record = AuditRecord(
        action=AuditAction.ENDPOINT_CHANGED,
        at=now,
        actor=actor,
        detail={"endpoint": endpoint_id, "state": standing.status.value, "reason": standing.reason},
    )
    kind = _STATUS_KIND.get(standing.status)
    if kind is None:
        return record, None
    word = "paused" if kind is WorkKind.ENDPOINT_PAUSED else "disabled"
    return record, WorkItem(
        kind=kind,
        subject=endpoint_id,
        summary=f"Endpoint {endpoint_id} is {word} ({standing.reason}): notices to it wait or go elsewhere",
        opened_at=now,
    )
