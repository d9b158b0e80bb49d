"""Owns what a batch makes of merges, moves and new numbers: which visits change their patient or are merged, and what
is refused. Pure."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from tocengine.encounters.edges import (
    Edge,
    EdgeKind,
    account_edges,
    edges_of,
    keys_of,
    merges_patients,
    moves_of,
    rekeyed_visits,
    visit_edges,
)
from tocengine.encounters.fold import adopt
from tocengine.encounters.identity import Forest, Register, Ruled, VisitRegister
from tocengine.encounters.questions import Questions
from tocengine.encounters.rows import Row, root_row
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.model.event import Event, Move
from tocengine.model.facts import known
from tocengine.model.identity import AccountKey
from tocengine.model.ids import EncounterId, PatientId
from tocengine.model.work import WorkKind


class Rekeying:
    """The keys of a batch. `edges` are what its events said of keys; `merged` the merges of patients and of visits that
    were done, and `refused` those that were not: event, prior and surviving id."""

    def __init__(
        self,
        rows: Mapping[EncounterId, Row],
        register: Register,
        visits: Iterable[Edge],
        accounts: Iterable[Edge],
        questions: Questions,
    ) -> None:
        self.rows, self.register, self._questions = rows, register, questions
        self.visits, self.accounts = VisitRegister(visits), Forest(accounts)
        self.edges: list[tuple[Event, Edge]] = []
        self.merged: list[tuple[Event, EdgeKind, UUID, UUID]] = []
        self.refused: list[tuple[Event, Edge]] = []

    def take_in(self, event: Event) -> set[EncounterId]:
        """Takes in what `event` says of keys; gives the visits that have to fold anew."""
        said = edges_of(event)
        self.edges += [(event, edge) for edge in said]
        undone = [
            edge
            for edge in said
            if edge.kind is EdgeKind.UNLINK
            and self.register.root_of(PatientId(edge.prior)) == self.register.root_of(PatientId(edge.surviving))
        ]
        for edge in undone:
            summary = "Two records that were merged are unlinked; no message undoes a merge."
            self._questions.ask(WorkKind.MERGE_REFUSED, f"{edge.prior}|{edge.surviving}|unlink", summary, event)
            self.refused.append((event, edge))
        affected = self._regroup_patients(event) | self._regroup_visits(event)
        edges = account_edges(event)
        if edges:
            self.accounts = Forest([*self.accounts.edges, *edges])
        if edges or (event.rekeying is not None and event.rekeying.moves):
            roots = {self.register.root(key) for key in keys_of(event)}
            affected |= {row.encounter_id for row in self.rows.values() if row.patient_id in roots}
            affected |= {root_row(self.rows, visit).encounter_id for visit in rekeyed_visits(event)}
        return {each for each in affected if self.rows[each].history is not None}

    def _regroup_patients(self, event: Event) -> set[EncounterId]:
        if not merges_patients(event):
            return set()
        families = {row.patient_id: set(self.register.family(row.patient_id)) for row in self.rows.values()}
        ruled, roots = self.register.regroup(event)
        self._note(ruled, EdgeKind.PATIENT, "A merge was refused: it contradicts an earlier one.", event)
        affected: set[EncounterId] = set()
        for row in self.rows.values():
            before, row.patient_id = row.patient_id, self.register.root_of(row.owner_id)
            if {before, row.patient_id} & roots and row.survivor_id is None and row.folded.last is not None:
                affected.add(row.encounter_id)
                row.rekeyed = row.rekeyed or before != row.patient_id
                row.parted = row.parted or not families[before] <= set(self.register.family(row.patient_id))
        return affected

    def _regroup_visits(self, event: Event) -> set[EncounterId]:
        if not visit_edges(event):
            return set()
        survivors, ruled = self.visits.regroup(event)
        self._note(ruled, EdgeKind.VISIT, "A merge of visits was refused: it contradicts an earlier one.", event)
        affected: set[EncounterId] = set()
        for encounter_id, root in survivors.items():
            row = self.rows[encounter_id]
            survivor = root if root != encounter_id else None
            if row.survivor_id == survivor:
                continue
            affected |= {row.survivor_id or encounter_id, root}
            row.survivor_id = survivor
            if survivor is not None:
                affected.discard(encounter_id)
                self._adopt(row, self.rows[survivor], event)
        return {each for each in affected if self.rows[each].survivor_id is None}

    def _adopt(self, row: Row, survivor: Row, event: Event) -> None:
        """What was announced of `row` was announced of the visit it is merged into."""
        survivor.body = adopt(row.encounter_id, row.body, survivor.body)
        survivor.transitions += row.transitions
        survivor.cancelled += row.cancelled
        survivor.message_ids += row.message_ids
        survivor.silences |= row.silences
        self._questions.flagged(row, row.folded.flags, (), event)  # what is still so is asked of the survivor
        row.body = EncounterBody(folded=Folded(visit=row.visit))
        row.transitions, row.cancelled, row.event, row.touched = [], [], event, True

    def _note(self, ruled: Ruled, kind: EdgeKind, summary: str, event: Event) -> None:
        """What was done, what is asked of a person, and what needs no asking any more."""
        self.merged += [(event, kind, prior, surviving) for prior, surviving in ruled.done]
        self.refused += [(event, edge) for edge in ruled.refused]
        for edge in ruled.refused:
            self._questions.ask(WorkKind.MERGE_REFUSED, f"{edge.prior}|{edge.surviving}", summary, event)
        for edge in ruled.settled:
            self._questions.close(WorkKind.MERGE_REFUSED, f"{edge.prior}|{edge.surviving}")

    def refuse_moves(self, event: Event) -> None:
        """Asks about what `event`, which has been taken in, moves from a patient whose visit it is not."""
        for move in moves_of(event):
            if move.visit is None:
                if move.account is not None and not self._holds(move):
                    self._questions.account_not_moved(move.account, event)
                continue
            row = root_row(self.rows, move.visit)
            if row.patient_id != self.register.root(move.surviving):
                self._questions.move_refused(row, event)

    def _holds(self, move: Move) -> bool:
        """Whether the new owner has a visit under the account that `move` names, or under the one it is now."""
        owner, root = self.register.root(move.surviving), self.accounts.root
        named = {(each.domain, root(each.account_id)) for each in (move.account, move.into) if each is not None}
        for row in self.rows.values():
            stated = known(row.folded.encounter.account_number) if row.patient_id == owner else None
            if stated and any(root(AccountKey(domain, stated).account_id) == each for domain, each in named):
                return True
        return False
