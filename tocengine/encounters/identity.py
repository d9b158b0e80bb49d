"""Owns who a patient key means: families of keys that merges and moves made one, and which merges are refused. Pure.

A family is a surviving key with its aliases; every alias points straight at the survivor. Families are folded from all
that was said of them, in canonical order, so that the order in which merges arrive never shows.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from tocengine.encounters.edges import Edge, patient_edges, visit_edges
from tocengine.model.event import Event
from tocengine.model.identity import PatientKey
from tocengine.model.ids import EncounterId, PatientId


class Merged(StrEnum):
    """What became of a merge."""

    DONE = "DONE"
    REPEATED = "REPEATED"  # both keys are one already
    REFUSED = "REFUSED"  # the prior key was merged into another before
    REVERSED = "REVERSED"  # refused: circular, or the reverse of an earlier one


class Forest:
    """Families folded from `edges` in canonical order. `states` runs parallel to `edges`, which are sorted."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self.edges = sorted(edges, key=lambda edge: edge.order)
        self._roots: dict[UUID, UUID] = {}
        self._families: dict[UUID, list[UUID]] = {}
        self._moved: dict[UUID, tuple[UUID, datetime]] = {}
        self.states = [self._add(edge) for edge in self.edges]

    def root(self, key: UUID) -> UUID:
        """The key that `key` goes by now."""
        return self._roots.get(key, key)

    def moved(self, key: UUID) -> tuple[UUID, datetime] | None:
        """Where `key` belonged before it changed hands, and when it did; None where it is the same person's still."""
        return self._moved.get(key)

    def members(self) -> set[UUID]:
        """Every key that is spoken of."""
        return {key for edge in self.edges for key in (edge.prior, edge.surviving)}

    def refused(self) -> list[Edge]:
        """What was refused, as long as it is for a person: until the two keys have become one by other ways."""
        return [
            edge
            for edge, state in zip(self.edges, self.states, strict=True)
            if state is Merged.REVERSED
            or (state is Merged.REFUSED and self.root(edge.prior) != self.root(edge.surviving))
        ]

    def done(self, event: Event) -> list[Edge]:
        """What `event` said and was done, without numbers that changed hands."""
        mine = (event.message_id, event.part)
        return [
            edge
            for edge, state in zip(self.edges, self.states, strict=True)
            if state is Merged.DONE and (edge.message_id, edge.part) == mine and not edge.moved
        ]

    def _family(self, root: UUID) -> list[UUID]:
        return self._families.setdefault(root, [root])

    def _add(self, edge: Edge) -> Merged:
        from_root, to_root = self.root(edge.prior), self.root(edge.surviving)
        if from_root == to_root:
            return self._again(edge, from_root)
        if from_root != edge.prior:
            return Merged.REFUSED
        family = self._families.pop(edge.prior, [edge.prior])
        self._family(to_root).extend(family)
        for key in family:
            self._roots[key] = to_root
            if edge.moved:
                self._moved.setdefault(key, (edge.prior, edge.order[0]))
        return Merged.DONE

    def _again(self, edge: Edge, root: UUID) -> Merged:
        if root == edge.prior and edge.prior != edge.surviving:
            return Merged.REVERSED
        came = self._moved.get(edge.prior)
        if came is None or edge.moved or edge.prior == edge.surviving:
            return Merged.REPEATED
        self._moved = {key: where for key, where in self._moved.items() if where[0] != came[0]}
        return Merged.DONE  # a number that changed hands turns out to be the same person's


class Patient(msgspec.Struct, kw_only=True):
    """One patient key as stored. `statements` counts the events about the person that named no visit.

    A number that changed hands (A43) points at its new owner; up to `moved_at` it was `moved_from`'s.
    """

    patient_id: PatientId
    key: PatientKey
    survivor_id: PatientId | None = None
    moved_from: PatientId | None = None
    moved_at: datetime | None = None
    statements: int = 0


class Ruled(msgspec.Struct, frozen=True):
    """What an event changed of merges: those of its own that were `done` (prior, surviving as folded now), those
    `refused` that were not before, and refusals that are `settled`."""

    done: tuple[tuple[UUID, UUID], ...]
    refused: tuple[Edge, ...]
    settled: tuple[Edge, ...]


def _ruled(before: Forest, after: Forest, event: Event) -> Ruled:
    were, are = before.refused(), after.refused()
    still = {(edge.prior, edge.surviving) for edge in are}
    return Ruled(
        done=tuple((edge.prior, after.root(edge.surviving)) for edge in after.done(event)),
        refused=tuple(edge for edge in are if edge not in were),
        settled=tuple(edge for edge in were if (edge.prior, edge.surviving) not in still),
    )


