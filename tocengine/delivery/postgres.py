"""Owns the SQL of delivery: every function is one statement over a whole batch, inside the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

import asyncpg

from tocengine.delivery.attempts import Attempt, Lane, Release, Result
from tocengine.delivery.breaker import EndpointStanding, EndpointStatus
from tocengine.delivery.freshness import Ended
from tocengine.delivery.lifecycle import Verdict
from tocengine.formats.packing import unpack
from tocengine.model.identity import PatientKey
from tocengine.model.ids import EncounterId, NoticeId, RecipientId
from tocengine.model.notice import NoticeState
from tocengine.ports import Transaction
from tocengine.postgres import load_queries

QUERIES = load_queries(__package__)
Row = asyncpg.Record

CANDIDATES = 64
"""Of how many waiting lanes an endpoint's probe is chosen."""
PORTION = 1000
"""How many parked lanes of an endpoint are woken in one transaction."""


async def endpoint_standings(transaction: Transaction) -> Mapping[str, EndpointStanding]:
    """The endpoints something is known against."""
    return _standings(await transaction.fetch(QUERIES["endpoint_standings"]))


async def begin_probes(transaction: Transaction, now: datetime, until: datetime) -> None:
    """Picks one lane per endpoint that has rested long enough; the endpoint rests on `until` that one is answered."""
    rows = await transaction.fetch(QUERIES["endpoints_to_probe"], now, until)
    endpoints = {row["endpoint_id"] for row in rows}
    if not endpoints:
        return
    waiting = await transaction.fetch(QUERIES["choose_probes"], sorted(endpoints), now, CANDIDATES)
    unasked = endpoints - {row["endpoint_id"] for row in waiting}
    if unasked:
        await transaction.execute(QUERIES["rest_no_longer"], sorted(unasked))
    busy = {row["endpoint_id"] for row in waiting if not row["asked"]}
    if busy:
        await probe_again(transaction, busy, now)


async def probe_again(transaction: Transaction, endpoints: Iterable[str], now: datetime) -> None:
    """The lanes that were to probe these endpoints had nothing to send: the next claim picks others."""
    await transaction.execute(QUERIES["probe_again"], sorted(endpoints), now)


async def claim_lanes(
    transaction: Transaction,
    now: datetime,
    lease: UUID,
    worker_id: UUID,
    allowances: tuple[Sequence[str], Sequence[int]],
    *,
    after: str,
    otherwise: int,
    limit: int,
) -> Sequence[Lane]:
    """Leases up to `limit` due lanes of the recipients after `after`, of each no more than its allowance (`otherwise`
    where not named), in the order of the recipients."""
    recipients, lanes = allowances
    rows = await transaction.fetch(
        QUERIES["claim_lanes"], now, lease, worker_id, after, recipients, lanes, otherwise, limit
    )
    return [
        Lane(
            recipient_id=RecipientId(row["recipient_id"]),
            encounter_id=EncounterId(row["encounter_id"]),
            lease=lease,
            probes=row["probes"],
        )
        for row in rows
    ]


async def heads(transaction: Transaction, lanes: Sequence[Lane]) -> Mapping[tuple[str, UUID], Row]:
    """The first open notice of each lane with its snapshot, by lane; none for a lane that is being changed."""
    rows = await transaction.fetch(
        QUERIES["heads"], [lane.recipient_id for lane in lanes], [lane.encounter_id for lane in lanes]
    )
    return {(row["recipient_id"], row["encounter_id"]): row for row in rows}


async def opted_out(
    transaction: Transaction,
    notices: Sequence[tuple[NoticeId, RecipientId, Sequence[PatientKey]]],
    days: tuple[date, date],
) -> frozenset[UUID]:
    """Which of these notices the patient does not want told from the first to the last of `days`. Each comes with its
    recipient and the patient's numbers: first the one she is known by, then what else was stated of her."""
    stated = [
        (notice_id, recipient_id, number.domain, number.value, index == 0)
        for notice_id, recipient_id, numbers in notices
        for index, number in enumerate(numbers)
    ]
    rows = await transaction.fetch(QUERIES["opted_out"], *(list(column) for column in zip(*stated, strict=True)), *days)
    return frozenset(row["notice_id"] for row in rows)


async def move_notices(transaction: Transaction, moved: Mapping[UUID, tuple[int, datetime]]) -> None:
    """Notices go on over another endpoint (its index), and until when, by notice id."""
    await transaction.execute(
        QUERIES["move_notices"], list(moved), [index for index, _ in moved.values()], [at for _, at in moved.values()]
    )


async def decide_again(transaction: Transaction, encounters: Iterable[EncounterId], now: datetime) -> None:
    """Routing decides anew who is told what about these encounters."""
    await transaction.execute(QUERIES["telling"], sorted(encounters), now)


