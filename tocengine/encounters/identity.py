"""Owns who a patient key means: families of keys that merges made one, and which merges are refused. Pure.

A family is a surviving key with its aliases; every alias points straight at the survivor.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

import msgspec

from tocengine.model.event import Event, Merge
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, PatientId


class Patient(msgspec.Struct, kw_only=True):
    """One patient key as stored. `statements` counts the events about the person that named no visit."""

    patient_id: PatientId
    key: PatientKey
    survivor_id: PatientId | None = None
    statements: int = 0


class Merged(StrEnum):
    """What became of a merge."""

    DONE = "DONE"
    REPEATED = "REPEATED"  # both keys are one patient already
    REFUSED = "REFUSED"  # circular, reversed, or the prior key was merged into somebody else before


class Register:
    """The patients a batch is about, with their families. `changed` names the rows to write back."""

    def __init__(self, patients: Iterable[Patient]) -> None:
        self._patients = {patient.patient_id: patient for patient in patients}
        self._aliases: dict[PatientId, list[PatientId]] = {}
        for patient in self._patients.values():
            if patient.survivor_id is not None:
                self._aliases.setdefault(patient.survivor_id, []).append(patient.patient_id)
        self.changed: set[PatientId] = set()

    def root(self, key: PatientKey) -> PatientId:
        """The surviving patient a key means now."""
        return self.root_of(patient_id_of(key))

    def root_of(self, patient_id: PatientId) -> PatientId:
        """The surviving patient of a patient id."""
        patient = self._patients.get(patient_id)
        return patient.survivor_id if patient is not None and patient.survivor_id is not None else patient_id

    def family(self, root: PatientId) -> list[PatientId]:
        """The survivor and every key merged into it."""
        return [root, *self._aliases.get(root, ())]

    def keys(self, root: PatientId) -> tuple[PatientKey, ...]:
        """The surviving key first, then its aliases in their own order."""
        survivor = self._patients.get(root)
        if survivor is None:
            return ()
        aliases = self._aliases.get(root)
        if not aliases:
            return (survivor.key,)
        return (survivor.key, *sorted(self._patients[patient_id].key for patient_id in aliases))

    def statements(self, root: PatientId) -> int:
        """How many events have spoken of the person without naming a visit."""
        return sum(self._patients[patient_id].statements for patient_id in self.family(root))

    def stated(self, key: PatientKey) -> None:
        """Counts one more of them."""
        self._patients[patient_id_of(key)].statements += 1
        self.changed.add(patient_id_of(key))

    def merge(self, merge: Merge) -> Merged:
        """Makes the family of `prior` part of the family of `surviving`."""
        prior, surviving = patient_id_of(merge.prior), patient_id_of(merge.surviving)
        from_root, to_root = self.root_of(prior), self.root_of(surviving)
        if from_root == to_root:
            stands = from_root != prior or prior == surviving
            return Merged.REPEATED if stands else Merged.REFUSED
        if from_root != prior:
            return Merged.REFUSED
        moved = self.family(prior)
        for patient_id in moved:
            self._patients[patient_id].survivor_id = to_root
            self.changed.add(patient_id)
        self._aliases.setdefault(to_root, []).extend(moved)
        self._aliases.pop(prior, None)
        return Merged.DONE

    def patients(self) -> list[Patient]:
        """Everyone in the register."""
        return list(self._patients.values())

    def rows(self) -> list[Patient]:
        """What changed, in id order."""
        return [self._patients[patient_id] for patient_id in sorted(self.changed)]


@lru_cache(maxsize=16_384)
def encounter_id_of(visit: VisitKey) -> EncounterId:
    """`visit.encounter_id`, which costs a hash, kept for the visits of the last minutes."""
    return visit.encounter_id


@lru_cache(maxsize=16_384)
def patient_id_of(key: PatientKey) -> PatientId:
    """`key.patient_id`, likewise."""
    return key.patient_id


def keys_of(event: Event) -> list[PatientKey]:
    """Every patient key an event names."""
    named = [key for merge in event.merges for key in (merge.prior, merge.surviving)]
    return [event.patient, *named] if event.patient is not None else named
