"""Owns what is shown of an encounter: the snapshot a notice renders, and the transitions that stay inside. Pure."""

import msgspec
from msgspec import UNSET

from tocengine.encounters.facts import phases
from tocengine.encounters.state import Folded
from tocengine.model.encounter import (
    EncounterState,
    Snapshot,
    Transition,
    TransitionKind,
    TransitionStatus,
)
from tocengine.model.event import Event
from tocengine.model.facts import EncounterFacts, PatientClass
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, SnapshotId, TransitionId, derive

CLASS_BY_STATE = {
    EncounterState.ED: PatientClass.EMERGENCY,
    EncounterState.OBSERVATION: PatientClass.OBSERVATION,
    EncounterState.INPATIENT: PatientClass.INPATIENT,
}


def snapshot_of(
    encounter_id: EncounterId, visit: VisitKey, folded: Folded, event: Event, patient: PatientKey
) -> Snapshot:
    """What a notice renders of an encounter as it is now; `event` touched it last, `patient` is the surviving key."""
    return Snapshot(
        snapshot_id=_snapshot_id(encounter_id, event),
        encounter_id=encounter_id,
        feed=folded.feed or event.feed,
        facility=folded.facility or event.facility,
        state=folded.state,
        patient_key=patient,
        visit=visit,
        patient=folded.patient,
        encounter=_rendered(folded),
        content_type=event.content_type,
        trigger=event.trigger,
        control_id=event.control_id,
        message_id=event.message_id,
        received_at=event.received_at,
        phases=phases(folded),
        flags=folded.flags,
    )


def _snapshot_id(encounter_id: EncounterId, event: Event) -> SnapshotId:
    """Derived from the batch's last event about the encounter, so that a replay makes it again."""
    part = f"{event.part}.{event.revision}"
    return SnapshotId(derive("snapshot", encounter_id.bytes, event.message_id.bytes, part))


def _rendered(folded: Folded) -> EncounterFacts:
    """The visit as it stands: its class follows from its state, and what is only planned is not shown as done."""
    said = folded.encounter
    changes: dict[str, object] = {}
    discharged = folded.state is EncounterState.DISCHARGED
    stated_class = CLASS_BY_STATE.get(folded.underlying)
    if stated_class is not None and not (discharged and said.patient_class in CLASS_BY_STATE.values()):
        changes["patient_class"] = stated_class
    if not said.admitted and folded.movements and not folded.movements[0].implied:
        changes["admitted"] = folded.movements[0].effective
    if discharged:
        if not said.discharged and folded.top is not None:
            changes["discharged"] = folded.top.effective
    else:
        changes["discharged"] = UNSET
        if folded.expired is None and folded.expected is None:
            changes.update(disposition=UNSET, destination=UNSET)
    return msgspec.structs.replace(said, **changes)


def inside_kind(before: Folded, after: Folded, event: Event) -> TransitionKind | None:
    """What happened that is published and told to nobody: a bed move, a leave of absence."""
    on_leave = EncounterState.ON_LEAVE
    was, now = before.state, after.state
    if now is on_leave and was is not on_leave:
        return TransitionKind.LEAVE_START
    if was is on_leave and now not in (on_leave, EncounterState.DISCHARGED):
        return TransitionKind.LEAVE_END
    if event.trigger in ("A02", "A12", "A17", "Z99") and after.location != before.location:
        return TransitionKind.LOCATION_CHANGE
    return None


def inside_transition(encounter_id: EncounterId, kind: TransitionKind, event: Event) -> Transition:
    part = f"{event.part}.{event.revision}.{kind}"
    return Transition(
        transition_id=TransitionId(derive("transition", encounter_id.bytes, event.message_id.bytes, part)),
        encounter_id=encounter_id,
        kind=kind,
        status=TransitionStatus.NEW,
        fact_kind=kind,
        occurrence=1,
        watched=b"",
        snapshot_id=None,
        message_id=event.message_id,
        effective=event.effective or event.recorded,
        recorded=event.recorded,
        received_at=event.received_at,
    )
