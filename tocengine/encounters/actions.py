"""Owns the actions of the matrix: what each does to the stack of movements. Pure; `machine` chooses which."""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from tocengine.encounters.accumulation import UPDATES, forget_discharge
from tocengine.encounters.matrix import Action, Cell, cell_of
from tocengine.encounters.named import ids_cancelled, ids_stated, means_another, place_of, said_of, unknown
from tocengine.encounters.state import SILENT, UPON_ARRIVAL, Folded, Movement
from tocengine.encounters.steps import ARRIVALS, Step, class_said, effective_of, says_converted, says_dead, says_expired
from tocengine.model.encounter import EncounterState, TransitionKind
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass
from tocengine.model.time import Timestamp

RECENT = timedelta(hours=24)
TOLERANCE = timedelta(minutes=15)
"""A stated admit or discharge time counts as changed only beyond this (domain 2.4)."""
STRUCK_KEPT = 16

STATE_BY_CLASS = {
    PatientClass.EMERGENCY: EncounterState.ED,
    PatientClass.INPATIENT: EncounterState.INPATIENT,
    PatientClass.OBSERVATION: EncounterState.OBSERVATION,
    PatientClass.PREADMIT: EncounterState.PREADMIT,
}
ARRIVED = UPON_ARRIVAL | {EncounterState.PREADMIT}
FIRST_STATED_BY = frozenset({"", "A01", "A04", "A05", "A06"})
"""ZBE-6 of an arrival, whose class says what it is."""
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
ACUTE = frozenset({EncounterState.ED, EncounterState.OBSERVATION, EncounterState.INPATIENT})


def _push(
    new: Folded,
    event: Event,
    state: EncounterState,
    kind: TransitionKind | None,
    effective: Timestamp,
    *,
    anchor: Timestamp | None = None,
    implied: bool = False,
) -> None:
    new.movements += (movement_of(new, event, state, kind, effective, anchor=anchor, implied=implied),)


def movement_of(
    new: Folded,
    event: Event,
    state: EncounterState,
    kind: TransitionKind | None,
    effective: Timestamp,
    *,
    anchor: Timestamp | None = None,
    implied: bool = False,
) -> Movement:
    """The movement `event` states; a fact it raises gets the next occurrence of its kind."""
    occurrence = 0
    if kind is not None:
        occurrence = new.raised.get(kind, 0) + 1
        new.raised = {**new.raised, kind: occurrence}
    return Movement(
        state=state,
        effective=effective,
        recorded=event.recorded,
        received_at=event.known_since,
        message_id=event.message_id,
        anchor=anchor,
        kind=kind,
        occurrence=occurrence,
        implied=implied,
        silent=SILENT.get(event.processing, ""),
        ids=ids_stated(event),
    )


def _arrivals(new: Folded) -> tuple[datetime, ...]:
    return tuple(movement.effective.at for movement in new.movements if movement.state in UPON_ARRIVAL)


