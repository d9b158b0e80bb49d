"""Owns what a decision is written with: the ruling, and how its decision, notice and work items are made. Pure."""

from datetime import datetime, timedelta

import msgspec

from tocengine.model.directory import Level
from tocengine.model.encounter import TrackedEncounter, Transition, TransitionKind, TransitionStatus
from tocengine.model.ids import MessageId, NoticeId, SnapshotId, derive
from tocengine.model.notice import Basis, Notice, ReasonCode, RoutingDecision
from tocengine.model.work import WorkItem, WorkKind
from tocengine.routing.directory import Problem
from tocengine.routing.ledger import Entry, LedgerKey, LedgerRow

K, S = TransitionKind, TransitionStatus
FactKey = tuple[TransitionKind, int]

CORRECTED = {
    K.ED_REGISTRATION: K.ED_REGISTRATION_CORRECTED,
    K.INPATIENT_ADMIT: K.INPATIENT_ADMIT_CORRECTED,
    K.OBSERVATION_START: K.OBSERVATION_START_CORRECTED,
    K.ED_DISCHARGE: K.ED_DISCHARGE_CORRECTED,
    K.INPATIENT_DISCHARGE: K.INPATIENT_DISCHARGE_CORRECTED,
    K.PATIENT_EXPIRED: K.PATIENT_EXPIRED_CORRECTED,
}
CANCELLED_AS = {
    K.ED_REGISTRATION: K.ED_CANCELLED,
    K.INPATIENT_ADMIT: K.ADMIT_CANCELLED,
    K.OBSERVATION_START: K.ADMIT_CANCELLED,
    K.ED_DISCHARGE: K.DISCHARGE_CANCELLED,
    K.INPATIENT_DISCHARGE: K.DISCHARGE_CANCELLED,
    K.PATIENT_EXPIRED: K.DISCHARGE_CANCELLED,
}
"""How a fact that was told and no longer stands is taken back where the tracker does not say it otherwise."""


