"""Owns the decisions of a batch: lookups once for all of it, the rulings, and the race for waiting notices."""

from collections.abc import Sequence
from datetime import datetime

from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.codes import NotedCodes
from tocengine.model.encounter import TrackedEncounter, TransitionStatus
from tocengine.model.ids import EncounterId, RecipientId
from tocengine.model.work import WorkItem, WorkKind
from tocengine.ports import Transaction
from tocengine.routing.directory import Directory
from tocengine.routing.ledger import fold, with_adopted
from tocengine.routing.matching import DISCHARGES, Matches, group_hits, match
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import drop_notices, find_panel_hits, read_ledger
from tocengine.routing.router import decide
from tocengine.routing.rulings import Drop, Ruling

ROUNDS = 8
"""A notice can be lost to a sender once per attempt; the loop ends long before."""


class Rulings:
    """What was decided about a batch's encounters, in the order in which it is told."""

    def __init__(self, tracked: Sequence[TrackedEncounter] = ()) -> None:
        self.tracked = tracked
        self.codes = NotedCodes()
        self.made: list[tuple[TrackedEncounter, Ruling]] = []
        self.dropped: list[tuple[TrackedEncounter, RecipientId, Drop]] = []

    def audit_records(self, now: datetime) -> list[AuditRecord]:
        """One record per encounter with all its sends and non-sends, and one per notice that was taken away."""
        by_encounter: dict[EncounterId, tuple[TrackedEncounter, list[dict[str, object]]]] = {}
        for tracked, ruling in self.made:
            if ruling.decision is not None:
                by_encounter.setdefault(tracked.encounter_id, (tracked, []))[1].append(_detail(ruling))
        records = [
            AuditRecord(
                action=AuditAction.NOTICES_DECIDED,
                at=now,
                message_id=tracked.snapshot.message_id,
                encounter_id=encounter_id,
                detail={"decisions": decisions},
            )
            for encounter_id, (tracked, decisions) in by_encounter.items()
        ]
        for tracked, recipient_id, drop in self.dropped:
            records.append(
                AuditRecord(
                    action=AuditAction.NOTICE_DROPPED,
                    at=now,
                    message_id=tracked.snapshot.message_id,
                    encounter_id=tracked.encounter_id,
                    notice_id=drop.notice_id,
                    recipient_id=recipient_id,
                    detail={"reason": drop.reason.value},
                )
            )
        return records

    def work_items(self) -> list[WorkItem]:
        """What only a person can put right."""
        return [work for tracked, ruling in self.made for work in (ruling.work, _treating(tracked, ruling)) if work]


def _treating(tracked: TrackedEncounter, ruling: Ruling) -> WorkItem | None:
    """A discharge was told without the treating practitioner, who belongs in every notice (42 CFR 482.24(d))."""
    notice = ruling.notice
    if notice is None or notice.status is not TransitionStatus.NEW or notice.kind not in DISCHARGES:
        return None
    if tracked.snapshot.encounter.treating:
        return None
    return WorkItem(
        kind=WorkKind.TREATING_NOT_SUPPLIED,
        subject=str(tracked.encounter_id),
        summary="A discharge was told without a treating practitioner: the messages name none.",
        opened_at=notice.created_at,
        feed=tracked.snapshot.feed,
        message_id=notice.message_id,
        encounter_id=tracked.encounter_id,
    )


def _detail(ruling: Ruling) -> dict[str, object]:
    decision = ruling.decision
    assert decision is not None
    detail: dict[str, object] = {
        "recipient": decision.recipient_id or "",
        "fact": decision.fact_kind.value,
        "occurrence": decision.occurrence,
        "basis": [basis.value for basis in decision.basis],
        "watched": decision.watched.hex(),
    }
    if decision.reason is not None:
        detail["reason"] = decision.reason.value
    if decision.evidence:
        detail["evidence"] = decision.evidence
    if decision.notice_id is not None:
        detail["notice"] = str(decision.notice_id)
        detail["status"] = ruling.status.value if ruling.status else ""
        detail["level"] = ruling.level.value if ruling.level else ""
    return detail


