"""Owns the work item: something only a person can put right, told once to the alert webhook."""

from datetime import datetime
from enum import StrEnum

import msgspec

from tocengine.model.ids import EncounterId, MessageId, NoticeId, WorkItemId, derive


class WorkKind(StrEnum):
    """What a person is asked to look at."""

    MESSAGE_QUARANTINED = "MESSAGE_QUARANTINED"
    EVENT_SET_ASIDE = "EVENT_SET_ASIDE"
    CODE_UNMAPPED = "CODE_UNMAPPED"
    DESTINATION_UNRESOLVED = "DESTINATION_UNRESOLVED"
    DESTINATION_AMBIGUOUS = "DESTINATION_AMBIGUOUS"
    DESTINATION_REFUSED = "DESTINATION_REFUSED"
    NOTICES_HELD_BACK = "NOTICES_HELD_BACK"
    TREATING_NOT_SUPPLIED = "TREATING_NOT_SUPPLIED"
    NOTICE_UNDELIVERABLE = "NOTICE_UNDELIVERABLE"
    CANCELLATION_NOT_SENDABLE = "CANCELLATION_NOT_SENDABLE"
    ENDPOINT_PAUSED = "ENDPOINT_PAUSED"
    ENDPOINT_DISABLED = "ENDPOINT_DISABLED"
    FEED_SILENT = "FEED_SILENT"
    SUBSCRIPTION_GAP = "SUBSCRIPTION_GAP"
    MERGE_REFUSED = "MERGE_REFUSED"
    ENCOUNTER_FLAGGED = "ENCOUNTER_FLAGGED"
    ADMISSION_NOT_SEEN = "ADMISSION_NOT_SEEN"
    VISIT_LEFT_OPEN = "VISIT_LEFT_OPEN"
    AUDIT_NOT_SIGNED = "AUDIT_NOT_SIGNED"


def quarantine_subject(feed: str, reason: str, location: str) -> str:
    """Messages that fail alike share one work item, or a bad feed would bury all others."""
    return f"{feed}|{reason}|{location}"


class WorkItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing for a person to do. Opening the same (kind, subject) again while it is open changes nothing."""

    kind: WorkKind
    subject: str  # what makes it unique: an id, "feed|table|code", an endpoint id; no PHI
    summary: str  # one sentence for a person; no PHI
    opened_at: datetime
    feed: str = ""
    message_id: MessageId | None = None
    encounter_id: EncounterId | None = None
    notice_id: NoticeId | None = None

    @property
    def work_item_id(self) -> WorkItemId:
        """Derived, so that a replayed batch opens the same item."""
        return WorkItemId(derive("work-item", self.kind, self.subject, self.opened_at.isoformat()))
