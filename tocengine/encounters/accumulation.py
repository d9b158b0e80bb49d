"""Owns what counts of what an event says of patient and visit, laid over what is known before any cell is carried out.

What is known of a discharge is changed only by an update or another A03, and cleared only by A13. Pure.
"""

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.encounters.named import where_it_counts
from tocengine.encounters.state import Folded
from tocengine.encounters.steps import Step
from tocengine.model.encounter import EncounterState
from tocengine.model.event import Event
from tocengine.model.facts import CareSetting, EncounterFacts, PatientClass, overlay

UPDATES = frozenset(
    {
        Step.UPDATE,
        Step.UPDATE_EMERGENCY,
        Step.UPDATE_INPATIENT,
        Step.UPDATE_OBSERVATION,
        Step.UPDATE_PREADMIT,
        Step.AMEND,
    }
)
DISCHARGES = frozenset({Step.DISCHARGE, Step.DISCHARGE_EMERGENCY, Step.DISCHARGE_INPATIENT})
STATING = UPDATES | DISCHARGES
"""Steps that may change what is known of a discharge."""
NO_PLAN = frozenset({Step.CANCEL_DISCHARGE, Step.CANCEL_ARRIVAL, Step.STILL_PATIENT})
"""Steps whose own discharge fields mean nothing, filled or empty."""


def accumulate(new: Folded, folded: Folded, event: Event, step: Step) -> tuple[str, ...]:
    """Lays what the event says of patient and visit over what is known; gives the flags that leaves."""
    if event.patient_facts is not UNSET:
        new.patient = overlay(folded.patient, event.patient_facts)
    if step is Step.PERSON or event.encounter_facts is UNSET:
        return ()
    said, flags = _counted(where_it_counts(new, event, step), folded, step)
    new.encounter = overlay(folded.encounter, said)
    location = said.location
    tags = set(location.sensitivity) if location else set()
    if said.disposition and said.disposition.care_setting is CareSetting.PSYCH:
        tags.add("PSY")
    if tags and not tags <= set(new.sensitivity):
        new.sensitivity = tuple(sorted(tags.union(new.sensitivity)))
    if location and location.part2:
        new.part2 = True
    return flags


def _counted(said: EncounterFacts, folded: Folded, step: Step) -> tuple[EncounterFacts, tuple[str, ...]]:
    """What counts of a message: an unmapped class says nothing, only an update or another A03 changes what is known
    of a discharge, and only A13 clears it."""
    dropped: dict[str, UnsetType] = {}
    flags: tuple[str, ...] = ()
    if said.patient_class is PatientClass.UNKNOWN and folded.encounter.patient_class is not UNSET:
        dropped["patient_class"] = UNSET
    discharged = folded.state is EncounterState.DISCHARGED
    if step in NO_PLAN:
        dropped.update(disposition=UNSET, destination=UNSET, discharged=UNSET)
        if step is Step.STILL_PATIENT and discharged:
            dropped["patient_class"] = UNSET  # an interim bill corrects no discharge
    elif discharged and step not in STATING:
        dropped.update(disposition=UNSET, destination=UNSET, discharged=UNSET, patient_class=UNSET)
    elif discharged:
        for name in ("disposition", "destination", "discharged"):
            if getattr(said, name) is None:
                dropped[name] = UNSET
                flags = ("discharge_facts_cleared_by_update",)
    return (msgspec.structs.replace(said, **dropped) if dropped else said), flags


def forget_discharge(new: Folded) -> None:
    """Clears what is known of a discharge."""
    new.encounter = msgspec.structs.replace(new.encounter, disposition=UNSET, destination=UNSET, discharged=UNSET)
