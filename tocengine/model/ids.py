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


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The hexadecimal digit that holds the variant bits (10), by the one that was there."""


def derive(kind: str, *parts: str | bytes) -> UUID:
    """A UUID (RFC 9562 version 8) that depends on `kind` and `parts` alone.

    Each part is length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
    """
    text = _digest(kind, parts)
    return UUID(int=int(f"{text[:12]}8{text[13:16]}{_VARIANT[text[16]]}{text[17:32]}", 16))


def derive_text(kind: str, *parts: str | bytes) -> str:
    """As `derive`, as text: a message needs a dozen of them, and nobody their objects."""
    text = _digest(kind, parts)
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def _digest(kind: str, parts: tuple[str | bytes, ...]) -> str:
    chunks = [kind.encode()]
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        chunks += (len(raw).to_bytes(4, "big"), raw)
    return hashlib.sha256(b"".join(chunks)).hexdigest()
