"""Owns the audit record: what the engine did or decided, with ids and hashes, never with content."""

from datetime import datetime
from enum import StrEnum

import msgspec

from tocengine.model.ids import EncounterId, MessageId, NoticeId, RecipientId


class AuditAction(StrEnum):
    """What can be recorded."""

    MESSAGE_TRACKED = "MESSAGE_TRACKED"  # received, answered, normalized, folded; transitions named in detail
    MESSAGE_HELD = "MESSAGE_HELD"  # obviously early: it waits, stored, and is tracked later
    MESSAGE_REPEATED = "MESSAGE_REPEATED"
    MESSAGE_QUARANTINED = "MESSAGE_QUARANTINED"
    QUARANTINE_RETRIED = "QUARANTINE_RETRIED"
    QUARANTINE_DISCARDED = "QUARANTINE_DISCARDED"
    MESSAGES_REPLAYED = "MESSAGES_REPLAYED"  # a stretch of the log was normalized again
    CODE_MAPPED = "CODE_MAPPED"  # or taken back
    NOTICES_DECIDED = "NOTICES_DECIDED"  # every send and non-send of one encounter in one batch
    NOTICE_DROPPED = "NOTICE_DROPPED"  # before it left: superseded, cancelled, no longer allowed
    ATTEMPT_INTENDED = "ATTEMPT_INTENDED"
    ATTEMPT_ENDED = "ATTEMPT_ENDED"
    NOTICE_DEAD = "NOTICE_DEAD"
    NOTICE_REPLAYED = "NOTICE_REPLAYED"
    ENDPOINT_CHANGED = "ENDPOINT_CHANGED"  # paused, disabled, resumed
    DIRECTORY_APPLIED = "DIRECTORY_APPLIED"
    CLIENT_CHANGED = "CLIENT_CHANGED"
    PATIENT_MERGED = "PATIENT_MERGED"  # or renumbered: the prior number is an alias from now on
    VISIT_MERGED = "VISIT_MERGED"  # or renumbered
    ENCOUNTER_MOVED = "ENCOUNTER_MOVED"  # to another patient number, by a move (A43-A45)
    MERGE_REFUSED = "MERGE_REFUSED"  # a work item asks a person
    RECORD_VIEWED = "RECORD_VIEWED"  # a person read PHI through a command or page
    WORK_ITEM_OPENED = "WORK_ITEM_OPENED"
    WORK_ITEM_CLOSED = "WORK_ITEM_CLOSED"


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the audit log. `detail` is canonical JSON data: ids, codes, hashes, counts; no PHI."""

    action: AuditAction
    at: datetime
    actor: str = "tocengine"  # a role of the engine, an API client, or the operating system's user
    message_id: MessageId | None = None
    encounter_id: EncounterId | None = None
    notice_id: NoticeId | None = None
    recipient_id: RecipientId | None = None
    detail: dict[str, object] = msgspec.field(default_factory=dict)
