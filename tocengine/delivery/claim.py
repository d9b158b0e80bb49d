"""Owns one claim: lanes leased, their heads checked and rendered, intents committed, in a single transaction.

Nothing is sent whose intent and audit record are not committed; where the audit cannot be written, the whole
claim fails and nothing is sent.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import structlog

from tocengine.delivery import postgres
from tocengine.delivery.addresses import AddressBook
from tocengine.delivery.attempts import Attempt, Lane, Release
from tocengine.delivery.breaker import FRESH, EndpointStanding, EndpointStatus
from tocengine.delivery.freshness import TAKES_BACK, Ended, Head, Ready, Waiting, check
from tocengine.delivery.lifecycle import EndReason
from tocengine.delivery.work import endpoint_changed, notice_ended
from tocengine.formats.packing import unpack
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.directory import ChannelKind, days_anywhere
from tocengine.model.encounter import Snapshot
from tocengine.model.facts import known
from tocengine.model.identity import PatientKey
from tocengine.model.ids import EncounterId, NoticeId
from tocengine.model.notice import Notice, NoticeState
from tocengine.model.work import WorkItem
from tocengine.ports import Address, AuditTrail, Channel, RecipientLookup, Transaction, WorkItems

PROBE_S = 60.0
"""How long an endpoint's probe may be under way before another lane is asked to be one."""
BUSY_S = 0.05
"""When to look again at a lane whose head another transaction was changing."""

