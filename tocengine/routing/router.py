"""Owns the diff: what stands of an encounter against what each recipient holds, and so what each is told now.

Pure. Per (recipient, fact) at most one ruling; making it again without a change in between rules nothing.
"""

from collections.abc import Collection, Iterator
from datetime import datetime

from tocengine.model.directory import Level, Recipient
from tocengine.model.encounter import (
    Fact,
    TrackedEncounter,
    TransitionKind,
    TransitionStatus,
)
from tocengine.model.ids import NoticeId, RecipientId, SnapshotId
from tocengine.model.notice import Basis, ReasonCode
from tocengine.routing import policy as rules
from tocengine.routing.directory import Directory, Problem
from tocengine.routing.ledger import NOBODY, Entry, Ledger, LedgerKey, LedgerRow
from tocengine.routing.matching import DISCHARGES, Candidate, Matches
from tocengine.routing.policy import OUTWARD_KINDS, RoutePolicy
from tocengine.routing.rulings import CANCELLED_AS, CORRECTED, Drop, FactKey, Maker, Ruling

K, S = TransitionKind, TransitionStatus
_ENDS = DISCHARGES | {K.PATIENT_EXPIRED}


class Router:
    """Makes the rulings of one encounter. `only` limits them to those recipients."""

    def __init__(
        self,
        tracked: TrackedEncounter,
        matches: Matches,
        ledger: Ledger,
        directory: Directory,
        policy: RoutePolicy,
        now: datetime,
        only: Collection[RecipientId] | None = None,
    ) -> None:
        self.tracked, self.matches, self.ledger = tracked, matches, ledger
        self.directory, self.policy, self.only = directory, policy, only
        self.make = Maker(tracked, policy.max_age, now)
        self.facts = tuple(fact for fact in tracked.facts if fact.kind in OUTWARD_KINDS)
        self._holders: dict[FactKey, list[tuple[LedgerKey, Entry]]] = {}
        for key, entry in ledger.items():
            self._holders.setdefault((key[1], key[2]), []).append((key, entry))

    def rulings(self) -> list[Ruling]:
        """Cancellations first, then retractions, then what is told, in the order it happened."""
        taken_back = list(self._no_longer_standing())
        retracted: list[Ruling] = []
        told: list[Ruling] = []
        for fact in self.facts:
            for ruling in self._of_fact(fact):
                (retracted if ruling.status is S.RETRACTED else told).append(ruling)
        return taken_back + retracted + told

    def _wanted(self, recipient_id: RecipientId) -> bool:
        return self.only is None or recipient_id in self.only

    # --- facts that no longer stand

    def _no_longer_standing(self) -> Iterator[Ruling]:
        standing = {fact.key for fact in self.facts}
        named = {fact.key: (fact, kind) for fact, kind in self.tracked.cancelled}
        shared: dict[tuple[RecipientId, TransitionKind], NoticeId] = {}
        for key, entry in self.ledger.items():
            recipient_id, kind, occurrence = key
            if (kind, occurrence) in standing or recipient_id == NOBODY or not self._wanted(recipient_id):
                continue
            fact, outward = named.get((kind, occurrence), (None, CANCELLED_AS.get(kind)))
            if outward is not None:
                ruling = self._take_back(key, entry, fact, outward, shared)
                if ruling is not None:
                    yield ruling
        if self._wanted(NOBODY):
            yield from self._come_and_gone()

    def _come_and_gone(self) -> Iterator[Ruling]:
        """Facts that came and were cancelled within one batch: nobody was told, and that is on record."""
        for fact, _ in self.tracked.cancelled:
            if fact.kind in OUTWARD_KINDS and fact.key not in self._holders:
                key = (NOBODY, fact.kind, fact.occurrence)
                yield Ruling(
                    key=key, decision=self.make.decision(key, fact.watched, (), ReasonCode.CANCELLED_BEFORE_SEND)
                )

    def _take_back(
        self,
        key: LedgerKey,
        entry: Entry,
        fact: Fact | None,
        outward: TransitionKind,
        shared: dict[tuple[RecipientId, TransitionKind], NoticeId],
    ) -> Ruling | None:
        told, pending = entry.told, entry.pending
        drop = _dropped(pending, ReasonCode.CANCELLED_BEFORE_SEND)
        if drop is not None and pending is not None and pending.status in (S.CANCELLED, S.RETRACTED):
            return None
        if told is None:
            return self._unsent(key, pending, drop)
        one_for_all = shared.get((key[0], outward))
        if one_for_all is not None:  # one "visit cancelled" covers everything the recipient held of it
            decision = self.make.decision(key, told.watched, told.basis, None, one_for_all)
            return Ruling(
                key=key, decision=decision, drop=drop, replaces=told.notice_id,
                status=S.CANCELLED, level=Level.COP_MIN,
            )  # fmt: skip
        ruling = self._follow_up(key, entry, told, S.CANCELLED, outward, drop, fact)
        if ruling is not None and ruling.notice is not None:
            shared[key[0], outward] = ruling.notice.notice_id
        return ruling

    def _follow_up(
        self,
        key: LedgerKey,
        entry: Entry,
        told: LedgerRow,
        status: TransitionStatus,
        kind: TransitionKind,
        drop: Drop | None,
        fact: Fact | None = None,
    ) -> Ruling | None:
        """Takes back what was told: exempt from every filter but shadow and the lack of an address."""
        recipient = self.directory.recipient(key[0])
        reason = ReasonCode.SHADOW if rules.in_shadow(self.tracked) else None
        if reason is None and (recipient is None or not recipient.endpoints):
            reason = ReasonCode.NO_ENDPOINT
        if reason is not None:
            if entry.reason is reason and drop is None:
                return None
            decision = self.make.decision(key, told.watched, told.basis, reason)
            return Ruling(key=key, decision=decision, drop=drop, work=self.make.unsendable(key, told, reason))
        snapshot_id, level = self._shown_when_taken_back(told, status, recipient)
        earlier = told.notice()
        spoken = self.make.transition(key[1:], kind) if status is S.CANCELLED else None
        effective = fact.effective.text if fact is not None and status is S.CANCELLED else earlier.effective
        notice = self.make.notice(
            key, entry, told.watched, status, kind, snapshot_id, level, told.basis,
            effective, spoken.recorded.text if spoken else earlier.recorded, told.notice_id,
        )  # fmt: skip
        decision = self.make.decision(key, told.watched, told.basis, None, notice.notice_id)
        return Ruling(
            key=key, decision=decision, notice=notice, drop=drop, replaces=told.notice_id,
            status=status, level=level,
        )  # fmt: skip

    def _shown_when_taken_back(
        self, told: LedgerRow, status: TransitionStatus, recipient: Recipient | None
    ) -> tuple[SnapshotId, Level]:
        """A cancellation shows the encounter as it is now to those who may still see it; anybody else, and every
        retraction, gets the minimum of what it had been told, so that no new value reaches it (domain 2.4)."""
        snapshot = self.tracked.snapshot
        related = {hit.recipient_id for hit in self.matches.panel}
        related.update(recipient_id for recipient_id, _ in self.matches.primary_care)
        still_theirs = told.recipient_id in related or (
            Basis.DESTINATION in told.basis and not snapshot.encounter.destination and not self._of_another(told)
        )
        refused = self.tracked.part2 or rules.held_back(self.tracked) or self.matches.refusal(told.recipient_id)
        if status is S.CANCELLED and still_theirs and not refused and recipient is not None:
            return snapshot.snapshot_id, rules.level_for(self.tracked, told.basis, recipient)
        return told.notice().snapshot_id, Level.COP_MIN

    # --- facts that stand

    def _of_fact(self, fact: Fact) -> Iterator[Ruling]:
        candidates = self.matches.candidates(fact)
        ids = set()
        for candidate in candidates:
            ids.add(candidate.recipient_id)
            if self._wanted(candidate.recipient_id):
                ruling = self._of_candidate(fact, candidate)
                if ruling is not None:
                    yield ruling
        for key, entry in self._holders.get(fact.key, ()):
            if key[0] not in ids and key[0] != NOBODY and self._wanted(key[0]):
                ruling = self._lost(key, entry, fact)
                if ruling is not None:
                    yield ruling
        if self._wanted(NOBODY):
            yield from self._of_nobody(fact, found=bool(candidates))

    def _of_candidate(self, fact: Fact, candidate: Candidate) -> Ruling | None:
        key = (candidate.recipient_id, fact.kind, fact.occurrence)
        entry = self.ledger.get(key) or Entry()
        told, pending = entry.told, entry.pending
        if told is not None and (candidate.blocked is not None or rules.held_back(self.tracked)):
            return self._lost(key, entry, fact)
        if told is not None and told.watched == fact.watched and pending is None:
            return None  # most messages change nothing for most recipients
        if entry.reason in rules.SILENT_ORIGINS and told is None and pending is None:
            return None
        recipient = self.directory.recipient(candidate.recipient_id)
        covered = self._covered(fact, candidate.recipient_id) if told is None and pending is None else None
        verdict = rules.judge(
            self.tracked, fact, candidate, recipient, told=told is not None, covered=covered or _covered_by(fact)
        )
        if verdict.reason is None:
            return self._tell(key, entry, fact, candidate, verdict.level)
        drop = _dropped(pending, verdict.reason)
        if drop is None and entry.reason is verdict.reason:
            return None
        decision = self.make.decision(key, fact.watched, candidate.basis, verdict.reason, evidence=candidate.evidence)
        work = None
        if verdict.reason is ReasonCode.PRIVACY_MARKED:
            work = self.make.held_back()
        elif Basis.DESTINATION in candidate.basis:
            work = self.make.of_destination(key, verdict.reason)
        return Ruling(key=key, decision=decision, drop=drop, work=work)

    def _tell(self, key: LedgerKey, entry: Entry, fact: Fact, candidate: Candidate, level: Level) -> Ruling | None:
        told, pending = entry.told, entry.pending
        drop = _dropped(pending, ReasonCode.SUPERSEDED)
        if drop is not None and pending is not None and pending.status in (S.NEW, S.UPDATED):
            unchanged = pending.watched == fact.watched and pending.level == level
            if unchanged:
                return None
        if told is not None and told.watched == fact.watched:
            return Ruling(key=key, drop=drop) if drop else None
        if told is not None and self._no_longer_watched():
            if entry.reason is ReasonCode.LATE_HISTORIC and drop is None:
                return None
            decision = self.make.decision(key, fact.watched, candidate.basis, ReasonCode.LATE_HISTORIC)
            return Ruling(key=key, decision=decision, drop=drop)
        status = S.NEW if told is None else S.UPDATED
        notice = self.make.notice(
            key, entry, fact.watched, status, fact.kind if told is None else CORRECTED[fact.kind],
            self.tracked.snapshot.snapshot_id, level, candidate.basis, fact.effective.text, fact.recorded.text,
            told.notice_id if told else None,
            late=rules.is_late(self.tracked, fact, self.policy),
        )  # fmt: skip
        decision = self.make.decision(key, fact.watched, candidate.basis, None, notice.notice_id, candidate.evidence)
        return Ruling(
            key=key, decision=decision, notice=notice, drop=drop, replaces=told.notice_id if told else None,
            status=status, level=level,
        )  # fmt: skip

    def _lost(self, key: LedgerKey, entry: Entry, fact: Fact) -> Ruling | None:
        """Someone in the ledger who is no candidate any more: a retraction where what it holds was meant for it by
        the message itself, belongs to somebody else's patient, or is no longer so (domain 2.4)."""
        told, pending = entry.told, entry.pending
        drop = _dropped(pending, ReasonCode.SUPERSEDED)
        if drop is not None and pending is not None and pending.status in (S.CANCELLED, S.RETRACTED):
            return None
        if told is None:
            return self._unsent(key, pending, drop)
        misled = told.watched != fact.watched or (
            not self._refused_since(told) and (Basis.DESTINATION in told.basis or self._of_another(told))
        )
        if not misled or self._no_longer_watched():
            return Ruling(key=key, drop=drop) if drop else None
        return self._follow_up(key, entry, told, S.RETRACTED, fact.kind, drop)

    def _unsent(self, key: LedgerKey, pending: LedgerRow | None, drop: Drop | None) -> Ruling | None:
        """What is dropped of a fact that the recipient was never told of."""
        if drop is None or pending is None:
            return None
        decision = self.make.decision(key, pending.watched, pending.basis, drop.reason)
        return Ruling(key=key, decision=decision, drop=drop)

    def _refused_since(self, told: LedgerRow) -> bool:
        """Whether the patient, who was meant then as now, no longer wants this recipient told, or is marked since: it
        keeps what it was rightly told, as long as that is so."""
        refused = rules.held_back(self.tracked) or self.matches.refusal(told.recipient_id) is not None
        return told.patient_id in self.tracked.number_ids and refused

    def _of_another(self, told: LedgerRow) -> bool:
        """Whether what was told was about another patient than the one whose visit it is now. Once a merge has made
        them one, that counts for those only whom the merge itself left behind (domain 2.2)."""
        if told.patient_id == self.tracked.patient_id:
            return self.tracked.parted
        return self.tracked.rekeyed or told.patient_id not in self.tracked.number_ids

    def _of_nobody(self, fact: Fact, found: bool) -> Iterator[Ruling]:
        """The record, and the work item, of a fact whose destination, or any recipient at all, is missing."""
        key = (NOBODY, fact.kind, fact.occurrence)
        entry = self.ledger.get(key)
        matches, problem = self.matches, self.matches.destination.problem
        silent = rules.suppression(self.tracked) or _covered_by(fact)
        reason = silent
        if reason is None and fact.kind in DISCHARGES and problem and matches.destination_expected:
            reason = ReasonCode.DESTINATION_UNRESOLVED
        elif reason is None:
            reason = ReasonCode.NO_RECIPIENT
        if (found and reason is not ReasonCode.DESTINATION_UNRESOLVED) or (entry and entry.reason is reason):
            return
        work = None
        if reason is ReasonCode.DESTINATION_UNRESOLVED and problem is not Problem.NOT_NAMED:
            work = self.make.unresolved(problem)
        evidence = f"destination {problem}" if reason is ReasonCode.DESTINATION_UNRESOLVED else ""
        decision = self.make.decision(key, fact.watched, (), reason, evidence=evidence)
        yield Ruling(key=key, decision=decision, work=work)

    def _covered(self, fact: Fact, recipient_id: RecipientId) -> ReasonCode | None:
        """An arrival that becomes known after the recipient was told of its end, or long after, is not news.

        Decided by the order in which the messages came, not by how they were batched.
        """
        if fact.kind in _ENDS:
            return None
        for end in self.facts:
            if end.kind not in _ENDS or end.effective.at < fact.effective.at:
                continue
            entry = self.ledger.get((recipient_id, end.kind, end.occurrence))
            known_to_recipient = entry is not None and (entry.told or entry.pending)
            stale = fact.message_id not in self.tracked.message_ids and rules.is_late(self.tracked, fact, self.policy)
            if known_to_recipient or end.received_at < fact.received_at or stale:
                return ReasonCode.COVERED_BY_DISCHARGE
        return None

    def _no_longer_watched(self) -> bool:
        """Closed for more than seven days: nobody is corrected any more (domain 2.4)."""
        if self.tracked.snapshot.state in rules.OPEN_STATES:
            return False
        ends = [fact.effective.at for fact in self.facts if fact.kind in _ENDS]
        return bool(ends) and self.tracked.snapshot.received_at - max(ends) > rules.HISTORIC


def _dropped(pending: LedgerRow | None, reason: ReasonCode) -> Drop | None:
    return Drop(pending.notice_id, reason) if pending is not None and pending.notice_id is not None else None


def _covered_by(fact: Fact) -> ReasonCode | None:
    return ReasonCode(fact.covered_by) if fact.covered_by else None


def decide(
    tracked: TrackedEncounter,
    matches: Matches,
    ledger: Ledger,
    directory: Directory,
    policy: RoutePolicy,
    now: datetime,
    only: Collection[RecipientId] | None = None,
) -> list[Ruling]:
    """Who is told what about `tracked`, given what everybody holds; nobody twice, nothing without its reason."""
    return Router(tracked, matches, ledger, directory, policy, now, only).rulings()
