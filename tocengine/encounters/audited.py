"""Owns what the audit log records of a batch: every message, what it said of keys, and what that did. Pure."""

from collections.abc import Sequence
from datetime import datetime

from tocengine.encounters.edges import EdgeKind, edges_of, moves_of, rekeyed_visits
from tocengine.encounters.tracker import Batch
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.event import Event, EventRecord
from tocengine.model.ids import EncounterId, MessageId


def audited(
    batch: Batch, fresh: Sequence[EventRecord], repeats: Sequence[EventRecord], now: datetime
) -> list[AuditRecord]:
    """The records of a batch: `fresh` were taken in or are held back, `repeats` were dropped."""
    said: dict[tuple[EncounterId, MessageId], list[str]] = {}
    for row in batch.rows.values():
        for transition in (*row.transitions, *row.inside):
            said.setdefault((row.encounter_id, transition.message_id), []).append(
                f"{transition.status} {transition.kind}"
            )
    records = []
    waits = {(each.record.summary.message_id, each.record.summary.part): each for each in batch.held.waiting}
    released = {(r.summary.message_id, r.summary.part): r for r in batch.held.released}
    stored_before = [each.record for each in batch.held.gone]
    for record in (*stored_before, *fresh):
        event = record.summary
        identity = (event.message_id, event.part)
        visits = [event.visit] if event.visit else rekeyed_visits(event)[-1:]
        encounter_id = visits[0].encounter_id if visits and event.handled else None
        detail: dict[str, object] = {"feed": event.feed, "trigger": event.trigger, "answered": event.answered}
        if identity in waits:
            detail["release_at"] = waits[identity].release_at.isoformat()
            records.append(_audit(AuditAction.MESSAGE_HELD, event, now, detail, encounter_id))
            continue
        applied_at = released[identity].summary.released_at if identity in released else event.released_at
        if applied_at is not None:
            detail["held_until"] = applied_at.isoformat()
        if not event.handled:
            detail["handled"] = False
        if event.revision:
            detail["revision"] = event.revision
        if keys := _keys_said(event):
            detail["keys"] = keys
        if encounter_id and (kinds := said.get((encounter_id, event.message_id))):
            detail["transitions"] = kinds
        records.append(_audit(AuditAction.MESSAGE_TRACKED, event, now, detail, encounter_id))
    for record in repeats:
        event = record.summary
        records.append(_audit(AuditAction.MESSAGE_REPEATED, event, now, {"feed": event.feed}))
    return records + _of_keys(batch, now)


def _of_keys(batch: Batch, now: datetime) -> list[AuditRecord]:
    """Whom and what merges and moves made one, gave to another patient, or did not."""
    records = []
    for event, kind, prior, surviving in batch.rekeying.merged:
        detail: dict[str, object] = {"prior": str(prior), "surviving": str(surviving)}
        of_visit = kind is EdgeKind.VISIT
        action = AuditAction.VISIT_MERGED if of_visit else AuditAction.PATIENT_MERGED
        records.append(_audit(action, event, now, detail, EncounterId(surviving) if of_visit else None))
    for event, edge in batch.rekeying.refused:
        detail = {"kind": edge.kind, "prior": str(edge.prior), "surviving": str(edge.surviving)}
        if edge.message_id != event.message_id:
            detail["said_by"] = str(edge.message_id)  # an earlier message, by recorded time the later one
        records.append(_audit(AuditAction.MERGE_REFUSED, event, now, detail))
    for encounter_id, (moved_from, moved_to) in batch.moved.items():
        row = batch.rows[encounter_id]
        if row.event is not None and moved_from != moved_to:
            detail = {"prior": str(moved_from), "surviving": str(moved_to)}
            records.append(_audit(AuditAction.ENCOUNTER_MOVED, row.event, now, detail, encounter_id))
    return records


def _keys_said(event: Event) -> list[dict[str, str]]:
    """What an event says of keys, by their ids: a merge, a link, or a move, of a number, a visit or an account."""
    said = [
        {"kind": str(edge.kind), "prior": str(edge.prior), "surviving": str(edge.surviving)}
        for edge in edges_of(event)
        if not edge.moved
    ]
    for move in moves_of(event):
        moved = {
            "kind": "MOVE",
            "prior": str(move.prior.patient_id),
            "surviving": str(move.surviving.patient_id),
        }
        if move.visit is not None:
            moved["visit"] = str(move.visit.encounter_id)
        if move.account is not None:
            moved["account"] = str(move.account.account_id)
        said.append(moved)
    return said


def _audit(
    action: AuditAction,
    event: Event,
    now: datetime,
    detail: dict[str, object],
    encounter_id: EncounterId | None = None,
) -> AuditRecord:
    return AuditRecord(action=action, at=now, message_id=event.message_id, encounter_id=encounter_id, detail=detail)
