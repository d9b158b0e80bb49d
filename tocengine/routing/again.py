"""Owns deciding anew, without a message, about those whom a patient no longer wants told: what waits for them is
dropped with its reason, and what they were told and is no longer so is taken back.

It is asked for where an opt-out is put in force, and by delivery where one stops a notice at the last moment.
"""

from collections.abc import AsyncIterator

from tocengine.ports import NOTICES_DUE, AuditTrail, Clock, Tracker, Transaction, WorkItems
from tocengine.postgres import Pool
from tocengine.routing.batch import Rulings, decide_batch
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import LiveDirectory, notify, store_rulings


class Refusals:
    """Decides about the encounters that wait for it."""

    def __init__(
        self,
        tracker: Tracker,
        directory: LiveDirectory,
        policy: RoutePolicy,
        audit: AuditTrail,
        work_items: WorkItems,
        clock: Clock,
    ) -> None:
        self._tracker, self._directory, self._policy = tracker, directory, policy
        self._audit, self._work_items, self._clock = audit, work_items, clock

    async def decide(self, pool: Pool) -> AsyncIterator[Rulings]:
        """What was decided and is committed, a portion at a time, until nothing waits."""
        async with pool.acquire() as connection:
            waiting = True
            while waiting:
                async with connection.transaction():
                    rulings = await self._decide_some(connection)
                waiting = rulings is not None
                if rulings is not None:
                    yield rulings

    async def _decide_some(self, transaction: Transaction) -> Rulings | None:
        now = self._clock()
        tracked = await self._tracker.recall(transaction, now)
        if tracked is None:
            return None
        directory = self._directory.current
        rulings = await decide_batch(transaction, tracked, directory, self._policy, now, refused_only=True)
        notices = await store_rulings(transaction, rulings.made, now)
        await self._audit.record(transaction, rulings.audit_records(now))
        if work := rulings.work_items():
            await self._work_items.open(transaction, work)
        if notices:
            await notify(transaction, [NOTICES_DUE])
        return rulings
