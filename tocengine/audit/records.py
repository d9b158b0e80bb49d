"""Owns the one byte form of a stored audit row: what is hashed, and therefore what cannot change unnoticed.

The sealer computes the same form inside PostgreSQL (``seal`` in `queries.sql`), the verifier computes it here from
the values it reads; that the two agree is a test. Changing either one breaks every chain that exists.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import orjson

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""PostgreSQL's: a timestamptz on the wire is microseconds since then."""
_MICROSECOND = timedelta(microseconds=1)


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `audit_record`, column by column."""

    audit_id: int
    xid: int
    at: datetime
    action: str
    actor: str
    message_id: UUID | None
    encounter_id: UUID | None
    notice_id: UUID | None
    recipient_id: str | None
    detail: bytes

    def canonical(self) -> bytes:
        """Every column in order: integers and times in 8 bytes, texts and bytes length-prefixed, 00 for null.

        No two different rows share a form: fixed widths and prefixes leave nothing to shift between columns.
        """
        return b"".join(
            (
                self.audit_id.to_bytes(8, "big", signed=True),
                self.xid.to_bytes(8, "big"),
                microseconds(self.at),
                _sized(self.action.encode()),
                _sized(self.actor.encode()),
                _uuid(self.message_id),
                _uuid(self.encounter_id),
                _uuid(self.notice_id),
                b"\x00" if self.recipient_id is None else b"\x01" + _sized(self.recipient_id.encode()),
                _sized(self.detail),
            )
        )


def detail_bytes(detail: dict[str, object]) -> bytes:
    """Canonical JSON: keys sorted, no spaces, UTF-8."""
    return orjson.dumps(detail, option=orjson.OPT_SORT_KEYS)


def microseconds(at: datetime) -> bytes:
    """`at` as PostgreSQL sends a timestamptz."""
    return ((at - EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _sized(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def _uuid(value: UUID | None) -> bytes:
    return b"\x00" if value is None else b"\x01" + value.bytes
