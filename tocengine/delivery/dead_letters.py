"""Owns the dead letters: notices that were given up, and sending them again by a person's decision."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from tocengine.delivery.postgres import QUERIES
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.encounter import TransitionKind, TransitionStatus
from tocengine.model.ids import EncounterId, NoticeId, RecipientId
from tocengine.model.notice import Notice
from tocengine.ports import NOTICES_DUE, AuditTrail, Transaction


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that was given up, with its last attempt."""

    notice_id: NoticeId
    recipient_id: RecipientId
    encounter_id: EncounterId
    kind: TransitionKind
    status: TransitionStatus
    reason: str
    attempts: int
    possibly_told: bool
    created_at: datetime
    ended_at: datetime
    endpoint_id: str | None = None
    outcome: str | None = None
    http_status: int | None = None
    detail: str | None = None


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request to send notices again. `overtaken` ones are refused: something newer was decided
    about the same fact, and what they say is no longer so. `missing` ones are no dead letters."""

    replayed: Sequence[UUID] = ()
    overtaken: Sequence[UUID] = ()
    missing: Sequence[UUID] = ()


async def list_dead_letters(
    transaction: Transaction, *, recipient_id: str | None = None, limit: int = 100
) -> Sequence[DeadLetter]:
    """The newest first."""
    rows = await transaction.fetch(QUERIES["list_dead_letters"], recipient_id, limit)
    letters = []
    for row in rows:
        notice = msgspec.json.decode(row["body"], type=Notice)
        letters.append(
            DeadLetter(
                notice_id=row["notice_id"],
                recipient_id=row["recipient_id"],
                encounter_id=row["encounter_id"],
                kind=notice.kind,
                status=notice.status,
                reason=row["reason"] or "",
                attempts=row["attempts"],
                possibly_told=row["possibly_told"],
                created_at=row["created_at"],
                ended_at=row["ended_at"],
                endpoint_id=row["endpoint_id"],
                outcome=row["outcome"],
                http_status=row["status"],
                detail=row["detail"],
            )
        )
    return letters


async def replay(
    transaction: Transaction,
    audit: AuditTrail,
    notice_ids: Sequence[UUID],
    actor: str,
    now: datetime,
    max_age: timedelta,
) -> Replay:
    """Queues dead letters again, under their own ids, at the recipient's first endpoint; closes their work items."""
    rows = await transaction.fetch(QUERIES["lock_dead_letters"], list(notice_ids))
    overtaken = [row["notice_id"] for row in rows if row["overtaken"]]
    chosen = [row for row in rows if not row["overtaken"]]
    ids = [row["notice_id"] for row in chosen]
    found = {row["notice_id"] for row in rows}
    answer = Replay(replayed=ids, overtaken=overtaken, missing=[one for one in notice_ids if one not in found])
    if not ids:
        return answer
    await transaction.execute(QUERIES["replay_notices"], ids, now + max_age)
    await transaction.execute(
        QUERIES["make_lanes_due"],
        [row["recipient_id"] for row in chosen],
        [row["encounter_id"] for row in chosen],
        now,
    )
    closed = await transaction.fetch(QUERIES["close_notice_items"], ids, now, actor)
    records = [
        AuditRecord(
            action=AuditAction.NOTICE_REPLAYED,
            at=now,
            actor=actor,
            encounter_id=row["encounter_id"],
            notice_id=row["notice_id"],
            recipient_id=row["recipient_id"],
            detail={"reason": row["reason"]},
        )
        for row in chosen
    ]
    records += [
        AuditRecord(
            action=AuditAction.WORK_ITEM_CLOSED,
            at=now,
            actor=actor,
            notice_id=row["notice_id"],
            detail={"work_item": str(row["work_item_id"])},
        )
        for row in closed
    ]
    await audit.record(transaction, records)
    await transaction.execute("select pg_notify($1, '')", NOTICES_DUE)
    return answer
