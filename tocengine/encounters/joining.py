"""Owns which two visits are one stay although no message links them (domain 2.2, second shape): an ED visit and the
inpatient visit it became, known by the account number, or by patient, facility and time; and stays that overlap. Pure.

What it says depends on the states of the two visits alone, never on which of them was heard of first.
"""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
from msgspec import UNSET

from tocengine.encounters.fold import in_order
from tocengine.encounters.matrix import Action, cell_of
from tocengine.encounters.named import said_of
from tocengine.encounters.state import BeganAs, Folded, Movement
from tocengine.encounters.steps import class_said, says_converted, step_of
from tocengine.model.encounter import EncounterState
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass, known, standing

WITHIN = timedelta(hours=6)
MOVES_A_STAY = frozenset({"A01", "A03", "A04", "A06", "A07", "A11", "A13", "Z99"})
OVERLAPS = "overlapping_encounter"
STAYS = (PatientClass.EMERGENCY, PatientClass.INPATIENT)


def concerns_others(event: Event) -> bool:
    """Whether `event` may join its visit to another of the same patient, so that those have to be at hand."""
    if event.trigger not in MOVES_A_STAY or event.visit is None:
        return False
    said = event.encounter_facts
    stated = class_said(said)
    if event.trigger == "A03":
        converted = said is not msgspec.UNSET and says_converted(said)
        return converted or stated in STAYS
    return stated in STAYS or event.trigger in ("A11", "A13", "A07", "Z99")


def may_turn(folded: Folded, event: Event) -> bool:
    """Whether `event`, which usually changes nothing for other visits, may do so for a visit in this state: an update
    that implies an arrival, one that comes late, an account number or a closing that was not known."""
    stay = (EncounterState.ED, EncounterState.INPATIENT)
    said = said_of(event)
    if class_said(said) not in STAYS and not any(movement.state in stay for movement in folded.movements):
        return False
    account = said.account_number
    return (
        cell_of(folded.state, step_of(event, folded.visit)).action is not Action.KEEP
        or not in_order(folded, event)
        or (account is not UNSET and account != folded.encounter.account_number)
        or (said.disposition is not UNSET and says_converted(said) != says_converted(folded.encounter))
        or (folded.became_stay is not None and said.location is not UNSET)
    )


def bearing(folded: Folded) -> tuple[object, ...]:
    """What of a visit it follows from which other visits are one stay with it."""
    said = folded.encounter
    return (
        folded.movements,
        folded.facility,
        folded.rehearsal,
        said.account_number,
        says_converted(said),
        folded.sensitivity,
        folded.part2,
        standing(folded.patient, folded.encounter),
    )


def bears(before: Folded, after: Folded) -> bool:
    """Whether that differs, which for most messages shows at once."""
    unmarked = before.patient is after.patient or before.patient.marks == after.patient.marks
    if before.movements is after.movements and before.encounter is after.encounter and unmarked:
        one = (before.facility, before.rehearsal, before.sensitivity, before.part2)
        return one != (after.facility, after.rehearsal, after.sensitivity, after.part2)
    return bearing(before) != bearing(after)


def related(folded: Folded, others: Sequence[Folded]) -> Folded:
    """`folded` with what its patient's other visits at the same facility make of it."""
    became, began, overlaps = None, None, False
    if not others and folded.became_stay is None and folded.began_as is None and OVERLAPS not in folded.flags:
        return folded
    for other in others:
        if other.facility != folded.facility or other.rehearsal != folded.rehearsal:
            continue
        if _one_stay(folded, other):
            became = other.visit
        elif _one_stay(other, folded):
            arrival = _first(other, EncounterState.ED)
            assert other.visit is not None
            assert arrival is not None
            marks = standing(other.patient, other.encounter)
            began = BeganAs(other.visit, arrival.effective, other.sensitivity, other.part2, marks)
        overlaps = overlaps or _admitted_during(folded, other)
    flags = set(folded.flags) - {OVERLAPS} | ({OVERLAPS} if overlaps else set())
    if (became, began, flags) == (folded.became_stay, folded.began_as, set(folded.flags)):
        return folded
    new = msgspec.structs.replace(folded, became_stay=became, began_as=began)
    if flags != set(folded.flags):
        new.flags = tuple(sorted(flags))
    return new


def kept(before: Folded, after: Folded) -> Folded:
    """`after`, folded anew from its own events, with what other visits made of it until now."""
    after.became_stay, after.began_as = before.became_stay, before.began_as
    if OVERLAPS in before.flags:
        after.flags = tuple(sorted({*after.flags, OVERLAPS}))
    return after


def _first(folded: Folded, state: EncounterState) -> Movement | None:
    """The movement in force that first led to `state`."""
    found = (m for m in folded.movements if m.state is state and not m.reversed)
    return next(found, None)


def _one_stay(ed: Folded, stay: Folded) -> bool:
    """Whether `ed` is the ED visit that became the inpatient visit `stay`."""
    arrival, admission = _first(ed, EncounterState.ED), _first(stay, EncounterState.INPATIENT)
    if arrival is None or admission is None:
        return False
    if _first(ed, EncounterState.INPATIENT) or _first(stay, EncounterState.ED):
        return False
    admitted, closed = admission.effective.at, ed.closed_at
    if arrival.effective.at > admitted:
        return False
    account = known(ed.encounter.account_number)
    if account and account == known(stay.encounter.account_number):
        return closed is None or closed >= admitted - WITHIN
    return closed is not None and says_converted(ed.encounter) and abs(admitted - closed) <= WITHIN


def _admitted_during(folded: Folded, other: Folded) -> bool:
    """Whether the patient was admitted while another inpatient stay was open."""
    admission, earlier = _first(folded, EncounterState.INPATIENT), _first(other, EncounterState.INPATIENT)
    if admission is None or earlier is None or earlier.effective.at >= admission.effective.at:
        return False
    return other.closed_at is None or other.closed_at > admission.effective.at
