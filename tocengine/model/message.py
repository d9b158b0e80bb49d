"""Owns what arrived, byte for byte, and what is owed to its sender."""

from datetime import datetime
from enum import StrEnum

import msgspec

from tocengine.model.ids import FacilityId, FeedName, MessageId

MAX_CONTROL_ID = 500
"""Characters kept of what a sender calls a message (HL7 v2.7 allows 199). Its answer repeats the whole id."""


class ContentType(StrEnum):
    """The two formats the engine takes in."""

    HL7V2 = "application/hl7-v2"
    FHIR = "application/fhir+json"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message as received. `message_id` depends on feed, sender, control id, MSH-7 and content alone."""

    message_id: MessageId
    feed: FeedName
    facility: FacilityId
    content_type: ContentType
    control_id: str
    received_at: datetime
    body: bytes
    peer: str = ""  # address or client id, never a person
    answers: tuple[str, str, str] = ("202", "422", "400")
    """What its sender is told when it is accepted, in error, rejected: a code or HTTP status, "" for nothing at all."""


class Disposition(StrEnum):
    """What became of a message at the door."""

    ACCEPTED = "ACCEPTED"  # stored and normalized
    IGNORED = "IGNORED"  # stored and answered positively, because the feed is told to ignore its type
    QUARANTINED = "QUARANTINED"  # stored, set aside with a reason, answered positively
    REFUSED = "REFUSED"  # stored in quarantine, answered negatively


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a message could not be normalized. Carries no value of the message: it may be PHI.

    `location` is a segment-field-component path such as ``PV1^1^19`` or a FHIRPath; `code` a code of HL7
    table 0357 for v2, an OperationOutcome issue type for FHIR; `reason` a stable word for machines.
    """

    reason: str
    text: str
    location: str = ""
    code: str = ""
    stage: str = "normalize"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine owes the sender. It exists only after the message is durable in the event log."""

    message_id: MessageId
    disposition: Disposition
    problem: Problem | None = None
    answered: str = ""  # one of `Message.answers`


class Quarantined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`data` of a `toc.quarantine.v1` record: a message as received, its problem, what its sender was told."""

    message: Message  # the body is base64 in JSON
    problem: Problem
    answered: str = ""  # the acknowledgment code given, or the HTTP status
