"""Owns the actions of the matrix: what each does to the stack of movements. Pure; `machine` chooses which."""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from tocengine.encounters.accumulation import UPDATES, forget_discharge
from tocengine.encounters.amending import amend, strike
from tocengine.encounters.matrix import Action, Cell, cell_of
from tocengine.encounters.movements import (
    ARRIVED,
    began_in_ed,
    movement_of,
    no_admission,
    note_struck,
    push,
    replace_top,
    take_off,
    taken_back,
    unname_top,
)
from tocengine.encounters.named import ids_cancelled, means_another, place_of, said_of, unknown
from tocengine.encounters.state import UPON_ARRIVAL, Folded
from tocengine.encounters.steps import Step, class_said, effective_of, says_converted
from tocengine.model.encounter import EncounterState, TransitionKind
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass

RECENT = timedelta(hours=24)

STATE_BY_CLASS = {
    PatientClass.EMERGENCY: EncounterState.ED,
    PatientClass.INPATIENT: EncounterState.INPATIENT,
    PatientClass.OBSERVATION: EncounterState.OBSERVATION,
    PatientClass.PREADMIT: EncounterState.PREADMIT,
}
ACUTE = frozenset({EncounterState.ED, EncounterState.OBSERVATION, EncounterState.INPATIENT})


def _arrivals(new: Folded) -> tuple[datetime, ...]:
    return tuple(movement.effective.at for movement in new.movements if movement.state in UPON_ARRIVAL)


