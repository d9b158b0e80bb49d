"""Owns the movements that messages name by an id of their sender (IHE PAM ITI-31, segment ZBE), and where the patient
lies by them. Pure.

A cancel that names a movement acts on no other that has a name. What was stated without one is found by the times that
are given and by what came last.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from tocengine.encounters.state import Folded, Moved, Movement
from tocengine.encounters.steps import Step
from tocengine.model.event import Event, MovementAction
from tocengine.model.facts import EncounterFacts, Location

MOVES_KEPT = 16
NOTHING = EncounterFacts()
UNKNOWN = "names_unknown_movement"


def said_of(event: Event) -> EncounterFacts:
    """What an event says of its visit."""
    return NOTHING if event.encounter_facts is UNSET else event.encounter_facts


def ids_stated(event: Event) -> tuple[str, ...]:
    """The ids of the movement that an event states; none where it cancels one."""
    named = event.movement
    return named.ids if named is not None and named.action is not MovementAction.CANCEL else ()


def ids_cancelled(event: Event) -> tuple[str, ...]:
    """The ids of the movement that an event cancels, if it names one."""
    named = event.movement
    return named.ids if named is not None and named.action is MovementAction.CANCEL else ()


def place_of(among: Sequence[Movement | Moved], ids: Iterable[str]) -> int | None:
    """Where the one that goes by one of `ids` is."""
    wanted = set(ids)
    return next((place for place, each in enumerate(among) if wanted.intersection(each.ids)), None)


def means_another(new: Folded, event: Event, ids: tuple[str, ...]) -> bool:
    """Whether a cancel names a movement other than the one with `ids`, which it would take back if it named none."""
    named = set(ids_cancelled(event))
    if not named or named.intersection(ids):
        return False
    return bool(ids) or not named.isdisjoint(new.struck_ids)


def unknown(new: Folded, event: Event) -> tuple[str, ...]:
    """The flag for a message that names none of the movements known. A cancel that comes again is no such message."""
    ids = event.movement.ids if event.movement else ()
    return () if set(ids).intersection(new.struck_ids) or place_of(new.moves, ids) is not None else (UNKNOWN,)


def where_it_counts(new: Folded, event: Event, step: Step) -> EncounterFacts:
    """What `event` says of the visit, as far as it is about now; `new` is the state before, whose bed moves follow."""
    said = said_of(event)
    match step:
        case Step.MOVE:
            return _moved(new, event, said)
        case Step.CANCEL_MOVE:
            return _move_cancelled(new, event, said)
        case Step.STRIKE:
            place = place_of(new.moves, ids_cancelled(event))
            return NOTHING if place is None else _taken_out(new, place, UNSET)
        case Step.AMEND:
            return _amended(new, event, said)
    return _now(new, event, said)


def _now(new: Folded, event: Event, said: EncounterFacts) -> EncounterFacts:
    """Without the location of a movement that is stated only for the record (ZBE-5)."""
    if event.movement is None or not event.movement.historic or not new.location:
        return said
    return msgspec.structs.replace(said, location=UNSET)


def _moved(new: Folded, event: Event, said: EncounterFacts) -> EncounterFacts:
    said = _now(new, event, said)
    ids = ids_stated(event)
    again = place_of(new.moves, ids) is not None or (not ids and said.location == new.location)
    if said.location and not again:
        move = Moved(before=new.location, recorded=event.recorded.at, ids=ids)
        new.moves = (*new.moves, move)[-MOVES_KEPT:]
    return said


def _move_cancelled(new: Folded, event: Event, said: EncounterFacts) -> EncounterFacts:
    """A12 states where the patient lies, or it is where he lay before the move."""
    named = ids_cancelled(event)
    place = place_of(new.moves, named)
    if place is not None:
        return msgspec.structs.replace(said, location=_taken_out(new, place, said.location).location)
    last = new.moves[-1] if new.moves else None
    if means_another(new, event, last.ids if last else ()):
        return msgspec.structs.replace(said, location=UNSET)
    if said.location is UNSET and last and last.before:
        return msgspec.structs.replace(said, location=last.before)
    return said


def _taken_out(new: Folded, place: int, stated: Location | msgspec.UnsetType | None) -> EncounterFacts:
    """Where the patient lies without the move at `place`; UNSET where later moves decide that."""
    move, later = new.moves[place], new.moves[place + 1 :]
    new.struck_ids = (*new.struck_ids, *move.ids)[-MOVES_KEPT:]
    if later:
        later = (msgspec.structs.replace(later[0], before=move.before), *later[1:])
    new.moves = (*new.moves[:place], *later)
    if later:
        return NOTHING
    return EncounterFacts(location=move.before if stated is UNSET else stated)


def _amended(new: Folded, event: Event, said: EncounterFacts) -> EncounterFacts:
    """All of it where the latest movement is named; else its location is where the next move began, and nothing more
    is about now."""
    ids = ids_stated(event)
    place, movement = place_of(new.moves, ids), place_of(new.movements, ids)
    if place is not None:
        following = place + 1
    elif movement is not None:
        began = new.movements[movement].recorded.at
        following = sum(move.recorded < began for move in new.moves)
    else:
        return NOTHING if event.movement is not None and event.movement.historic else said
    if following < len(new.moves):
        if said.location:
            corrected = msgspec.structs.replace(new.moves[following], before=said.location)
            new.moves = (*new.moves[:following], corrected, *new.moves[following + 1 :])
        return NOTHING
    overtaken = place is None and movement != len(new.movements) - 1
    return EncounterFacts(location=said.location) if overtaken else said