_NOTICE = msgspec.json.Decoder(Notice)
_SNAPSHOT = msgspec.json.Decoder(Snapshot)
log = structlog.get_logger()


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one claim came to. `lanes` counts all that were leased, also those that had nothing to send."""

    attempts: Sequence[Attempt] = ()
    lanes: int = 0
    standings: Mapping[str, EndpointStanding] = msgspec.field(default_factory=dict)


class _Candidate(msgspec.Struct, frozen=True):
    lane: Lane
    head: Head
    snapshot: Snapshot
    ready: Ready
    address: Address


class _Plan:
    """What a claim is going to write, gathered lane by lane."""

    def __init__(self) -> None:
        self.candidates: list[_Candidate] = []
        self.attempts: list[Attempt] = []
        self.ended: dict[UUID, Ended] = {}
        self.moved: dict[UUID, tuple[int, datetime]] = {}  # to another endpoint that rests, and how long it has there
        self.unwanted: set[EncounterId] = set()  # with notices that patients do not want told any more
        self.releases: list[Release] = []
        self.standings: dict[str, EndpointStanding] = {}
        self.records: list[AuditRecord] = []
        self.items: list[WorkItem] = []

    def end(self, lane: Lane, notice_id: UUID, ended: Ended, now: datetime, feed: str = "") -> None:
        self.ended[notice_id] = ended
        self.releases.append(Release(lane=lane, due_at=now))
        record, item = notice_ended(
            NoticeId(notice_id), lane.recipient_id, lane.encounter_id, ended.state, ended.reason, now, feed
        )
        self.records.append(record)
        if item is not None:
            self.items.append(item)

    def pause(self, endpoint_id: str, standing: EndpointStanding, now: datetime) -> None:
        self.standings[endpoint_id] = standing
        record, item = endpoint_changed(endpoint_id, standing, now)
        self.records.append(record)
        if item is not None:
            self.items.append(item)


class Claimer:
    """Makes claims for one worker."""

    def __init__(
        self,
        worker_id: UUID,
        channels: Mapping[ChannelKind, Channel],
        directory: RecipientLookup,
        addresses: AddressBook,
        audit: AuditTrail,
        work_items: WorkItems,
        max_age: timedelta,
    ) -> None:
        self._worker_id = worker_id
        self._channels = channels
        self._directory = directory
        self._addresses = addresses
        self._audit = audit
        self._work_items = work_items
        self._max_age = max_age
        self._turn = ""  # the recipient whose lanes were claimed last; "" begins with the first one

    async def claim(
        self,
        transaction: Transaction,
        now: datetime,
        allowances: tuple[Sequence[str], Sequence[int]],
        *,
        otherwise: int,
        limit: int,
    ) -> Claim:
        """Runs inside the caller's transaction; what it returns may be sent once that is committed."""
        standings = await postgres.endpoint_standings(transaction)
        if any(one.not_before is not None and one.not_before <= now for one in standings.values()):
            await postgres.begin_probes(transaction, now, now + timedelta(seconds=PROBE_S))
            standings = await postgres.endpoint_standings(transaction)
        lanes = await self._lease(transaction, now, allowances, otherwise=otherwise, limit=limit)
        if not lanes:
            return Claim(standings=standings)
        rows = await postgres.heads(transaction, lanes)
        plan = _Plan()
        for lane in lanes:
            row = rows.get((lane.recipient_id, lane.encounter_id))
            if row is None:
                plan.releases.append(Release(lane=lane, due_at=now + timedelta(seconds=BUSY_S)))
            else:
                self._examine(plan, lane, row, standings, now)
        await self._drop_opted_out(transaction, plan, now)
        await self._render(transaction, plan, now)
        await self._write(transaction, plan, lanes, now)
        return Claim(attempts=plan.attempts, lanes=len(lanes), standings={**standings, **plan.standings})

    async def _lease(
        self,
        transaction: Transaction,
        now: datetime,
        allowances: tuple[Sequence[str], Sequence[int]],
        *,
        otherwise: int,
        limit: int,
    ) -> Sequence[Lane]:
        """Recipients take turns: a claim goes on where the last one ended, and once more from the start."""
        for after in dict.fromkeys((self._turn, "")):
            lanes = await postgres.claim_lanes(
                transaction,
                now,
                uuid4(),
                self._worker_id,
                allowances,
                after=after,
                otherwise=otherwise,
                limit=limit,
            )
            self._turn = max(lane.recipient_id for lane in lanes) if len(lanes) == limit else ""
            if lanes:
                return lanes
        return ()

    def _examine(
        self,
        plan: _Plan,
        lane: Lane,
        row: postgres.Row,
        standings: Mapping[str, EndpointStanding],
        now: datetime,
    ) -> None:
        notice_id: UUID = row["notice_id"]
        if row["state"] != NoticeState.QUEUED:  # held back, or recovered by nobody yet
            plan.releases.append(Release(lane=lane, due_at=now + timedelta(seconds=PROBE_S)))
            return
        try:
            notice, snapshot = _NOTICE.decode(row["body"]), _SNAPSHOT.decode(unpack(row["content"]))
        except (msgspec.DecodeError, ValueError):
            plan.end(lane, notice_id, Ended(NoticeState.FAILED, EndReason.RENDER_FAILED), now)
            return
        head = Head(
            notice=notice,
            endpoint=row["endpoint"],
            attempts=row["attempts"],
            possibly_told=row["possibly_told"],
            expires_at=row["expires_at"],
        )
        recipient = self._directory.recipient(lane.recipient_id)
        current = {**standings, **plan.standings} if plan.standings else standings
        found = check(head, recipient, current, now, self._max_age, lane.probes)
        match found:
            case Ended():
                plan.end(lane, notice_id, found, now, snapshot.feed)
            case Waiting():
                if found.moved is not None:
                    plan.moved[notice_id] = found.moved, found.until
                plan.releases.append(Release(lane=lane, due_at=None, waits_for=found.endpoint_id, until=found.until))
            case Ready():
                address = self._addresses.address(found.endpoint, now)
                if address is None:
                    standing = EndpointStanding(status=EndpointStatus.PAUSED, reason="secret not available")
                    plan.pause(found.endpoint.id, standing, now)
                    until = found.standing.expires_at
                    plan.releases.append(Release(lane=lane, due_at=None, waits_for=found.endpoint.id, until=until))
                else:
                    plan.candidates.append(_Candidate(lane, head, snapshot, found, address))

    async def _drop_opted_out(self, transaction: Transaction, plan: _Plan, now: datetime) -> None:
        """Ends what the patient does not want told any more. What takes back an earlier notice goes all the same, and
        routing finds out whether something has to be: what this one was to correct."""
        telling = [
            (one.head.notice.notice_id, one.lane.recipient_id, _numbers(one.snapshot))
            for one in plan.candidates
            if one.head.notice.status not in TAKES_BACK
        ]
        denied = await postgres.opted_out(transaction, telling, days_anywhere(now)) if telling else frozenset()
        for one in plan.candidates:
            if one.head.notice.notice_id in denied:
                ended = Ended(NoticeState.SUPPRESSED, EndReason.OPTED_OUT)
                plan.end(one.lane, one.head.notice.notice_id, ended, now, one.snapshot.feed)
                plan.unwanted.add(one.lane.encounter_id)
        plan.candidates = [one for one in plan.candidates if one.head.notice.notice_id not in denied]

    async def _render(self, transaction: Transaction, plan: _Plan, now: datetime) -> None:
        wanted = [
            one.head.notice.snapshot_id
            for one in plan.candidates
            if self._channels[one.ready.endpoint.channel].reads_chart
        ]
        charts = await postgres.charts(transaction, wanted) if wanted else {}
        for one in plan.candidates:
            notice, endpoint = one.head.notice, one.ready.endpoint
            recipient = self._directory.recipient(one.lane.recipient_id)
            assert recipient is not None, "checked a moment ago"
            chart = charts.get(notice.snapshot_id, b"")
            try:
                body = self._channels[endpoint.channel].render(notice, one.snapshot, chart, recipient, one.address.url)
            except Exception as error:  # one notice that cannot be rendered must not stop the others
                log.error("notice not rendered", notice_id=str(notice.notice_id), error_type=type(error).__name__)
                plan.end(
                    one.lane,
                    notice.notice_id,
                    Ended(NoticeState.FAILED, EndReason.RENDER_FAILED),
                    now,
                    one.snapshot.feed,
                )
                continue
            plan.attempts.append(_attempt(one, body))

    async def _write(self, transaction: Transaction, plan: _Plan, lanes: Sequence[Lane], now: datetime) -> None:
        if plan.attempts:
            await postgres.intend(transaction, plan.attempts, now)
            plan.records.extend(_intended(attempt, now) for attempt in plan.attempts)
        if plan.ended:
            await postgres.end_unsent(transaction, plan.ended, now)
        if plan.moved:
            await postgres.move_notices(transaction, plan.moved)
        if plan.unwanted:
            await postgres.decide_again(transaction, plan.unwanted, now)
        if plan.standings:
            await postgres.store_standings(transaction, plan.standings, now)
        asked = {lane.probes for lane in lanes if lane.probes} - {
            attempt.endpoint.id for attempt in plan.attempts if attempt.probe
        }
        if asked:
            await postgres.probe_again(transaction, asked, now)
        if plan.releases:
            await postgres.release_lanes(transaction, plan.releases)
        await self._audit.record(transaction, plan.records)
        if plan.items:
            await self._work_items.open(transaction, plan.items)


