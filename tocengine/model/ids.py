"""Owns the identifiers the engine hands out, and how each is derived so that a replay derives it again."""

import hashlib
from typing import NewType
from uuid import UUID

MessageId = NewType("MessageId", UUID)
EncounterId = NewType("EncounterId", UUID)
PatientId = NewType("PatientId", UUID)
AccountId = NewType("AccountId", UUID)
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


_VERSION_8 = 0x8 << 76 | 0x2 << 62  # the version nibble and the variant bits
_RANDOM_BITS = ~(0xF << 76 | 0x3 << 62) & (1 << 128) - 1


def derive(kind: str, *parts: str | bytes) -> UUID:
    """A UUID (RFC 9562 version 8) that depends on `kind` and `parts` alone.

    Each part is length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
    """
    return UUID(derive_text(kind, *parts))


def derive_text(kind: str, *parts: str | bytes) -> str:
    """As `derive`, as text: a message needs a dozen of them, and nobody their objects."""
    chunks = [kind.encode()]
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        chunks += (len(raw).to_bytes(4, "big"), raw)
    value = int.from_bytes(hashlib.sha256(b"".join(chunks)).digest()[:16], "big")
    text = f"{(value & _RANDOM_BITS) | _VERSION_8:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