class Register:
    """The patients a batch is about, with their families. `changed` names the rows to write back.

    `edges` are all that was ever said of the families that the batch may change.
    """

    def __init__(self, patients: Iterable[Patient], edges: Iterable[Edge] = ()) -> None:
        self._patients = {patient.patient_id: patient for patient in patients}
        self._forest = Forest(edges)
        self.changed: set[PatientId] = set()
        self._find_aliases()

    def _find_aliases(self) -> None:
        self._aliases: dict[PatientId, list[PatientId]] = {}
        for patient in self._patients.values():
            if patient.survivor_id is not None:
                self._aliases.setdefault(patient.survivor_id, []).append(patient.patient_id)

    def add(self, patients: Iterable[Patient]) -> None:
        """Takes further patients in; those known already stay as they are."""
        for patient in patients:
            self._patients.setdefault(patient.patient_id, patient)
        self._find_aliases()

    def knows(self, patient_id: PatientId) -> bool:
        """Whether the patient is in the register."""
        return patient_id in self._patients

    def root(self, key: PatientKey) -> PatientId:
        """The surviving patient a key means now."""
        return self.root_of(key.patient_id)

    def root_of(self, patient_id: PatientId) -> PatientId:
        """The surviving patient of a patient id."""
        patient = self._patients.get(patient_id)
        return patient.survivor_id if patient is not None and patient.survivor_id is not None else patient_id

    def person(self, patient_id: PatientId, at: datetime) -> PatientId:
        """The person a number meant at a time: before it changed hands, not the one it means now."""
        patient = self._patients.get(patient_id)
        if patient is not None and patient.moved_from is not None and patient.moved_at and at < patient.moved_at:
            return patient.moved_from
        return self.root_of(patient_id)

    def family(self, root: PatientId) -> list[PatientId]:
        """The survivor and every key merged into it or moved to it."""
        return [root, *self._aliases.get(root, ())]

    def keys(self, root: PatientId) -> tuple[PatientKey, ...]:
        """The surviving key first, then its aliases in their own order. A number that changed hands is none: it stands
        on the lists of those who know its former owner."""
        survivor = self._patients.get(root)
        if survivor is None:
            return ()
        aliases = self._aliases.get(root)
        if not aliases:
            return (survivor.key,)
        known = (self._patients[patient_id] for patient_id in aliases)
        return (survivor.key, *sorted(patient.key for patient in known if patient.moved_from is None))

    def moved_keys(self, root: PatientId) -> tuple[PatientKey, ...]:
        """The numbers in the family that changed hands."""
        aliases = self._aliases.get(root)
        if not aliases:
            return ()
        known = (self._patients[patient_id] for patient_id in aliases)
        return tuple(sorted(patient.key for patient in known if patient.moved_from is not None))

    def person_numbers(self, root: PatientId) -> list[PatientId]:
        """The ids of `keys`."""
        if root not in self._aliases:
            return [root] if root in self._patients else []
        return [key.patient_id for key in self.keys(root)]

    def regrouping(self) -> set[PatientId]:
        """The roots of everybody whom a merge of the batch may give another family."""
        return {self.root_of(PatientId(key)) for key in self._forest.members()}

    def statements(self, root: PatientId) -> int:
        """How many events have spoken of the person without naming a visit."""
        if root not in self._aliases:
            patient = self._patients.get(root)
            return 0 if patient is None else patient.statements
        return sum(self._patients[each].statements for each in self.family(root) if each in self._patients)

    def stated(self, patient_id: PatientId) -> None:
        """Counts one more of them."""
        self._patients[patient_id].statements += 1
        self.changed.add(patient_id)

    def regroup(self, event: Event) -> tuple[Ruled, frozenset[PatientId]]:
        """Folds the families anew with what `event` says, in place of what an earlier revision of it said; gives what
        became of merges, and the roots of every family that lost or gained a member."""
        before, forest = self._forest, Forest([*_others(self._forest.edges, event), *patient_edges(event)])
        self._forest = forest
        roots: set[PatientId] = set()
        for key in sorted(forest.members() | before.members()):
            patient = self._patients[PatientId(key)]
            root, moved = forest.root(key), forest.moved(key)
            survivor = PatientId(root) if root != key else None
            moved_from, moved_at = (PatientId(moved[0]), moved[1]) if moved else (None, None)
            if (survivor, moved_from, moved_at) != (patient.survivor_id, patient.moved_from, patient.moved_at):
                roots |= {self.root_of(patient.patient_id), PatientId(root)}
                patient.survivor_id, patient.moved_from, patient.moved_at = survivor, moved_from, moved_at
                self.changed.add(patient.patient_id)
        self._find_aliases()
        return _ruled(before, forest, event), frozenset(roots)

    def patients(self) -> list[Patient]:
        """Everyone in the register."""
        return list(self._patients.values())

    def rows(self) -> list[Patient]:
        """What changed, in id order."""
        return [self._patients[patient_id] for patient_id in sorted(self.changed)]


def _others(edges: Iterable[Edge], event: Event) -> list[Edge]:
    return [edge for edge in edges if (edge.message_id, edge.part) != (event.message_id, event.part)]


class VisitRegister:
    """The visits that a batch merges, folded like patients from all that was ever said of them."""

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._forest = Forest(edges)

    def regroup(self, event: Event) -> tuple[dict[EncounterId, EncounterId], Ruled]:
        """The survivor of every visit spoken of, once `event` counts, and what became of merges."""
        before = self._forest
        self._forest = Forest([*_others(before.edges, event), *visit_edges(event)])
        survivors = {
            EncounterId(key): EncounterId(self._forest.root(key))
            for key in sorted(self._forest.members() | before.members())
        }
        return survivors, _ruled(before, self._forest, event)