def _keep(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    return (cell.flag,) if cell.flag else ()


def _enter(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    state, kind = cell.state or EncounterState.REGISTERED, cell.fact
    if kind is TransitionKind.INPATIENT_ADMIT and no_admission(new):
        kind = None
    arrivals = _arrivals(new)
    first = not arrivals and step not in UPDATES
    anchor = said_of(event).admitted if first else None
    push(new, movement_of(new, event, step, state, kind, effective_of(event, arrivals), anchor=anchor or None))
    return (cell.flag,) if cell.flag else ()


def _imply(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    said = said_of(event)
    state = STATE_BY_CLASS.get(class_said(said), EncounterState.REGISTERED)
    effective = said.admitted or effective_of(event)
    kind = cell.fact if event.received_at - effective.at < RECENT else None
    if kind is TransitionKind.INPATIENT_ADMIT and no_admission(new):
        kind = None
    push(new, movement_of(new, event, step, state, kind, effective, implied=True))
    if step in (Step.LEAVE, Step.EXPECT_DISCHARGE) and state in ACUTE:
        unname_top(new)
        after = cell_of(state, step)
        HANDLERS[after.action](new, event, step, after)
    return (cell.flag,)


def _reverse(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    state = STATE_BY_CLASS.get(class_said(said_of(event)), EncounterState.REGISTERED)
    if state not in (EncounterState.OBSERVATION, EncounterState.ED):
        state = EncounterState.REGISTERED
    replace_top(new, msgspec.structs.replace(new.movements[-1], reversed=True))
    push(new, movement_of(new, event, step, state, None, effective_of(event, _arrivals(new))))
    return ()


def _leave(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    push(new, movement_of(new, event, step, EncounterState.ON_LEAVE, None, effective_of(event)))
    return ()


def _return(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if means_another(new, event, new.movements[-1].ids):
        return unknown(new, event)
    take_off(new, len(new.movements) - 1)
    return ()


def _underlying(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """On leave: as in the state before. An admission to another state ends the leave, a discharge stands on it."""
    under = cell_of(new.underlying, step)
    if under.action is Action.ENTER:
        take_off(new, len(new.movements) - 1)
    return HANDLERS[under.action](new, event, step, under)


def _close(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    said = said_of(event)
    effective = effective_of(event)
    kind = cell.fact
    if cell.state is not None:
        push(new, movement_of(new, event, None, cell.state, None, said.admitted or effective, implied=True))
        unname_top(new)
    elif kind is TransitionKind.ED_DISCHARGE and not began_in_ed(new):
        kind = None
    ended = said.discharged or None
    push(new, movement_of(new, event, step, EncounterState.DISCHARGED, kind, effective, anchor=ended))
    flags: tuple[str, ...] = (cell.flag,) if cell.flag else ()
    if says_converted(new.encounter) and kind is TransitionKind.INPATIENT_DISCHARGE:
        flags += ("inpatient_closed_as_admitted",)
    return flags


def _reopen(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """After disposition 09 an A01 is the admission it announced; else only what took effect later opens again."""
    if says_converted(new.encounter) and (event.trigger in ("A01", "A06") or step is Step.ADMIT):
        take_off(new, len(new.movements) - 1)
        forget_discharge(new)
        return _enter(new, event, step, cell_of(EncounterState.NONE, Step.ADMIT))
    later = (event.effective or event.recorded).at > new.movements[-1].effective.at
    if step not in (Step.ADMIT, Step.OBSERVATION) or not later:
        return ("arrival_after_discharge",)
    take_off(new, len(new.movements) - 1)
    forget_discharge(new)
    again = cell_of(new.state, step)
    return (cell.flag, *HANDLERS[again.action](new, event, step, again))


def _cancel_close(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if means_another(new, event, new.movements[-1].ids):
        return unknown(new, event)
    removed = take_off(new, len(new.movements) - 1)
    note_struck(new, removed)
    forget_discharge(new)
    return ()


def _cancel(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    target = _target(new, event, step)
    if target is None:
        return unknown(new, event) if ids_cancelled(event) and new.movements else ()
    taken_back(new, event, take_off(new, target))
    return ()


def _target(new: Folded, event: Event, step: Step) -> int | None:
    """The arrival or admission that is cancelled: the one that is named, or took effect at EVN-6, else the last one.

    A cancel that was carried out before (its target is gone, or it was recorded at the same moment) names nothing. One
    that names a movement nobody stated takes back no other that has a name, so nothing such a one stands on either.
    """
    named = place_of(new.movements, ids_cancelled(event))
    if named is not None:
        return named
    others = (place for place, movement in enumerate(new.movements) if means_another(new, event, movement.ids))
    places = [
        place
        for place in range(max(others, default=-1) + 1, len(new.movements))
        if new.movements[place].state in ARRIVED and not (place and new.movements[place - 1].reversed)
    ]
    if event.effective is not None and step is Step.CANCEL_ARRIVAL:
        stated = event.effective.at
        for place in reversed(places):
            movement = new.movements[place]
            if _same_minute(stated, movement.effective.at) or _same_minute(stated, movement.recorded.at):
                return place
        if any(_same_minute(stated, time) for time in new.struck):
            return None
    if event.recorded.at == new.cancelled_at:
        return None
    return places[-1] if places else None


def _same_minute(one: datetime, other: datetime) -> bool:
    return abs(one - other) < timedelta(minutes=1)


def _expect(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if new.expected is None:
        effective = said_of(event).expected_discharge or effective_of(event)
        new.expected = movement_of(new, event, step, new.state, cell.fact, effective)
    return ()


def _unexpect(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if new.expected is not None and means_another(new, event, new.expected.ids):
        return unknown(new, event)
    new.expected = None
    return ()


HANDLERS: dict[Action, Callable[[Folded, Event, Step, Cell], tuple[str, ...]]] = {
    Action.KEEP: _keep,
    Action.ENTER: _enter,
    Action.IMPLY: _imply,
    Action.REVERSE: _reverse,
    Action.LEAVE: _leave,
    Action.RETURN: _return,
    Action.CLOSE: _close,
    Action.REOPEN: _reopen,
    Action.CANCEL: _cancel,
    Action.CANCEL_CLOSE: _cancel_close,
    Action.EXPECT: _expect,
    Action.UNEXPECT: _unexpect,
    Action.AMEND: amend,
    Action.STRIKE: strike,
    Action.UNDERLYING: _underlying,
}