async def decide_batch(
    transaction: Transaction,
    tracked: Sequence[TrackedEncounter],
    directory: Directory,
    policy: RoutePolicy,
    now: datetime,
    *,
    refused_only: bool = False,
) -> Rulings:
    """The rulings about `tracked`; waiting notices that must not leave are taken away here, in `transaction`.

    A sender may have begun with one of them since the ledger was read. Then that recipient's rulings are made
    again from the ledger as it is now. With `refused_only` no message led here: it is about those alone whom the
    patient, as of `now`, does not want told.
    """
    rulings = Rulings(tracked)
    if not tracked:
        return rulings
    hits = group_hits(len(tracked), await find_panel_hits(transaction, tracked))
    ledger = await read_ledger(transaction, _told_under(tracked))
    matches = {
        encounter.encounter_id: match(encounter, found, directory, policy.facilities, now if refused_only else None)
        for encounter, found in zip(tracked, hits, strict=True)
    }
    for encounter in tracked:
        encounter_id = encounter.encounter_id
        held = fold(with_adopted(encounter_id, encounter.adopted, ledger))
        only = matches[encounter_id].refused(key[0] for key in held) if refused_only else None
        made = decide(encounter, matches[encounter_id], held, directory, policy, now, only)
        rulings.made.extend((encounter, ruling) for ruling in made)
    open_drops = [(encounter, ruling) for encounter, ruling in rulings.made if ruling.drop is not None]
    for _ in range(ROUNDS):
        if not open_drops:
            return rulings
        lost = await _drop(transaction, rulings, open_drops, now)
        open_drops = await _decide_again(transaction, rulings, lost, matches, directory, policy, now)
    raise RuntimeError("notices cannot be taken away: the ledger does not settle")


def _told_under(tracked: Sequence[TrackedEncounter]) -> list[EncounterId]:
    """The encounters, with the visits that were merged into them."""
    ids = [encounter.encounter_id for encounter in tracked]
    return ids + [each.encounter_id for encounter in tracked for each in encounter.adopted]


async def _drop(
    transaction: Transaction,
    rulings: Rulings,
    wanted: Sequence[tuple[TrackedEncounter, Ruling]],
    now: datetime,
) -> dict[EncounterId, set[RecipientId]]:
    """Takes the notices away; returns whose could not be, by encounter."""
    drops = [ruling.drop for _, ruling in wanted if ruling.drop is not None]
    taken = await drop_notices(transaction, drops, now)
    lost: dict[EncounterId, set[RecipientId]] = {}
    for encounter, ruling in wanted:
        if ruling.drop is None:
            continue
        if ruling.drop.notice_id in taken:
            rulings.dropped.append((encounter, ruling.key[0], ruling.drop))
        else:
            lost.setdefault(encounter.encounter_id, set()).add(ruling.key[0])
    return lost


async def _decide_again(
    transaction: Transaction,
    rulings: Rulings,
    lost: dict[EncounterId, set[RecipientId]],
    matches: dict[EncounterId, Matches],
    directory: Directory,
    policy: RoutePolicy,
    now: datetime,
) -> list[tuple[TrackedEncounter, Ruling]]:
    """Replaces the rulings of the recipients that lost; returns the new ones that want to drop something."""
    if not lost:
        return []
    encounters = {encounter.encounter_id: encounter for encounter in rulings.tracked}
    ledger = await read_ledger(transaction, _told_under([encounters[encounter_id] for encounter_id in lost]))
    gone = {drop.notice_id for _, _, drop in rulings.dropped}
    again: list[tuple[TrackedEncounter, Ruling]] = []
    for encounter_id, recipients in lost.items():
        encounter = encounters[encounter_id]
        held = fold(with_adopted(encounter_id, encounter.adopted, ledger))
        made = decide(encounter, matches[encounter_id], held, directory, policy, now, recipients)
        keys = {ruling.key for ruling in made}
        rulings.made = [
            (other, ruling)
            for other, ruling in rulings.made
            if other is not encounter
            or ruling.key[0] not in recipients
            # what was taken away stays decided, where there is nothing to say beyond it
            or (ruling.drop is not None and ruling.drop.notice_id in gone and ruling.key not in keys)
        ]
        again.extend((encounter, ruling) for ruling in made)
    rulings.made.extend(again)
    return [(encounter, ruling) for encounter, ruling in again if ruling.drop is not None]