class Drop(msgspec.Struct, frozen=True):
    """A waiting notice that must not leave; it may have left in the meantime, then the ruling is made anew."""

    notice_id: NoticeId
    reason: ReasonCode


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided for one recipient about one fact. `replaces` is a notice that reached the recipient, or may
    have, and must not be attempted again."""

    key: LedgerKey
    decision: RoutingDecision | None = None
    notice: Notice | None = None
    drop: Drop | None = None
    replaces: NoticeId | None = None
    work: WorkItem | None = None
    level: Level | None = None
    status: TransitionStatus | None = None


_TO_SETTLE = {
    ReasonCode.RECIPIENT_DENIED: (
        WorkKind.DESTINATION_REFUSED,
        "A discharge goes to a facility that the patient does not want told; it was not.",
    ),
    ReasonCode.DESTINATION_UNRESOLVED: (
        WorkKind.DESTINATION_UNRESOLVED,
        "A discharge names a facility that does not give the care its disposition says; the facility was not told.",
    ),
}


class Maker:
    """Makes decisions, notices and work items about one encounter; a replay makes the same ids."""

    def __init__(self, tracked: TrackedEncounter, max_age: timedelta, now: datetime) -> None:
        self.tracked, self.max_age, self.now = tracked, max_age, now
        self._transitions: dict[FactKey, Transition] = {
            (transition.fact_kind, transition.occurrence): transition for transition in tracked.transitions
        }

    def decision(
        self,
        key: LedgerKey,
        watched: bytes,
        basis: tuple[Basis, ...],
        reason: ReasonCode | None,
        notice_id: NoticeId | None = None,
        evidence: str = "",
    ) -> RoutingDecision:
        """What is put on record: a notice, or the reason why there is none."""
        return RoutingDecision(
            encounter_id=self.tracked.encounter_id,
            recipient_id=key[0] or None,
            fact_kind=key[1],
            occurrence=key[2],
            watched=watched,
            basis=basis,
            message_id=self._message_id(key[1:]),
            reason=reason,
            notice_id=notice_id,
            evidence=evidence,
        )

    def notice(
        self,
        key: LedgerKey,
        entry: Entry,
        watched: bytes,
        status: TransitionStatus,
        kind: TransitionKind,
        snapshot_id: SnapshotId,
        level: Level,
        basis: tuple[Basis, ...],
        effective: str,
        recorded: str,
        supersedes: NoticeId | None,
        late: bool = False,
    ) -> Notice:
        """A notice to be queued; `effective` and `recorded` are FHIR dateTimes."""
        encounter_id = self.tracked.encounter_id
        # the count tells a second notice of the same content apart from the first; a replay counts the same
        notice_id = derive("notice", encounter_id.bytes, key[0], key[1], str(key[2]), status, watched, str(entry.count))
        return Notice(
            notice_id=NoticeId(notice_id),
            recipient_id=key[0],
            encounter_id=encounter_id,
            snapshot_id=snapshot_id,
            kind=kind,
            status=status,
            fact_kind=key[1],
            occurrence=key[2],
            level=level,
            basis=basis,
            effective=effective,
            recorded=recorded,
            message_id=self._message_id(key[1:]),
            created_at=self.now,
            expires_at=self.now + self.max_age,
            supersedes=supersedes,
            late=late,
        )

    def transition(self, fact_key: FactKey, kind: TransitionKind) -> Transition | None:
        """What the tracker says of the fact now; one "visit cancelled" speaks for several facts."""
        exact = self._transitions.get(fact_key)
        return exact or next((t for t in self.tracked.transitions if t.kind is kind), None)

    def _message_id(self, fact_key: FactKey) -> MessageId:
        transition = self._transitions.get(fact_key)
        return transition.message_id if transition else self.tracked.snapshot.message_id

    def unsendable(self, key: LedgerKey, told: LedgerRow, reason: ReasonCode) -> WorkItem | None:
        """The request to tell a person by other means that what it was told no longer holds."""
        if reason is ReasonCode.SHADOW:
            return None
        return WorkItem(
            kind=WorkKind.CANCELLATION_NOT_SENDABLE,
            subject=f"{key[0]}|{self.tracked.encounter_id}|{key[1]}|{key[2]}",
            summary="A recipient was told something that no longer holds and has no endpoint: tell it by phone.",
            opened_at=self.now,
            feed=self.tracked.snapshot.feed,
            message_id=self.tracked.snapshot.message_id,
            encounter_id=self.tracked.encounter_id,
            notice_id=told.notice_id,
        )

    def of_destination(self, key: LedgerKey, reason: ReasonCode) -> WorkItem | None:
        """The request to settle why the facility that a discharge goes to was not told, where a person can."""
        if reason not in _TO_SETTLE:
            return None
        snapshot = self.tracked.snapshot
        kind, summary = _TO_SETTLE[reason]
        return WorkItem(
            kind=kind,
            subject=f"{self.tracked.encounter_id}|{key[0]}",
            summary=summary,
            opened_at=self.now,
            feed=snapshot.feed,
            message_id=snapshot.message_id,
            encounter_id=self.tracked.encounter_id,
        )

    def held_back(self) -> WorkItem:
        """The request to look at a visit whose sender marked it: nothing is told of it meanwhile."""
        snapshot = self.tracked.snapshot
        return WorkItem(
            kind=WorkKind.NOTICES_HELD_BACK,
            subject=str(self.tracked.encounter_id),
            summary=f"The sender marked patient or visit ({', '.join(sorted(self.tracked.marks))}): nothing is told.",
            opened_at=self.now,
            feed=snapshot.feed,
            message_id=snapshot.message_id,
            encounter_id=self.tracked.encounter_id,
        )

    def unresolved(self, problem: Problem | None) -> WorkItem:
        """The request to find out which facility a discharge goes to."""
        ambiguous = problem is Problem.AMBIGUOUS
        snapshot = self.tracked.snapshot
        return WorkItem(
            kind=WorkKind.DESTINATION_AMBIGUOUS if ambiguous else WorkKind.DESTINATION_UNRESOLVED,
            subject=str(self.tracked.encounter_id),
            summary=(
                "A discharge names a destination that several facilities of the directory answer to."
                if ambiguous
                else "A discharge names a destination that the directory does not know."
            ),
            opened_at=self.now,
            feed=snapshot.feed,
            message_id=snapshot.message_id,
            encounter_id=self.tracked.encounter_id,
        )
