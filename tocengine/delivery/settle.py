"""Owns one settlement: what a batch of attempts came to, committed in a single transaction with its audit rows."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from tocengine.config import DeliverySettings
from tocengine.delivery import breaker, lifecycle, postgres
from tocengine.delivery.attempts import NOT_SENT, Release, Result
from tocengine.delivery.breaker import FRESH, EndpointStanding, EndpointStatus
from tocengine.delivery.claim import resting
from tocengine.delivery.lifecycle import Verdict
from tocengine.delivery.retry import Backoff
from tocengine.delivery.work import endpoint_changed, notice_ended
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.notice import Failure, NoticeState
from tocengine.model.work import WorkItem
from tocengine.ports import AuditTrail, Transaction, WorkItems

Judged = Sequence[tuple[Result, Verdict]]


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What was committed: notices that were delivered, and the standings of the endpoints that changed."""

    delivered: Sequence[Result] = ()
    standings: Mapping[str, EndpointStanding] = msgspec.field(default_factory=dict)


class Settler:
    """Judges results and writes what follows from them. `jitter` gives a number in [-1, 1]."""

    def __init__(
        self,
        settings: DeliverySettings,
        audit: AuditTrail,
        work_items: WorkItems,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),  # noqa: S311 - spreads load, hides nothing
    ) -> None:
        self._backoff = Backoff(settings.backoff)
        self._max_age = timedelta(hours=settings.max_age_h)
        self._threshold = settings.breaker_failures
        self._audit = audit
        self._work_items = work_items
        self._jitter = jitter

    async def settle(
        self,
        transaction: Transaction,
        results: Sequence[Result],
        now: datetime,
        known: Mapping[str, EndpointStanding],
    ) -> Settlement:
        """Runs inside the caller's transaction. `known` are the endpoints something was known against.

        A failure counts only where the attempt is still open, that is, where nobody took its lane from us; a
        positive answer of the receiver always does.
        """
        counted = await postgres.end_attempts(transaction, results)
        judged = [
            (result, self._judge(result, now))
            for result in results
            if counted.get(result.attempt.attempt_id, False)
            or (result.positive and result.attempt.attempt_id in counted)
        ]
        moved = await postgres.end_notices(transaction, judged, now) if judged else {}
        standings, changes = await self._endpoints(transaction, [result for result, _ in judged], known, now)
        releases = _releases(results, judged, {**known, **standings}, now)
        await postgres.release_lanes(transaction, releases)
        back = [name for name, one in standings.items() if _is_back(one)]
        if back:
            await postgres.wake_lanes(transaction, back, now)
        records, items = _account(judged, moved, now)
        for name, standing in changes.items():
            record, item = endpoint_changed(name, standing, now)
            records.append(record)
            items += [item] if item else []
        await self._audit.record(transaction, records)
        if items:
            await self._work_items.open(transaction, items)
        delivered = [result for result, _ in judged if result.positive and result.attempt.notice_id in moved]
        return Settlement(delivered=delivered, standings=standings)

    def _judge(self, result: Result, now: datetime) -> Verdict:
        standing = result.attempt.standing
        delay_s = 0.0
        if result.outcome is not NOT_SENT and result.outcome.failure in (
            Failure.TRANSIENT,
            Failure.AMBIGUOUS,
        ):
            delay_s = self._backoff.delay_s(standing.attempt, self._jitter())
        return lifecycle.after_attempt(standing, result.outcome, now, delay_s, self._max_age)

    async def _endpoints(
        self,
        transaction: Transaction,
        results: Sequence[Result],
        known: Mapping[str, EndpointStanding],
        now: datetime,
    ) -> tuple[Mapping[str, EndpointStanding], Mapping[str, EndpointStanding]]:
        """Standings that are new, and those among them that a person is told of. Good news of an endpoint nothing
        is known against costs no statement."""
        telling = [
            result
            for result in results
            if result.outcome is not NOT_SENT
            and (result.attempt.endpoint.id in known or result.outcome.failure not in (None, Failure.PERMANENT))
        ]
        if not telling:
            return {}, {}
        stored = await postgres.lock_standings(transaction, {one.attempt.endpoint.id for one in telling})
        folded = dict(stored)
        for result in sorted(telling, key=lambda one: one.at):
            name = result.attempt.endpoint.id
            folded[name] = breaker.after_attempt(
                folded.get(name, FRESH),
                result.outcome,
                result.at,
                probe=result.attempt.probe,
                threshold=self._threshold,
                delay_s=lambda failures: self._backoff.delay_s(failures, self._jitter()),
            )
        new = {name: one for name, one in folded.items() if one != stored.get(name, FRESH)}
        if new:
            await postgres.store_standings(transaction, new, now)
        changes = {name: one for name, one in new.items() if one.status is not stored.get(name, FRESH).status}
        return new, changes


def _is_back(standing: EndpointStanding) -> bool:
    return standing.status is EndpointStatus.ACTIVE and standing.not_before is None and not standing.failures


def _releases(
    results: Sequence[Result], judged: Judged, standings: Mapping[str, EndpointStanding], now: datetime
) -> Sequence[Release]:
    verdicts = {result.attempt.attempt_id: verdict for result, verdict in judged}
    releases = []
    for result in results:
        lane, endpoint_id = result.attempt.lane, result.attempt.endpoint.id
        verdict = verdicts.get(result.attempt.attempt_id)
        if verdict is None or verdict.ended or verdict.moved:
            releases.append(Release(lane=lane, due_at=now))
        elif verdict.due_at is None or resting(standings, endpoint_id, now):
            until = verdict.expires_at
            releases.append(Release(lane=lane, due_at=None, waits_for=endpoint_id, until=until))
        else:
            releases.append(Release(lane=lane, due_at=verdict.due_at, waits_for=endpoint_id))
    return releases


def _account(
    judged: Judged, moved: Mapping[UUID, NoticeState], now: datetime
) -> tuple[list[AuditRecord], list[WorkItem]]:
    records = [_ended(result) for result, _ in judged]
    items: list[WorkItem] = []
    for result, verdict in judged:
        attempt = result.attempt
        if verdict.reason and moved.get(attempt.notice_id) is NoticeState.FAILED:
            lane = attempt.lane
            record, item = notice_ended(
                attempt.notice_id,
                lane.recipient_id,
                lane.encounter_id,
                verdict.state,
                verdict.reason,
                now,
                attempt.feed,
            )
            records.append(record)
            items += [item] if item else []
    return records, items


def _ended(result: Result) -> AuditRecord:
    attempt, outcome = result.attempt, result.outcome
    return AuditRecord(
        action=AuditAction.ATTEMPT_ENDED,
        at=result.at,
        encounter_id=attempt.lane.encounter_id,
        notice_id=attempt.notice_id,
        recipient_id=attempt.lane.recipient_id,
        detail={
            "attempt": str(attempt.attempt_id),
            "endpoint": attempt.endpoint.id,
            "outcome": result.name,
            "status": outcome.status,
            "problem": outcome.detail,
            "ms": round(result.seconds * 1000),
        },
    )