async def charts(transaction: Transaction, snapshots: Sequence[UUID]) -> Mapping[UUID, bytes]:
    """The FHIR charts of these snapshots."""
    rows = await transaction.fetch(QUERIES["charts"], snapshots)
    return {row["snapshot_id"]: unpack(row["fhir"]) for row in rows}


async def intend(transaction: Transaction, attempts: Sequence[Attempt], now: datetime) -> None:
    """Marks the notices as possibly told and opens their attempts."""
    numbers = [attempt.standing.attempt for attempt in attempts]
    notices = [attempt.notice_id for attempt in attempts]
    await transaction.execute(
        QUERIES["intend"],
        notices,
        numbers,
        [attempt.standing.endpoint for attempt in attempts],
        [attempt.standing.expires_at for attempt in attempts],
    )
    await transaction.execute(
        QUERIES["begin_attempts"],
        [attempt.attempt_id for attempt in attempts],
        notices,
        numbers,
        [attempt.endpoint.id for attempt in attempts],
        [attempt.digest for attempt in attempts],
        now,
    )


async def end_unsent(transaction: Transaction, ended: Mapping[UUID, Ended], now: datetime) -> None:
    """Ends notices that are not to be sent any more, by notice id."""
    await transaction.execute(
        QUERIES["end_unsent"],
        list(ended),
        [end.state.value for end in ended.values()],
        [end.reason.value for end in ended.values()],
        now,
    )


async def end_attempts(transaction: Transaction, results: Sequence[Result]) -> Mapping[UUID, bool]:
    """Records outcomes. By attempt id, for those that count: whether the attempt was still open (False: a worker
    that took us for lost closed it, and only our positive answer counts)."""
    rows = await transaction.fetch(
        QUERIES["end_attempts"],
        [result.attempt.attempt_id for result in results],
        [result.at for result in results],
        [result.name for result in results],
        [result.outcome.status for result in results],
        [result.outcome.detail for result in results],
        [result.positive for result in results],
    )
    return {row["attempt_id"]: row["open"] for row in rows}


async def end_notices(
    transaction: Transaction, verdicts: Sequence[tuple[Result, Verdict]], now: datetime
) -> Mapping[UUID, NoticeState]:
    """Moves notices to where their verdicts put them; where those that moved stand now.

    One that was replaced by a newer notice while it was under way ends as superseded instead of being sent again.
    """
    rows = await transaction.fetch(
        QUERIES["end_notices"],
        [result.attempt.notice_id for result, _ in verdicts],
        [verdict.state.value for _, verdict in verdicts],
        [verdict.reason.value if verdict.reason else None for _, verdict in verdicts],
        [verdict.possibly_told for _, verdict in verdicts],
        [verdict.endpoint for _, verdict in verdicts],
        [verdict.expires_at for _, verdict in verdicts],
        [now if verdict.ended else None for _, verdict in verdicts],
        [result.positive for result, _ in verdicts],
        now,
    )
    return {row["notice_id"]: NoticeState(row["state"]) for row in rows}


async def lock_standings(transaction: Transaction, endpoints: Iterable[str]) -> Mapping[str, EndpointStanding]:
    """The stored standings of these endpoints, locked."""
    return _standings(await transaction.fetch(QUERIES["lock_standings"], sorted(endpoints)))


async def store_standings(transaction: Transaction, standings: Mapping[str, EndpointStanding], now: datetime) -> None:
    """Keeps what is known against endpoints now."""
    names = sorted(standings)
    kept = [standings[name] for name in names]
    await transaction.execute(
        QUERIES["store_standings"],
        names,
        [one.status.value for one in kept],
        [one.not_before for one in kept],
        [one.failures for one in kept],
        [one.reason for one in kept],
        now,
    )


async def release_lanes(transaction: Transaction, releases: Sequence[Release]) -> None:
    """Ends the leases, where they are still ours. Lanes with nothing left to send are due no more."""
    lanes = [release.lane for release in releases]
    recipients = [lane.recipient_id for lane in lanes]
    encounters = [lane.encounter_id for lane in lanes]
    leases = [lane.lease for lane in lanes]
    await transaction.execute(QUERIES["lock_lanes"], recipients, encounters, leases)
    await transaction.execute(
        QUERIES["release_lanes"],
        recipients,
        encounters,
        leases,
        [release.due_at for release in releases],
        [release.waits_for for release in releases],
        [release.until for release in releases],
    )


async def wake_lanes(transaction: Transaction, endpoints: Iterable[str], now: datetime) -> None:
    """Lanes that wait for these endpoints are due, some now and the others by and by: others want to be served too."""
    await transaction.execute(QUERIES["wake_lanes"], sorted(endpoints), now, PORTION)


def _standings(rows: Sequence[Row]) -> Mapping[str, EndpointStanding]:
    return {
        row["endpoint_id"]: EndpointStanding(
            status=EndpointStatus(row["state"]),
            not_before=row["not_before"],
            failures=row["failures"],
            reason=row["reason"],
        )
        for row in rows
    }
