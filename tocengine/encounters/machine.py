"""Owns what one event does to an encounter: `apply(state, event) -> (state, flags)`, pure, and it never raises.

The matrix says which cell applies and `actions` carries it out; here are the rules that cut across cells: when a stated
time counts as changed, for which movement a practitioner counts, and what a death does.
"""

import copy
from datetime import timedelta

import msgspec

from tocengine.encounters.accumulation import DISCHARGES, UPDATES, accumulate
from tocengine.encounters.actions import ACUTE, HANDLERS
from tocengine.encounters.matrix import cell_of
from tocengine.encounters.movements import base_of, learn_ids, moved, movement_of, stated_time
from tocengine.encounters.named import said_of
from tocengine.encounters.state import SILENT, UPON_ARRIVAL, Folded
from tocengine.encounters.steps import Step, effective_of, says_dead, says_expired, step_of, unlinks
from tocengine.model.encounter import EncounterState, TransitionKind
from tocengine.model.event import Event
from tocengine.model.time import Timestamp

WATCHED_AFTER_CLOSE = timedelta(days=7)
RESTATING = UPDATES | DISCHARGES | {Step.ED_ARRIVAL, Step.ADMIT, Step.OBSERVATION, Step.OUTPATIENT}
"""Steps that, where they move nothing, may correct a time that was stated before."""
UNWATCHED = UPDATES | DISCHARGES | {Step.PERSON, Step.MOVE, Step.CANCEL_MOVE, Step.STILL_PATIENT}


def apply(folded: Folded, event: Event) -> tuple[Folded, tuple[str, ...]]:
    """The state after `event`, which is the next in canonical order, and the flags it raised.

    `folded` is left as it is. An event that is not handled yet, or means nothing in this state, is counted only.
    """
    new = copy.copy(folded)
    state, step, place = folded.state, step_of(event, folded.visit), event.order_key
    if folded.last is None or place > folded.last:
        new.last = place
    if step is Step.LINK:
        new.converted = not unlinks(event)
        return new, ()
    new.events += 1
    if step is Step.IGNORE:
        return _flagged(new, ("not_handled",) if not event.handled else ("no_effect",))
    closed_at = folded.closed_at if state is EncounterState.DISCHARGED else None
    if closed_at and step in UNWATCHED and event.recorded.at - closed_at > WATCHED_AFTER_CLOSE:
        return _flagged(new, () if step is Step.PERSON else ("closed_visit_not_watched",))
    flags = accumulate(new, folded, event, step)
    if step is not Step.PERSON:
        _describe(new, event)
        cell = cell_of(state, step)
        flags += HANDLERS[cell.action](new, event, step, cell)
        if new.movements == folded.movements:
            if step in RESTATING:
                _restate(new, folded, event, step)
            learn_ids(new, event, step)
            if new.closed_at is None and step in UPDATES and said_of(event).discharged:
                flags += ("discharge_time_without_discharge",)
    _note_treating(new)
    _note_death(new, folded, event, step)
    return _flagged(new, flags + event.flags)


def _flagged(new: Folded, flags: tuple[str, ...]) -> tuple[Folded, tuple[str, ...]]:
    if flags and not set(flags) <= set(new.flags):
        new.flags = tuple(sorted({*new.flags, *flags}))
    return new, flags


def _describe(new: Folded, event: Event) -> None:
    new.feed, new.facility, new.trigger, new.control_id = (
        event.feed,
        event.facility,
        event.trigger,
        event.control_id,
    )
    new.silent, new.shadow = SILENT.get(event.processing, ""), event.shadow


def _restate(new: Folded, folded: Folded, event: Event, step: Step) -> None:
    """Moves the time of a movement where the sender has changed its mind by more than 15 minutes."""
    said = said_of(event)
    top = new.top
    if top is None:
        return
    if top.state is EncounterState.DISCHARGED:
        ended = said.discharged or (stated_time(event) if step in DISCHARGES else None)
        if ended and moved(base_of(top), ended):
            _replace(new, len(new.movements) - 1, ended)
    admitted, known = said.admitted, folded.encounter.admitted
    if not admitted or (known and not moved(known, admitted)):
        return
    arrivals = [place for place, movement in enumerate(new.movements) if movement.state in UPON_ARRIVAL]
    if any(not moved(base_of(new.movements[place]), admitted) for place in arrivals):
        return  # it names a movement that is known at that time
    if known:
        arrivals = [place for place in arrivals if not moved(base_of(new.movements[place]), known)]
    if len(arrivals) == 1:
        _replace(new, arrivals[0], admitted)


def _replace(new: Folded, place: int, time: Timestamp) -> None:
    movement = msgspec.structs.replace(new.movements[place], effective=time, anchor=time)
    new.movements = (*new.movements[:place], movement, *new.movements[place + 1 :])


def _note_treating(new: Folded) -> None:
    """A practitioner counts for the movement on top, from missing to present and never back (domain 2.4)."""
    if not new.encounter.treating:
        return
    for place in range(len(new.movements) - 1, -1, -1):
        movement = new.movements[place]
        if movement.state is EncounterState.ON_LEAVE:
            continue
        if not movement.treating:
            movement = msgspec.structs.replace(movement, treating=True)
            new.movements = (*new.movements[:place], movement, *new.movements[place + 1 :])
        return


def _note_death(new: Folded, folded: Folded, event: Event, step: Step) -> None:
    """Death counts from whatever message states it, once; a patient who came dead is not told of (a donor)."""
    if not (says_dead(new.patient) or says_expired(new.encounter)):
        if new.expired is not None or new.dead_on_arrival:
            new.expired, new.dead_on_arrival = None, False
        return
    if new.expired is not None or new.dead_on_arrival or not new.movements:
        return
    if folded.state in (EncounterState.NONE, EncounterState.PREADMIT) and (
        says_dead(folded.patient) or step is Step.ADMIT
    ):
        new.dead_on_arrival = True
    elif new.underlying in ACUTE:
        effective = new.patient.deceased_at or effective_of(event)
        new.expired = movement_of(new, event, None, new.state, TransitionKind.PATIENT_EXPIRED, effective)
