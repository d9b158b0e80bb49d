"""Owns what a message does to an earlier movement it names (Z99), and what the movements above come to by it: as though
that one had never been stated, or had been stated as it is now. Pure.

Each of them is put on again as the step it was, by the matrix. One that means nothing any more is dropped, one that
states what holds already passes its fact on, and one that means something else is another fact.
"""

import msgspec

from tocengine.encounters.accumulation import forget_discharge
from tocengine.encounters.matrix import Action, Cell, cell_of
from tocengine.encounters.movements import (
    ARRIVED,
    RESTATED_BY,
    base_of,
    began_in_ed,
    moved,
    next_occurrence,
    no_admission,
    push,
    replace_top,
    stated_time,
    taken_back,
    with_ids,
)
from tocengine.encounters.named import ids_cancelled, ids_stated, place_of, said_of, unknown
from tocengine.encounters.state import SILENT, Folded, Movement
from tocengine.encounters.steps import ARRIVALS, Step, class_said
from tocengine.model.encounter import EncounterState, TransitionKind
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass

S, K = EncounterState, TransitionKind

FIRST_STATED_BY = frozenset({"", "A01", "A04", "A06"})
"""ZBE-6 of an arrival, whose class says what it is; that of an A05 says nothing of the kind."""
STEP_OF = {S.ON_LEAVE: Step.LEAVE, **{state: step for step, state in reversed(RESTATED_BY.items())}}
"""The step of a movement that does not say by which it came."""
TO_OBSERVATION = frozenset({Step.OBSERVATION, Step.UPDATE_OBSERVATION})


def strike(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
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
    removed = new.movements[place:end]
    flags = _stack_again(new, event, place, new.movements[end:])
    taken_back(new, event, removed)
    return flags


def amend(new: Folded, event: Event, step: Step, cell: Cell) -> tuple[str, ...]:
    """Gives the movement that is named the time, and where it is an arrival the class, that are stated now."""
    place = place_of(new.movements, ids_stated(event))
    if place is None or event.movement is None:
        return unknown(new, event)
    movement = new.movements[place]
    time = event.movement.starts or stated_time(event)
    if time and moved(base_of(movement), time):
        movement = msgspec.structs.replace(movement, effective=time, anchor=time)
    arrives_as = _arrival_stated(movement, event)
    if arrives_as is not None:
        amended = msgspec.structs.replace(movement, step=arrives_as)
        return _stack_again(new, event, place, (amended, *new.movements[place + 1 :]))
    if movement is not new.movements[place]:
        new.movements = (*new.movements[:place], movement, *new.movements[place + 1 :])
    return ()


def _arrival_stated(movement: Movement, event: Event) -> Step | None:
    """The step as which an arrival is stated now, where that is another than the one it came as."""
    stated = class_said(said_of(event))
    named = event.movement
    if named is None or movement.state not in ARRIVED or stated is PatientClass.UNKNOWN:
        return None
    if named.trigger not in FIRST_STATED_BY or (movement.state is S.PREADMIT and not named.trigger):
        return None  # only an arrival activates a pre-admission
    step = ARRIVALS.get(stated, Step.OUTPATIENT)
    return None if RESTATED_BY[step] is movement.state else step


def _stack_again(new: Folded, event: Event, place: int, above: tuple[Movement, ...]) -> tuple[str, ...]:
    """Puts `above` on what stands below `place`, each as the step it was."""
    before = new.movements
    first = len(before) - len(above)
    new.movements = before[:place]
    if new.movements and new.movements[-1].reversed:
        replace_top(new, msgspec.structs.replace(new.movements[-1], reversed=False))
    flags: tuple[str, ...] = ()
    for number, movement in enumerate(above):
        following = above[number + 1 :]
        if movement.implied and following and following[0].message_id == movement.message_id:
            continue  # what is implied for a discharge follows from that
        at = first + number
        flags += _put_on(new, event, movement, undid=at > 0 and before[at - 1].reversed)
    if before[-1].state is S.DISCHARGED and new.state is not S.DISCHARGED:
        forget_discharge(new)
    return flags


def _put_on(new: Folded, event: Event, movement: Movement, *, undid: bool) -> tuple[str, ...]:
    """Puts `movement` on the stack as the step it was; `undid` where it took an admission back until now."""
    step = movement.step or STEP_OF[movement.state]
    cell = cell_of(new.state, step)
    if cell.action is Action.UNDERLYING:
        cell = cell_of(new.underlying, step)
    match cell.action:
        case Action.ENTER:
            same = cell.state is movement.state and not undid
            nobody_told = cell.fact is K.INPATIENT_ADMIT and no_admission(new)
            kind = movement.kind if same else None if nobody_told else cell.fact
            push(new, _as(new, event, movement, cell.state or movement.state, kind))
        case Action.IMPLY | Action.LEAVE:
            push(new, _as(new, event, movement, movement.state, movement.kind))
        case Action.REVERSE:
            replace_top(new, msgspec.structs.replace(new.movements[-1], reversed=True))
            state = S.OBSERVATION if step in TO_OBSERVATION else movement.state
            push(new, _as(new, event, movement, state, None))
        case Action.CLOSE:
            if cell.state is not None:
                push(new, _implied_for(movement, cell.state))
            kind = None if cell.fact is K.ED_DISCHARGE and not began_in_ed(new) else cell.fact
            push(new, _as(new, event, movement, S.DISCHARGED, kind))
        case _:
            _restate(new, movement, step)
    return (cell.flag,) if cell.flag else ()


def _as(new: Folded, event: Event, movement: Movement, state: EncounterState, kind: TransitionKind | None) -> Movement:
    """`movement` with the state and fact it has now. Another fact is known since `event` says so."""
    replaced = msgspec.structs.replace
    if kind is movement.kind:
        return replaced(movement, state=state, reversed=False)
    since = movement.received_at if kind is None else event.known_since
    return replaced(
        movement,
        state=state,
        kind=kind,
        occurrence=next_occurrence(new, kind),
        received_at=since,
        reversed=False,
        silent=movement.silent or SILENT.get(event.processing, ""),
    )


def _implied_for(discharge: Movement, state: EncounterState) -> Movement:
    return msgspec.structs.replace(
        discharge, state=state, step=None, kind=None, occurrence=0, anchor=None, implied=True, ids=(), treating=False
    )


def _restate(new: Folded, movement: Movement, step: Step) -> None:
    """A movement that states what holds already: its names and its fact are those of the one that holds."""
    top = new.top
    if top is None or top.state not in (movement.state, RESTATED_BY.get(step)):
        return
    top = msgspec.structs.replace(with_ids(top, movement.ids), treating=top.treating or movement.treating)
    if movement.state is top.state and movement.kind is not None:
        top = msgspec.structs.replace(top, kind=movement.kind, occurrence=movement.occurrence)
    replace_top(new, top)
