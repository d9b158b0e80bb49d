"""Owns what one event does to an encounter: `apply(state, event) -> (state, flags)`, pure, and it never raises.

The matrix says which cell applies; this module carries it out on the stack of movements, lays what the event says over
what is known, and keeps the rules that cut across cells: what a discharge, its cancellation and a death do to
the discharge facts, and when a stated time counts as changed.
"""

import copy
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.encounters.matrix import Action, Cell, cell_of
from tocengine.encounters.state import UPON_ARRIVAL, Folded, Movement
from tocengine.encounters.steps import (
    UNLINKING,
    Step,
    class_said,
    effective_of,
    says_converted,
    says_dead,
    says_expired,
    step_of,
)
from tocengine.model.encounter import EncounterState, TransitionKind
from tocengine.model.event import Event, Processing
from tocengine.model.facts import CareSetting, EncounterFacts, PatientClass, overlay
from tocengine.model.time import Timestamp

WATCHED_AFTER_CLOSE = timedelta(days=7)
RECENT = timedelta(hours=24)
TOLERANCE = timedelta(minutes=15)
"""A stated admit or discharge time counts as changed only beyond this (domain 2.4)."""
STRUCK_KEPT = 16

SILENT = {Processing.INITIAL_LOAD: "INITIAL_LOAD", Processing.TEST: "TEST_MESSAGE"}
STATE_BY_CLASS = {
    PatientClass.EMERGENCY: EncounterState.ED,
    PatientClass.INPATIENT: EncounterState.INPATIENT,
    PatientClass.OBSERVATION: EncounterState.OBSERVATION,
    PatientClass.PREADMIT: EncounterState.PREADMIT,
}
ACUTE = frozenset({EncounterState.ED, EncounterState.OBSERVATION, EncounterState.INPATIENT})
UPDATES = frozenset(
    {
        Step.UPDATE,
        Step.UPDATE_EMERGENCY,
        Step.UPDATE_INPATIENT,
        Step.UPDATE_OBSERVATION,
        Step.UPDATE_PREADMIT,
    }
)
DISCHARGES = frozenset({Step.DISCHARGE, Step.DISCHARGE_EMERGENCY, Step.DISCHARGE_INPATIENT})
RESTATING = UPDATES | DISCHARGES | {Step.ED_ARRIVAL, Step.ADMIT, Step.OBSERVATION, Step.OUTPATIENT}
"""Steps that, where they move nothing, may correct a time that was stated before."""
UNWATCHED = UPDATES | DISCHARGES | {Step.PERSON, Step.MOVE, Step.CANCEL_MOVE, Step.STILL_PATIENT}
NO_PLAN = frozenset({Step.CANCEL_DISCHARGE, Step.CANCEL_ARRIVAL, Step.STILL_PATIENT})
"""Steps whose own discharge fields mean nothing, filled or empty."""


def apply(folded: Folded, event: Event) -> tuple[Folded, tuple[str, ...]]:
    """The state after `event`, which is the next in canonical order, and the flags it raised.

    `folded` is left as it is. An event that is not handled yet, or means nothing in this state, is counted only.
    """
    new = copy.copy(folded)
    step = step_of(event, folded.visit)
    place = event.order_key
    if folded.last is None or place > folded.last:
        new.last = place
    if step is Step.LINK:
        new.converted = event.trigger not in UNLINKING
        return new, ()
    new.events += 1
    if step is Step.IGNORE:
        return _flagged(new, ("not_handled",) if not event.handled else ("no_effect",))
    closed_at = folded.closed_at
    if closed_at and step in UNWATCHED and event.recorded.at - closed_at > WATCHED_AFTER_CLOSE:
        return _flagged(new, () if step is Step.PERSON else ("closed_visit_not_watched",))
    flags = _accumulate(new, folded, event, step)
    if step is not Step.PERSON:
        _describe(new, event)
        cell = cell_of(folded.state, step)
        flags += HANDLERS[cell.action](new, event, step, cell)
        if new.movements == folded.movements:
            if step in RESTATING:
                _restate(new, folded, event, step)
            if new.closed_at is None and step in UPDATES and _said(event).discharged:
                flags += ("discharge_time_without_discharge",)
    _note_treating(new)
    _note_death(new, folded, event, step)
    return _flagged(new, flags + event.flags)


def _flagged(new: Folded, flags: tuple[str, ...]) -> tuple[Folded, tuple[str, ...]]:
    if flags and not set(flags) <= set(new.flags):
        new.flags = tuple(sorted({*new.flags, *flags}))
    return new, flags


def _said(event: Event) -> EncounterFacts:
    return NOTHING if event.encounter_facts is UNSET else event.encounter_facts


