"""Owns the stack of movements in force: how one is put on and taken off, and what follows from either. Pure."""

from datetime import timedelta

import msgspec

from tocengine.encounters.accumulation import forget_discharge
from tocengine.encounters.named import ids_stated, place_of
from tocengine.encounters.state import SILENT, UPON_ARRIVAL, Folded, Movement
from tocengine.encounters.steps import Step, says_dead, says_expired
from tocengine.model.encounter import EncounterState, TransitionKind
from tocengine.model.event import Event
from tocengine.model.time import Timestamp

TOLERANCE = timedelta(minutes=15)
"""A stated admit or discharge time counts as changed only beyond this (domain 2.4)."""
STRUCK_KEPT = 16
ARRIVED = UPON_ARRIVAL | {EncounterState.PREADMIT}
RESTATED_BY = {
    Step.PREADMIT: EncounterState.PREADMIT,
    Step.ED_ARRIVAL: EncounterState.ED,
    Step.OUTPATIENT: EncounterState.REGISTERED,
    Step.OBSERVATION: EncounterState.OBSERVATION,
    Step.ADMIT: EncounterState.INPATIENT,
    Step.DISCHARGE: EncounterState.DISCHARGED,
    Step.DISCHARGE_EMERGENCY: EncounterState.DISCHARGED,
    Step.DISCHARGE_INPATIENT: EncounterState.DISCHARGED,
}
"""The state in which a step states once more what holds already."""


def movement_of(
    new: Folded,
    event: Event,
    step: Step | None,
    state: EncounterState,
    kind: TransitionKind | None,
    effective: Timestamp,
    *,
    anchor: Timestamp | None = None,
    implied: bool = False,
) -> Movement:
    """The movement `event` states as `step`, or that is implied for it; a fact it raises gets the next occurrence."""
    return Movement(
        state=state,
        step=step,
        effective=effective,
        recorded=event.recorded,
        received_at=event.known_since,
        message_id=event.message_id,
        anchor=anchor,
        kind=kind,
        occurrence=next_occurrence(new, kind),
        implied=implied,
        silent=SILENT.get(event.processing, ""),
        ids=ids_stated(event),
    )


def next_occurrence(new: Folded, kind: TransitionKind | None) -> int:
    """The number of a fact of this kind that is raised now; 0 where none is."""
    if kind is None:
        return 0
    occurrence = new.raised.get(kind, 0) + 1
    new.raised = {**new.raised, kind: occurrence}
    return occurrence


def push(new: Folded, movement: Movement) -> None:
    """Puts a movement on the stack."""
    new.movements += (movement,)


def replace_top(new: Folded, movement: Movement) -> None:
    """Puts `movement` in the place of the one on top."""
    new.movements = (*new.movements[:-1], movement)


def unname_top(new: Folded) -> None:
    """An implied opening goes by no name where the name is that of the movement it was implied for."""
    replace_top(new, msgspec.structs.replace(new.movements[-1], ids=()))


def take_off(new: Folded, position: int) -> tuple[Movement, ...]:
    """Takes the movement at `position` and all above it off the stack."""
    removed, new.movements = new.movements[position:], new.movements[:position]
    return removed


def taken_back(new: Folded, event: Event, removed: tuple[Movement, ...]) -> None:
    """What follows from `removed` being taken back by `event`. Only one that took back an arrival may come again as
    the cancel of an arrival."""
    note_struck(new, removed)
    if any(movement.state is EncounterState.DISCHARGED for movement in removed):
        forget_discharge(new)
    if any(movement.state in ARRIVED for movement in removed):
        new.cancelled_at = event.recorded.at
        times = tuple(time.at for movement in removed for time in (movement.effective, movement.recorded))
        new.struck = (new.struck + times)[-STRUCK_KEPT:]
    if new.state is EncounterState.CANCELLED:
        new.expired = new.expected = None


def note_struck(new: Folded, removed: tuple[Movement, ...]) -> None:
    """Remembers by which names movements were taken back."""
    ids = [each for movement in removed for each in movement.ids]
    if ids:
        new.struck_ids = (*new.struck_ids, *ids)[-STRUCK_KEPT:]


def learn_ids(new: Folded, event: Event, step: Step) -> None:
    """A message that states the movement on top once more under another name: it goes by that name too, unless the
    name is another movement's, or was until that was cancelled, or is stated for the record only."""
    top, ids = new.top, ids_stated(event)
    if top is None or not ids or RESTATED_BY.get(step) is not top.state or event.movement is None:
        return
    if event.movement.historic or place_of((*new.movements, *new.moves), ids) is not None:
        return
    if not set(ids).intersection(new.struck_ids):
        replace_top(new, with_ids(top, ids))


def with_ids(movement: Movement, ids: tuple[str, ...]) -> Movement:
    """`movement`, going by `ids` too."""
    return msgspec.structs.replace(movement, ids=(*movement.ids, *ids)[-STRUCK_KEPT:])


def no_admission(new: Folded) -> bool:
    """A bed that is not acute, or a patient who is dead (a donor): nobody is told of an admission."""
    location = new.location
    return bool(location and location.level_of_care) or says_dead(new.patient) or says_expired(new.encounter)


def began_in_ed(new: Folded) -> bool:
    """Whether the visit was an ED visit at any time that is still in force."""
    return any(movement.state is EncounterState.ED for movement in new.movements)


def stated_time(event: Event) -> Timestamp | None:
    """When the event happened, if it says so itself and not only when it was recorded."""
    effective = event.effective
    return effective if effective is not None and effective.at != event.recorded.at else None


def base_of(movement: Movement) -> Timestamp:
    """The time from which a change is measured."""
    return movement.anchor or movement.effective


def moved(one: Timestamp, other: Timestamp) -> bool:
    """Whether a stated time counts as changed."""
    if len(one.text) <= 10 or len(other.text) <= 10:  # a date says nothing of the hour
        return one.text[:10] != other.text[:10]
    return abs(one.at - other.at) > TOLERANCE