def _keep(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    return (cell.flag,) if cell.flag else ()


def _enter(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    state, kind = cell.state or EncounterState.REGISTERED, cell.fact
    if kind is TransitionKind.INPATIENT_ADMIT and _no_admission(new):
        kind = None
    arrivals = _arrivals(new)
    first = not arrivals and step not in UPDATES
    anchor = said_of(event).admitted if first else None
    _push(new, event, state, kind, effective_of(event, arrivals), anchor=anchor or None)
    return (cell.flag,) if cell.flag else ()


def _no_admission(new: Folded) -> bool:
    """A bed that is not acute, or a patient who is dead (a donor): nobody is told of an admission."""
    location = new.location
    return bool(location and location.level_of_care) or says_dead(new.patient) or says_expired(new.encounter)


def _imply(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    said = said_of(event)
    state = STATE_BY_CLASS.get(class_said(said), EncounterState.REGISTERED)
    effective = said.admitted or effective_of(event)
    kind = cell.fact if event.received_at - effective.at < RECENT else None
    if kind is TransitionKind.INPATIENT_ADMIT and _no_admission(new):
        kind = None
    _push(new, event, state, kind, effective, implied=True)
    if step in (Step.LEAVE, Step.EXPECT_DISCHARGE) and state in ACUTE:
        _unname_top(new)
        after = cell_of(state, step)
        HANDLERS[after.action](new, event, step, after)
    return (cell.flag,)


def _unname_top(new: Folded) -> None:
    """An implied opening goes by no name where the name is that of the movement it was implied for."""
    new.movements = (*new.movements[:-1], msgspec.structs.replace(new.movements[-1], ids=()))


def _reverse(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    state = STATE_BY_CLASS.get(class_said(said_of(event)), EncounterState.REGISTERED)
    if state not in (EncounterState.OBSERVATION, EncounterState.ED):
        state = EncounterState.REGISTERED
    admission = msgspec.structs.replace(new.movements[-1], reversed=True)
    new.movements = (*new.movements[:-1], admission)
    _push(new, event, state, None, effective_of(event, _arrivals(new)))
    return ()


def _leave(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    _push(new, event, EncounterState.ON_LEAVE, None, effective_of(event))
    return ()


def _return(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if means_another(new, event, new.movements[-1].ids):
        return unknown(new, event)
    _take_off(new, len(new.movements) - 1)
    return ()


def _underlying(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """On leave: as in the state before. An admission to another state ends the leave, a discharge stands on it."""
    under = cell_of(new.underlying, step)
    if under.action is Action.ENTER:
        _take_off(new, len(new.movements) - 1)
    return HANDLERS[under.action](new, event, step, under)


def _close(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    said = said_of(event)
    effective = effective_of(event)
    kind = cell.fact
    if cell.state is not None:
        _push(new, event, cell.state, None, said.admitted or effective, implied=True)
        _unname_top(new)
    elif kind is TransitionKind.ED_DISCHARGE and not _began_in_ed(new):
        kind = None
    _push(new, event, EncounterState.DISCHARGED, kind, effective, anchor=said.discharged or None)
    flags: tuple[str, ...] = (cell.flag,) if cell.flag else ()
    if says_converted(new.encounter) and kind is TransitionKind.INPATIENT_DISCHARGE:
        flags += ("inpatient_closed_as_admitted",)
    return flags


def _began_in_ed(new: Folded) -> bool:
    return any(movement.state is EncounterState.ED for movement in new.movements)


def _reopen(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """After disposition 09 an A01 is the admission it announced; else only what took effect later opens again."""
    if says_converted(new.encounter) and (event.trigger in ("A01", "A06") or step is Step.ADMIT):
        _take_off(new, len(new.movements) - 1)
        forget_discharge(new)
        return _enter(new, event, step, cell_of(EncounterState.NONE, Step.ADMIT))
    later = (event.effective or event.recorded).at > new.movements[-1].effective.at
    if step not in (Step.ADMIT, Step.OBSERVATION) or not later:
        return ("arrival_after_discharge",)
    _take_off(new, len(new.movements) - 1)
    forget_discharge(new)
    again = cell_of(new.state, step)
    return (cell.flag, *HANDLERS[again.action](new, event, step, again))


def _take_off(new: Folded, position: int) -> tuple[Movement, ...]:
    """Takes the movement at `position` and all above it off the stack."""
    removed, new.movements = new.movements[position:], new.movements[:position]
    return removed


def _cancel_close(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if means_another(new, event, new.movements[-1].ids):
        return unknown(new, event)
    removed = _take_off(new, len(new.movements) - 1)
    _note_struck(new, removed)
    forget_discharge(new)
    return ()


def _cancel(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    target = _target(new, event, step)
    if target is None:
        return unknown(new, event) if ids_cancelled(event) and new.movements else ()
    _cancelled(new, event, _take_off(new, target))
    return ()


def _strike(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """Takes out the movement that is named. What stood above it was stated by itself and stays, but no discharge and
    no leave of a visit that never began."""
    ids = ids_cancelled(event)
    place = place_of(new.movements, ids)
    if place is None:
        if new.expected is None or not set(ids).intersection(new.expected.ids):
            return unknown(new, event)
        new.expected = None
        return ()
    end = place + 1
    if not any(movement.state in ARRIVED for movement in new.movements[:place]):
        while end < len(new.movements) and new.movements[end].state not in ARRIVED:
            end += 1
    below, removed, above = new.movements[:place], new.movements[place:end], new.movements[end:]
    if below and below[-1].reversed:
        below = (*below[:-1], msgspec.structs.replace(below[-1], reversed=False))
    new.movements = (*below, *above)
    _cancelled(new, event, removed)
    return ()


def _cancelled(new: Folded, event: Event, removed: tuple[Movement, ...]) -> None:
    """What follows from `removed` being taken back by `event`. Only one that took back an arrival may come again as
    the cancel of an arrival."""
    _note_struck(new, removed)
    if any(movement.state is EncounterState.DISCHARGED for movement in removed):
        forget_discharge(new)
    if any(movement.state in ARRIVED for movement in removed):
        new.cancelled_at = event.recorded.at
        times = tuple(time.at for movement in removed for time in (movement.effective, movement.recorded))
        new.struck = (new.struck + times)[-STRUCK_KEPT:]
    if new.state is EncounterState.CANCELLED:
        new.expired = new.expected = None


def _note_struck(new: Folded, removed: tuple[Movement, ...]) -> None:
    ids = [each for movement in removed for each in movement.ids]
    if ids:
        new.struck_ids = (*new.struck_ids, *ids)[-STRUCK_KEPT:]


def _amend(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """Gives the movement that is named the time, and where it is an arrival the class, that are stated now."""
    place = place_of(new.movements, ids_stated(event))
    if place is None or event.movement is None:
        return unknown(new, event)
    movement = new.movements[place]
    time = event.movement.starts or stated_time(event)
    if time and moved(base_of(movement), time):
        movement = msgspec.structs.replace(movement, effective=time, anchor=time)
    stated = class_said(said_of(event))
    if movement.state in ARRIVED and event.movement.trigger in FIRST_STATED_BY and stated is not PatientClass.UNKNOWN:
        arrival = cell_of(EncounterState.NONE, ARRIVALS.get(stated, Step.OUTPATIENT))
        if arrival.state is not None and arrival.state is not movement.state:
            kind = None if arrival.fact is TransitionKind.INPATIENT_ADMIT and _no_admission(new) else arrival.fact
            anew = movement_of(new, event, arrival.state, kind, movement.effective)
            movement = msgspec.structs.replace(
                movement, state=arrival.state, kind=kind, occurrence=anew.occurrence, reversed=False
            )
    if movement is not new.movements[place]:
        new.movements = (*new.movements[:place], movement, *new.movements[place + 1 :])
    return ()


def learn_ids(new: Folded, event: Event, step: Step) -> None:
    """A message that states the movement on top once more under another name: it goes by that name too, unless the
    name is another movement's, or was until that was cancelled, or is stated for the record only."""
    top, ids = new.top, ids_stated(event)
    if top is None or not ids or RESTATED_BY.get(step) is not top.state or event.movement is None:
        return
    if event.movement.historic or place_of((*new.movements, *new.moves), ids) is not None:
        return
    if not set(ids).intersection(new.struck_ids):
        named = msgspec.structs.replace(top, ids=(*top.ids, *ids)[-STRUCK_KEPT:])
        new.movements = (*new.movements[:-1], named)


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
        new.expected = movement_of(new, event, new.state, cell.fact, effective)
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
    Action.AMEND: _amend,
    Action.STRIKE: _strike,
    Action.UNDERLYING: _underlying,
}