NOTHING = EncounterFacts()


def _describe(new: Folded, event: Event) -> None:
    new.feed, new.facility, new.trigger, new.control_id = (
        event.feed,
        event.facility,
        event.trigger,
        event.control_id,
    )
    new.silent, new.shadow = SILENT.get(event.processing, ""), event.shadow


# --- what an event says


def _accumulate(new: Folded, folded: Folded, event: Event, step: Step) -> tuple[str, ...]:
    """Lays what the event says of patient and visit over what is known."""
    if event.patient_facts is not UNSET:
        new.patient = overlay(folded.patient, event.patient_facts)
    if step is Step.PERSON or event.encounter_facts is UNSET:
        return ()
    said, flags = _meant(event.encounter_facts, folded, step)
    new.encounter = overlay(folded.encounter, said)
    location = said.location
    if step is Step.MOVE and location:
        new.previous_location = folded.location
    elif step is Step.CANCEL_MOVE and location is UNSET and folded.previous_location:
        new.encounter = msgspec.structs.replace(new.encounter, location=folded.previous_location)
    tags = set(location.sensitivity) if location else set()
    if said.disposition and said.disposition.care_setting is CareSetting.PSYCH:
        tags.add("PSY")
    if not tags <= set(new.sensitivity):
        new.sensitivity = tuple(sorted(tags.union(new.sensitivity)))
    if location and location.part2:
        new.part2 = True
    return flags


def _meant(said: EncounterFacts, folded: Folded, step: Step) -> tuple[EncounterFacts, tuple[str, ...]]:
    """What counts of a message: an unmapped class says nothing, only an update or another A03 changes what is known
    of a discharge, and only A13 clears it."""
    dropped: dict[str, UnsetType] = {}
    flags: tuple[str, ...] = ()
    if said.patient_class is PatientClass.UNKNOWN and folded.encounter.patient_class is not UNSET:
        dropped["patient_class"] = UNSET
    if step in NO_PLAN:
        dropped.update(disposition=UNSET, destination=UNSET, discharged=UNSET)
    elif folded.state is EncounterState.DISCHARGED and step not in UPDATES | DISCHARGES:
        dropped.update(disposition=UNSET, destination=UNSET, discharged=UNSET, patient_class=UNSET)
    elif folded.state is EncounterState.DISCHARGED:
        for name in ("disposition", "destination", "discharged"):
            if getattr(said, name) is None:
                dropped[name] = UNSET
                flags = ("discharge_facts_cleared_by_update",)
    return (msgspec.structs.replace(said, **dropped) if dropped else said), flags


def _forget_discharge(new: Folded) -> None:
    new.encounter = msgspec.structs.replace(new.encounter, disposition=UNSET, destination=UNSET, discharged=UNSET)


# --- what a cell does


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
    new.movements += (_movement(new, event, state, kind, effective, anchor=anchor, implied=implied),)


def _movement(
    new: Folded,
    event: Event,
    state: EncounterState,
    kind: TransitionKind | None,
    effective: Timestamp,
    *,
    anchor: Timestamp | None = None,
    implied: bool = False,
) -> Movement:
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
    anchor = _said(event).admitted if first else None
    _push(new, event, state, kind, effective_of(event, arrivals), anchor=anchor or None)
    return (cell.flag,) if cell.flag else ()


def _no_admission(new: Folded) -> bool:
    """A bed that is not acute, or a patient who is dead (a donor): nobody is told of an admission."""
    location = new.location
    return bool(location and location.level_of_care) or says_dead(new.patient) or says_expired(new.encounter)


