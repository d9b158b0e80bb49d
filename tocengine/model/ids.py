"""Owns the identifiers the engine hands out, and how each is derived so that a replay derives it again."""

import hashlib
from typing import NewType
from uuid import UUID

MessageId = NewType("MessageId", UUID)
EncounterId = NewType("EncounterId", UUID)
PatientId = NewType("PatientId", UUID)
SnapshotId = NewType("SnapshotId", UUID)
TransitionId = NewType("TransitionId", UUID)
NoticeId = NewType("NoticeId", UUID)
WorkItemId = NewType("WorkItemId", UUID)

FeedName = NewType("FeedName", str)
FacilityId = NewType("FacilityId", str)
"""A sending facility, as configured under ``[[facilities]]``."""
RecipientId = NewType("RecipientId", str)
"""``facility:ID`` or ``practitioner:ID`` of the directory."""
EndpointId = NewType("EndpointId", str)


def derive(kind: str, *parts: str | bytes) -> UUID:
    """A UUID (RFC 9562 version 8) that depends on `kind` and `parts` alone.

    Each part is length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    value = bytearray(digest.digest()[:16])
    value[6] = (value[6] & 0x0F) | 0x80
    value[8] = (value[8] & 0x3F) | 0x80
    return UUID(bytes=bytes(value))
