"""Owns the notice: one transition for one recipient, why it is sent or not, and what became of it."""

from datetime import datetime
from enum import StrEnum

import msgspec

from tocengine.model.directory import Level
from tocengine.model.encounter import TransitionKind, TransitionStatus
from tocengine.model.ids import EncounterId, EndpointId, MessageId, NoticeId, RecipientId, SnapshotId


class Basis(StrEnum):
    """Why a recipient is a candidate."""

    DESTINATION = "DESTINATION"
    REFERRAL_ACCEPTED = "REFERRAL_ACCEPTED"
    PANEL = "PANEL"
    PCP = "PCP"
    PATIENT_NAMED = "PATIENT_NAMED"
    ORIGIN_FACILITY = "ORIGIN_FACILITY"


class ReasonCode(StrEnum):
    """Why a candidate gets no notice, or not now (domain: reason codes; 45 CFR 171 wants one for each)."""

    NO_RECIPIENT = "NO_RECIPIENT"
    NO_ENDPOINT = "NO_ENDPOINT"
    DESTINATION_UNRESOLVED = "DESTINATION_UNRESOLVED"
    MATCH_REVIEW = "MATCH_REVIEW"
    MATCH_NONE = "MATCH_NONE"
    PANEL_EXPIRED = "PANEL_EXPIRED"
    EVENT_NOT_SUBSCRIBED = "EVENT_NOT_SUBSCRIBED"
    FILTERED = "FILTERED"
    OPTED_OUT = "OPTED_OUT"
    RECIPIENT_DENIED = "RECIPIENT_DENIED"
    PART2_NO_CONSENT = "PART2_NO_CONSENT"
    PRIVACY_MARKED = "PRIVACY_MARKED"
    STATE_LAW = "STATE_LAW"
    PAYER_RESTRICTION = "PAYER_RESTRICTION"
    DUPLICATE = "DUPLICATE"
    SUPERSEDED = "SUPERSEDED"
    CANCELLED_BEFORE_SEND = "CANCELLED_BEFORE_SEND"
    TEST_MESSAGE = "TEST_MESSAGE"
    INITIAL_LOAD = "INITIAL_LOAD"
    LATE_HISTORIC = "LATE_HISTORIC"
    COVERED_BY_DISCHARGE = "COVERED_BY_DISCHARGE"
    SHADOW = "SHADOW"
    CONVERSION_NOT_DISCHARGE = "CONVERSION_NOT_DISCHARGE"
    QUIET_HOURS = "QUIET_HOURS"
    DIGEST_PENDING = "DIGEST_PENDING"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    MAX_AGE = "MAX_AGE"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"


class NoticeState(StrEnum):
    """Where a notice stands. QUEUED and HELD may still be dropped; SENDING has a committed intent."""

    QUEUED = "QUEUED"
    HELD = "HELD"
    SENDING = "SENDING"
    SENT = "SENT"  # received by the transport, not yet known to be processable (HTTP 202)
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"  # dead letter
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    SUPPRESSED = "SUPPRESSED"


class RoutingDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided for one recipient about one fact. `reason` is None where a notice is sent.

    The newest decision per (encounter, recipient, fact kind, occurrence) is the told ledger.
    """

    encounter_id: EncounterId
    recipient_id: RecipientId | None  # None: nobody was found for the fact
    fact_kind: TransitionKind
    occurrence: int
    watched: bytes
    basis: tuple[Basis, ...]
    message_id: MessageId
    reason: ReasonCode | None = None
    notice_id: NoticeId | None = None
    evidence: str = ""  # "PV1-37 alias", "panel STJ"; no value of the message


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transition for one recipient. Renders `snapshot_id` at `level`; `basis` says why this recipient."""

    notice_id: NoticeId
    recipient_id: RecipientId
    encounter_id: EncounterId
    snapshot_id: SnapshotId
    kind: TransitionKind
    status: TransitionStatus
    fact_kind: TransitionKind
    occurrence: int
    level: Level
    basis: tuple[Basis, ...]
    effective: str  # FHIR dateTime
    recorded: str
    message_id: MessageId
    created_at: datetime
    expires_at: datetime
    supersedes: NoticeId | None = None
    late: bool = False


class Failure(StrEnum):
    """What a failed attempt means for the next one."""

    TRANSIENT = "transient"  # certainly not taken: send again
    AMBIGUOUS = "ambiguous"  # may have been taken: send again under the same id
    PERMANENT = "permanent"  # this endpoint will never take it: next endpoint, else dead letter
    PAUSE = "pause"  # the endpoint refuses us (401, 403): pause it, tell a person
    DISABLE = "disable"  # the endpoint is gone (410)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt came to. `failure` None is success: `delivered` False there means received only (202).

    `detail` names the class of the problem ("timeout", "HTTP 503", "TLS handshake"), never content.
    """

    failure: Failure | None = None
    delivered: bool = True
    reached: bool = True  # False: the recipient certainly does not hold the notice through this attempt
    status: int | None = None
    detail: str = ""
    retry_after_s: float | None = None


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """A notice as bytes for one endpoint."""

    notice_id: NoticeId
    endpoint_id: EndpointId
    body: bytes
    content_type: str
    digest: bytes  # SHA-256 of `body`, for the audit
