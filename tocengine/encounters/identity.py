"""Owns who a patient key means: families of keys that merges and moves made one, and which merges are refused. Pure.

A family is a surviving key with its aliases; every alias points straight at the survivor. Families are folded from all
that was said of them, in canonical order, so that the order in which merges arrive never shows.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from tocengine.encounters.state import OrderKey
from tocengine.model.event import Event, Move, Processing
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, MessageId, PatientId


class EdgeKind(StrEnum):
    """What kind of key ceases. A link makes nothing cease (A24, A37)."""

    PATIENT = "PATIENT"
    VISIT = "VISIT"
    ACCOUNT = "ACCOUNT"
    LINK = "LINK"
    UNLINK = "UNLINK"


class Merged(StrEnum):
    """What became of a merge."""

    DONE = "DONE"
    REPEATED = "REPEATED"  # both keys are one already
    REFUSED = "REFUSED"  # the prior key was merged into another before
    REVERSED = "REVERSED"  # refused: circular, or the reverse of an earlier one


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about two keys, as it was sent; `moved` says that the prior number changed hands (A43)."""

    kind: EdgeKind
    prior: UUID
    surviving: UUID
    order: OrderKey
    message_id: MessageId
    part: int = 0
    moved: bool = False


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


def keys_of(event: Event) -> list[PatientKey]:
    """Every patient key an event names."""
    named = [event.patient] if event.patient is not None else []
    if event.merges:
        named += [key for merge in event.merges for key in (merge.prior, merge.surviving)]
    if event.rekeying is not None:
        named += [key for move in event.rekeying.moves for key in (move.prior, move.surviving)]
        named += [key for link in event.rekeying.links for key in (link.one, link.other)]
    return named


def counts(event: Event) -> bool:
    """Whether what an event says of keys is meant: a test never is."""
    return event.handled and event.processing is not Processing.TEST


def rekeys(event: Event) -> bool:
    """Whether an event changes what any key means, or whose something is. A link does not."""
    said = event.rekeying
    changes = event.merges or (said is not None and (said.visits or said.accounts or said.moves or said.links))
    return bool(changes) and counts(event)


def merges_patients(event: Event) -> bool:
    """Whether an event changes whom a patient key means."""
    return counts(event) and bool(event.merges or any(_moves_number(move) for move in moves_of(event)))


def rekeyed_visits(event: Event) -> list[VisitKey]:
    """The visits an event names as merged or moved."""
    if event.rekeying is None or not counts(event):
        return []
    merged = [visit for merge in event.rekeying.visits for visit in (merge.prior, merge.surviving)]
    return [*merged, *(move.visit for move in event.rekeying.moves if move.visit is not None)]


def moved_from(event: Event) -> list[PatientKey]:
    """The patients from whom an event moves something."""
    return [move.prior for move in moves_of(event)]


def moved_to(event: Event) -> list[PatientKey]:
    """The patients to whom it does."""
    return [move.surviving for move in moves_of(event)]


def moves_of(event: Event) -> tuple[Move, ...]:
    """What an event moves to another person."""
    return event.rekeying.moves if event.rekeying is not None else ()


def _moves_number(move: Move) -> bool:
    return move.visit is None and move.account is None


def patient_edges(event: Event) -> list[Edge]:
    """What an event says of patient keys: merges, and numbers that change hands (A43)."""
    if not merges_patients(event):
        return []
    edges = [_edge(event, EdgeKind.PATIENT, m.prior.patient_id, m.surviving.patient_id) for m in event.merges]
    for move in moves_of(event):
        if _moves_number(move):
            ids = move.prior.patient_id, move.surviving.patient_id
            edges.append(msgspec.structs.replace(_edge(event, EdgeKind.PATIENT, *ids), moved=True))
    return edges


def visit_edges(event: Event) -> list[Edge]:
    """What an event says of visit keys."""
    if event.rekeying is None or not counts(event):
        return []
    return [
        _edge(event, EdgeKind.VISIT, merge.prior.encounter_id, merge.surviving.encounter_id)
        for merge in event.rekeying.visits
    ]


def account_edges(event: Event) -> list[Edge]:
    """What an event says of account numbers."""
    if event.rekeying is None or not counts(event):
        return []
    return [
        _edge(event, EdgeKind.ACCOUNT, merge.prior.account_id, merge.surviving.account_id)
        for merge in event.rekeying.accounts
    ]


def edges_of(event: Event) -> Sequence[Edge]:
    """Everything an event says of keys, as it is kept."""
    links = event.rekeying.links if event.rekeying is not None and counts(event) else ()
    linked = [
        _edge(
            event, EdgeKind.LINK if link.stands else EdgeKind.UNLINK, link.one.patient_id, link.other.patient_id
        )
        for link in links
    ]  # fmt: skip
    return [*patient_edges(event), *visit_edges(event), *account_edges(event), *linked]


def _edge(event: Event, kind: EdgeKind, prior: UUID, surviving: UUID) -> Edge:
    return Edge(
        kind=kind,
        prior=prior,
        surviving=surviving,
        order=event.order_key,
        message_id=event.message_id,
        part=event.part,
    )
