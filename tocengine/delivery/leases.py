"""Owns a worker's life as others see it: its heartbeat, and what becomes of the lanes of workers that are gone."""

from datetime import datetime, timedelta
from uuid import UUID

from tocengine.delivery.postgres import PORTION, QUERIES
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.ports import AuditTrail, Transaction

MISSED_BEATS = 3
"""A worker that has not been heard of for this many heartbeats is taken for lost."""


async def beat(transaction: Transaction, worker_id: UUID) -> None:
    """Says that the worker lives. Its row must exist before its first claim."""
    await transaction.execute(QUERIES["heartbeat"], worker_id)


async def retire(transaction: Transaction, worker_id: UUID) -> None:
    """Takes the worker off the list; lanes it still holds are free for others."""
    await transaction.execute(QUERIES["retire_worker"], worker_id)


async def recover(
    transaction: Transaction, worker_id: UUID, heartbeat_s: float, audit: AuditTrail, now: datetime
) -> int:
    """Frees the lanes of lost workers and returns how many.

    What they had under way may have arrived: their attempts end as ambiguous, and their notices are sent again
    under the same id.
    """
    patience = timedelta(seconds=MISSED_BEATS * heartbeat_s)
    await transaction.execute(QUERIES["retire_lost_workers"], patience, worker_id)
    rows = await transaction.fetch(QUERIES["orphaned_attempts"])
    if rows:
        closed = await transaction.fetch(QUERIES["close_orphaned_attempts"], [row["attempt_id"] for row in rows], now)
        await transaction.execute(QUERIES["requeue_orphaned_notices"], [row["notice_id"] for row in rows], now)
        ids = {row["attempt_id"] for row in closed}
        await audit.record(
            transaction,
            [
                AuditRecord(
                    action=AuditAction.ATTEMPT_ENDED,
                    at=now,
                    encounter_id=row["encounter_id"],
                    notice_id=row["notice_id"],
                    recipient_id=row["recipient_id"],
                    detail={
                        "attempt": str(row["attempt_id"]),
                        "endpoint": row["endpoint_id"],
                        "outcome": "ambiguous",
                        "problem": "worker lost",
                    },
                )
                for row in rows
                if row["attempt_id"] in ids
            ],
        )
    return len(await transaction.fetch(QUERIES["free_orphaned_lanes"], now))


async def sweep(transaction: Transaction, now: datetime) -> int:
    """Makes some parked lanes due that nothing else would wake, and says how many: those whose endpoint is back, and
    those whose first notice has expired. Where there were any there may be more."""
    return len(await transaction.fetch(QUERIES["sweep_parked"], now, PORTION))