def _numbers(snapshot: Snapshot) -> tuple[PatientKey, ...]:
    """Every number the notice's patient goes by, as routing looks them up: the key first, then what was stated."""
    stated = known(snapshot.patient.identifiers) or ()
    others = (PatientKey(domain=i.domain, value=i.value) for i in stated if i.domain and i.value)
    return snapshot.patient_key, *others


def _attempt(one: _Candidate, body: bytes) -> Attempt:
    return Attempt(
        attempt_id=uuid4(),
        lane=one.lane,
        notice=one.head.notice,
        feed=one.snapshot.feed,
        received_at=one.snapshot.received_at,
        standing=one.ready.standing,
        endpoint=one.ready.endpoint,
        address=one.address,
        body=body,
        digest=hashlib.sha256(body).digest(),
    )


def _intended(attempt: Attempt, now: datetime) -> AuditRecord:
    return AuditRecord(
        action=AuditAction.ATTEMPT_INTENDED,
        at=now,
        encounter_id=attempt.lane.encounter_id,
        notice_id=attempt.notice_id,
        recipient_id=attempt.lane.recipient_id,
        detail={
            "attempt": str(attempt.attempt_id),
            "number": attempt.standing.attempt,
            "endpoint": attempt.endpoint.id,
            "channel": attempt.endpoint.channel.value,
            "level": attempt.notice.level.value,
            "sha256": attempt.digest.hex(),
        },
    )


def resting(standings: Mapping[str, EndpointStanding], endpoint_id: str, now: datetime) -> bool:
    """Whether nothing but a probe may be sent to the endpoint now."""
    known = standings.get(endpoint_id, FRESH)
    return known.status is not EndpointStatus.ACTIVE or (known.not_before is not None and now < known.not_before)