def _imply(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    said = _said(event)
    state = STATE_BY_CLASS.get(class_said(said), EncounterState.REGISTERED)
    effective = said.admitted or effective_of(event)
    kind = cell.fact if event.received_at - effective.at < RECENT else None
    if kind is TransitionKind.INPATIENT_ADMIT and _no_admission(new):
        kind = None
    _push(new, event, state, kind, effective, implied=True)
    if step in (Step.LEAVE, Step.EXPECT_DISCHARGE) and state in ACUTE:
        after = cell_of(state, step)
        HANDLERS[after.action](new, event, step, after)
    return (cell.flag,)


def _reverse(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    state = STATE_BY_CLASS.get(class_said(_said(event)), EncounterState.REGISTERED)
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
    _take_off(new, len(new.movements) - 1)
    return ()


def _underlying(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """On leave: as in the state before. An admission to another state ends the leave, a discharge stands on it."""
    under = cell_of(new.underlying, step)
    if under.action is Action.ENTER:
        _take_off(new, len(new.movements) - 1)
    return HANDLERS[under.action](new, event, step, under)


def _close(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    said = _said(event)
    effective = effective_of(event)
    kind = cell.fact
    if cell.state is not None:
        _push(new, event, cell.state, None, said.admitted or effective, implied=True)
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
        _forget_discharge(new)
        return _enter(new, event, step, cell_of(EncounterState.NONE, Step.ADMIT))
    later = (event.effective or event.recorded).at > new.movements[-1].effective.at
    if step not in (Step.ADMIT, Step.OBSERVATION) or not later:
        return ("arrival_after_discharge",)
    _take_off(new, len(new.movements) - 1)
    _forget_discharge(new)
    again = cell_of(new.state, step)
    return (cell.flag, *HANDLERS[again.action](new, event, step, again))


def _take_off(new: Folded, position: int) -> tuple[Movement, ...]:
    """Takes the movement at `position` and all above it off the stack."""
    removed, new.movements = new.movements[position:], new.movements[:position]
    return removed


def _cancel_close(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    _take_off(new, len(new.movements) - 1)
    _forget_discharge(new)
    return ()


def _cancel(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    target = _target(new, event, step)
    if target is None:
        return ()
    removed = _take_off(new, target)
    new.cancelled_at = event.recorded.at
    if any(movement.state is EncounterState.DISCHARGED for movement in removed):
        _forget_discharge(new)
    times = tuple(time.at for movement in removed for time in (movement.effective, movement.recorded))
    new.struck = (new.struck + times)[-STRUCK_KEPT:]
    if new.state is EncounterState.CANCELLED:
        new.expired = new.expected = None
    return ()


def _target(new: Folded, event: Event, step: Step) -> int | None:
    """The arrival or admission that is cancelled: the one that took effect at EVN-6, else the last one.

    A cancel that was carried out before (its target is gone, or it was recorded at the same moment) names nothing.
    """
    states = UPON_ARRIVAL | {EncounterState.PREADMIT}
    places = [
        place
        for place, movement in enumerate(new.movements)
        if movement.state in states and not (place and new.movements[place - 1].reversed)
    ]
    if event.effective is not None and step is Step.CANCEL_ARRIVAL:
        named = event.effective.at
        for place in reversed(places):
            movement = new.movements[place]
            if _same_minute(named, movement.effective.at) or _same_minute(named, movement.recorded.at):
                return place
        if any(_same_minute(named, time) for time in new.struck):
            return None
    if event.recorded.at == new.cancelled_at:
        return None
    return places[-1] if places else None


def _same_minute(one: datetime, other: datetime) -> bool:
    return abs(one - other) < timedelta(minutes=1)


def _expect(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    if new.expected is None:
        effective = _said(event).expected_discharge or effective_of(event)
        new.expected = _movement(new, event, new.state, cell.fact, effective)
    return ()


def _unexpect(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
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
    Action.UNDERLYING: _underlying,
}


# --- rules that cut across cells


def _restate(new: Folded, folded: Folded, event: Event, step: Step) -> None:
    """Moves the time of a movement where the sender has changed its mind by more than 15 minutes."""
    said = _said(event)
    top = new.top
    if top is None:
        return
    if top.state is EncounterState.DISCHARGED:
        ended = said.discharged or (_stated_time(event) if step in DISCHARGES else None)
        if ended and _moved(_base(top), ended):
            _replace(new, len(new.movements) - 1, ended)
    admitted, known = said.admitted, folded.encounter.admitted
    if not admitted or (known and not _moved(known, admitted)):
        return
    arrivals = [place for place, movement in enumerate(new.movements) if movement.state in UPON_ARRIVAL]
    if any(not _moved(_base(new.movements[place]), admitted) for place in arrivals):
        return  # it names a movement that is known at that time
    if known:
        arrivals = [place for place in arrivals if not _moved(_base(new.movements[place]), known)]
    if len(arrivals) == 1:
        _replace(new, arrivals[0], admitted)


def _stated_time(event: Event) -> Timestamp | None:
    """When the event happened, if it says so itself and not only when it was recorded."""
    effective = event.effective
    return effective if effective is not None and effective.at != event.recorded.at else None


def _base(movement: Movement) -> Timestamp:
    return movement.anchor or movement.effective


def _moved(one: Timestamp, other: Timestamp) -> bool:
    if len(one.text) <= 10 or len(other.text) <= 10:  # a date says nothing of the hour
        return one.text[:10] != other.text[:10]
    return abs(one.at - other.at) > TOLERANCE


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
        new.expired = _movement(new, event, new.state, TransitionKind.PATIENT_EXPIRED, effective)
