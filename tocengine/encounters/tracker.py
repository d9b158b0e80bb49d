"""Owns the tracking of a batch in memory: which encounters an event touches, and what it changes about each. Pure.

`postgres` brings the rows, locked, and writes back what `Batch` leaves behind. Events are taken one by one in the
order of the log, so that where one batch ends and the next begins never shows in the result.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from tocengine.encounters.due import DueKind, begins
from tocengine.encounters.facts import Resolver
from tocengine.encounters.fold import adopt, diff, fold, in_order, step
from tocengine.encounters.holdback import Arrivals, HeldBack, Window, partition_of
from tocengine.encounters.identity import (
    Edge,
    EdgeKind,
    Forest,
    Register,
    VisitRegister,
    account_edges,
    edges_of,
    encounter_id_of,
    keys_of,
    merges_patients,
    moved_from,
    moved_to,
    moves_of,
    patient_id_of,
    rekeyed_visits,
    rekeys,
    visit_edges,
)
from tocengine.encounters.joining import concerns_others, kept, related
from tocengine.encounters.machine import SILENT, WATCHED_AFTER_CLOSE
from tocengine.encounters.ownership import CONTRADICTS, owned, without_person
from tocengine.encounters.snapshots import inside_kind, inside_transition, snapshot_of
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.encounters.steps import link_of
from tocengine.model.encounter import (
    EncounterState,
    Fact,
    Snapshot,
    TrackedEncounter,
    Transition,
    TransitionKind,
)
from tocengine.model.event import Event, EventRecord, Processing
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, MessageId, PatientId
from tocengine.model.work import WorkItem, WorkKind

EventId = tuple[UUID, int]
"""(message id, part): what a re-normalized event replaces."""

FOR_A_PERSON = {
    "discharge_facts_cleared_by_update": "An update emptied discharge data, which only a cancellation may; ignored.",
    "inpatient_closed_as_admitted": "An inpatient stay was closed with disposition 09; no discharge was told.",
    "patient_contradicts_visit": "A message of this visit names another patient; its patient data was not used.",
}
"""Flags that only a person can settle, each with the sentence of its work item."""


class Row(msgspec.Struct, kw_only=True):
    """One encounter in the hands of a batch. `history` holds its earlier events where it has to fold anew."""

    encounter_id: EncounterId
    visit: VisitKey
    owner_id: PatientId  # the number it is filed under
    patient_id: PatientId  # the surviving patient of that number
    body: EncounterBody
    survivor_id: EncounterId | None = None  # the visit this one was merged into
    history: dict[EventId, Event] | None = None
    touched: bool = False
    rekeyed: bool = False  # a merge or move of this batch gave it to another patient
    event: Event | None = None  # the last one that touched it
    message_ids: list[MessageId] = msgspec.field(default_factory=list)
    silences: set[str] = msgspec.field(default_factory=set)
    transitions: list[Transition] = msgspec.field(default_factory=list)
    inside: list[Transition] = msgspec.field(default_factory=list)  # bed moves, leaves: for the topic alone
    cancelled: list[tuple[Fact, TransitionKind]] = msgspec.field(default_factory=list)

    @property
    def folded(self) -> Folded:
        """The state as it is now."""
        return self.body.folded

    @property
    def root_id(self) -> EncounterId:
        """The encounter that what is kept here counts for."""
        return self.survivor_id or self.encounter_id

    @property
    def undescribed(self) -> bool:
        """Whether only others have spoken of it so far: a link, a move."""
        return self.folded.last is not None and not self.folded.feed

    def snapshot(self, patient: PatientKey) -> Snapshot:
        """What a notice renders of it as it is now; `patient` is the surviving key."""
        assert self.event is not None
        return snapshot_of(self.encounter_id, self.visit, self.folded, self.event, patient)


class Stored(msgspec.Struct, frozen=True):
    """One row of an encounter's history to write; a link to another visit's event carries no content."""

    encounter_id: EncounterId
    record: EventRecord
    linked: bool = False


def visits_of(event: Event) -> list[VisitKey]:
    """The encounters an event is about by itself: its visit, and the one that visit grew out of."""
    if event.visit is None or not event.handled or event.merges:
        return []
    link = link_of(event)
    return [event.visit] if link is None else [event.visit, link]


def is_statement(event: Event) -> bool:
    """Whether an event speaks of the person and no visit (A28, A31, A40). One that is a test changes nobody."""
    of_person = event.visit is None or bool(event.merges)
    return event.handled and event.patient is not None and of_person and event.processing is not Processing.TEST


def root_row(rows: Mapping[EncounterId, Row], visit: VisitKey) -> Row:
    """The row that everything said of `visit` goes to: its own, or that of the visit it was merged into."""
    row = rows[encounter_id_of(visit)]
    return row if row.survivor_id is None else rows[row.survivor_id]


def refolding(
    rows: Mapping[EncounterId, Row], events: Sequence[Event], register: Register, window: Window
) -> tuple[set[EncounterId], set[PatientId], bool]:
    """The encounters whose history is needed before `events` can be applied, the patients whose statements are, and
    whether an event may be held back.

    Needed for what comes late, replaces an earlier revision, follows a merge, begins after statements were made, or
    may be held back and applied after what comes later.
    """
    late: set[EncounterId] = set()
    some_may_wait = False
    arrivals = Arrivals()
    merged = register.regrouping() if any(rekeys(event) for event in events) else set()
    stated: set[PatientId] = set()
    ahead: dict[EncounterId, Folded] = {}  # as far as order is concerned, after the events before
    for event in events:
        if rekeys(event):
            some_may_wait = some_may_wait or bool(moves_of(event) and window.of(event))
            merged.update(register.root(key) for key in keys_of(event))
            late.update(root_row(rows, visit).encounter_id for visit in rekeyed_visits(event))
        if is_statement(event) and event.patient is not None:
            root = register.root(event.patient)
            stated.add(root)
            touched = [row for row in rows.values() if row.patient_id == root]
        else:
            touched = [root_row(rows, visit) for visit in visits_of(event)]
        for row in touched:
            folded = ahead.get(row.encounter_id) or row.folded
            waits = window.of(event) and arrivals.may_wait(row.encounter_id, row.folded, event)
            some_may_wait = some_may_wait or bool(waits)
            if event.revision or event.released_at or waits or row.undescribed or not in_order(folded, event):
                late.add(row.encounter_id)
            elif row.encounter_id not in late:  # one that folds anew does so once for all
                ahead[row.encounter_id] = Folded(
                    visit=folded.visit, last=event.order_key, rehearsal=_rehearses(folded, event)
                )
    for row in rows.values():
        new_to_statements = row.folded.last is None and (
            row.patient_id in stated or register.statements(row.patient_id)
        )
        if new_to_statements or row.patient_id in merged:
            late.add(row.encounter_id)
    late.update(row.encounter_id for row in rows.values() if row.survivor_id in late)
    patients = {rows[encounter_id].patient_id for encounter_id in late} | merged
    return late, {root for root in patients if register.statements(root)}, some_may_wait


def _rehearses(folded: Folded, event: Event) -> bool:
    return folded.rehearsal or (folded.last is None and event.processing is Processing.TEST)


class Batch:
    """Applies events to the rows it was given. Everything it leaves is in its public attributes."""

    def __init__(
        self,
        rows: Mapping[EncounterId, Row],
        register: Register,
        statements: Mapping[PatientId, Sequence[Event]],
        resolver: Resolver,
        now: datetime,
        visits: Iterable[Edge] = (),
        accounts: Iterable[Edge] = (),
        held: HeldBack | None = None,
    ) -> None:
        self.rows, self.register, self.resolver, self.now = rows, register, resolver, now
        self.held = held or HeldBack(Window())
        self.statements = {number: list(events) for number, events in statements.items()}  # by number, as sent
        self.visits, self.accounts = VisitRegister(visits), Forest(accounts)
        self.edges: list[tuple[Event, Edge]] = []
        self.stored: list[Stored] = []
        self.stated: list[tuple[PatientId, EventRecord]] = []
        self.work_items: list[WorkItem] = []
        self.merged: list[tuple[Event, PatientId, PatientId]] = []  # done, from and to
        self.begun: dict[tuple[EncounterId, DueKind], None] = {}  # rules that may fire later

    def add(self, record: EventRecord) -> None:
        """Takes the next event of the log. Its rows were loaded; `record` is no repeat. First comes what was held
        back until now, last what waited for this event."""
        event, held = record.summary, self.held
        if held.waiting:
            if event.revision:
                held.forget(event)
            while ended := held.next_ended(partition_of(record), event.received_at):
                self._apply_and_follow(ended)
        row = self._row_of(event)
        if row is not None and event.visit and held.takes(row.folded, record, encounter_id_of(event.visit)):
            return
        if self._moves_between_people(event) and held.holds(record, EncounterId(event.message_id)):
            return
        self._apply_and_follow(record)

    def _apply_and_follow(self, record: EventRecord) -> None:
        """Applies `record` and whatever waited for it."""
        self._apply(record)
        event = record.summary
        row = self._row_of(event) if self.held.waiting else None
        if row is None or event.visit is None:
            return
        home = encounter_id_of(event.visit)
        while ready := self.held.next_ready(home, row.folded, event.known_since):
            self._apply(ready)

    def _moves_between_people(self, event: Event) -> bool:
        """Whether an event moves something to another person, who may turn out to be the same within the window:
        senders move visits inside a merge (A43-A45, domain 2.1). It waits under its own id, for nothing but that."""
        moves = moves_of(event) if rekeys(event) else ()
        return any(self.register.root(move.prior) != self.register.root(move.surviving) for move in moves)

    def _row_of(self, event: Event) -> Row | None:
        if event.visit is None or encounter_id_of(event.visit) not in self.rows:
            return None
        return root_row(self.rows, event.visit)

    def _apply(self, record: EventRecord) -> None:
        event = record.summary
        rekeyed = self._rekey(event) if rekeys(event) else set()
        if is_statement(event):
            self._state(record, rekeyed)
        for visit in visits_of(event):
            home, row = self.rows[encounter_id_of(visit)], root_row(self.rows, visit)
            self._advance(row, event, home, anew=row.encounter_id in rekeyed)
            self.stored.append(Stored(home.encounter_id, record, visit != event.visit))
        own = self._row_of(event)
        if own is not None and concerns_others(event):
            self._relate({own.patient_id}, event, own)
        if rekeyed:
            people = {self.register.root(key) for key in keys_of(event)}
            self._relate(people | {self.rows[each].patient_id for each in rekeyed}, event)

    def _relate(self, patients: Collection[PatientId], event: Event, own: Row | None = None) -> None:
        """Renews what the visits of patients make of each other, the event's own one first."""
        for patient_id in sorted(patients):
            rows = [row for row in self.rows.values() if row.patient_id == patient_id and row.survivor_id is None]
            if own is not None and len(rows) == 1:
                continue
            for row in sorted(rows, key=lambda row: row is not own):
                folded = related(row.folded, [other.folded for other in rows if other is not row])
                if folded is not row.folded:
                    self._settle(row, folded, event)

    def remove(self, encounter_id: EncounterId, event: Event) -> None:
        """Takes an earlier revision of `event` out of an encounter it no longer belongs to."""
        home = self.rows[encounter_id]
        row = home if home.survivor_id is None else self.rows[home.survivor_id]
        assert home.history is not None
        home.history.pop((event.message_id, event.part), None)
        self._settle(row, self._refolded(row), event)

    # --- one encounter

    def _advance(self, row: Row, event: Event, home: Row | None = None, *, anew: bool = False) -> None:
        """Applies `event` to `row`, or folds it anew; `home` is where the event is kept, None for a statement."""
        direct = in_order(row.folded, event) and not row.undescribed and not anew
        if row.history is not None:
            if home is not None:
                assert home.history is not None
                identity = (event.message_id, event.part)
                direct = direct and identity not in home.history
                home.history[identity] = event
            direct = direct and not (row.folded.last is None and self._statements_of(row))
        folded = step(row.folded, self._meant(row, event))[0] if direct else self._refolded(row)
        self._settle(row, folded, event)

    def _meant(self, row: Row, event: Event) -> Event:
        """What an event in order means for `row`: under its own key, and without what is said of another person."""
        if event.visit is None:
            return event
        own = event.visit == row.visit
        if not own:
            home = self.rows.get(encounter_id_of(event.visit))
            if home is None or home.survivor_id != row.encounter_id:
                return event  # of another visit, which names this one
            event = msgspec.structs.replace(event, visit=row.visit)
        if event.patient is None:
            return event
        number = patient_id_of(event.patient)
        if row.folded.last is None:
            row.owner_id, row.patient_id = number, self.register.root_of(number)
        if self.register.person(number, event.recorded.at) == row.patient_id:
            return event
        return without_person(event, CONTRADICTS if own else "")

    def _names(self, row: Row) -> list[EncounterId]:
        aliases = [each.encounter_id for each in self.rows.values() if each.survivor_id == row.encounter_id]
        return [row.encounter_id, *aliases] if aliases else [row.encounter_id]

    def _refolded(self, row: Row) -> Folded:
        members = [self.rows[encounter_id] for encounter_id in self._names(row)]
        history: dict[EventId, Event] = {}
        for member in reversed(members):
            assert member.history is not None, "an encounter folds anew without its history"
            history.update(member.history)
        visits = {member.visit for member in members}
        found = owned(
            row.visit, visits, history.values(), self._statements_of(row), self.register, self.accounts
        )  # fmt: skip
        if found.owner is not None:
            row.owner_id = found.owner
        row.patient_id = self.register.root_of(row.owner_id)
        return kept(row.folded, fold(row.visit, found.events))

    def _statements_of(self, row: Row) -> list[Event]:
        """What was said of anybody the visit is, or was, filed under."""
        if not self.statements:
            return []
        history = [event for each in self._names(row) for event in (self.rows[each].history or {}).values()]
        numbers = {row.owner_id, *(patient_id_of(event.patient) for event in history if event.patient)}
        found: list[Event] = []
        seen: set[PatientId] = set()
        while numbers:
            for number in {each for known in numbers for each in self.register.family(self.register.root_of(known))}:
                if number not in seen:
                    seen.add(number)
                    found += self.statements.get(number, ())
            numbers = {patient_id_of(key) for event in found for key in moved_to(event)} - seen
        return found

    def _settle(self, row: Row, folded: Folded, event: Event) -> None:
        """Makes `folded` the state of `row` and notes what that changes outwardly."""
        before = row.folded
        for rule in begins(before, folded):
            self.begun[row.encounter_id, rule] = None
        row.touched, row.event = True, event
        row.message_ids.append(event.message_id)
        row.silences.add(SILENT.get(event.processing, ""))
        changed = diff(row.encounter_id, row.body, folded, event, self.resolver)
        row.body = changed.body
        row.transitions.extend(changed.transitions)
        row.cancelled.extend(changed.cancelled)
        kind = inside_kind(before, folded, event)
        if kind is not None:
            row.inside.append(inside_transition(row.encounter_id, kind, event))
        for flag in set(folded.flags).difference(before.flags) & FOR_A_PERSON.keys():
            self._work(WorkKind.ENCOUNTER_FLAGGED, f"{row.encounter_id}|{flag}", FOR_A_PERSON[flag], event, row)

    # --- patients

    def _state(self, record: EventRecord, rekeyed: Collection[EncounterId]) -> None:
        """What an event says of a person, for every visit that is open or just closed; `rekeyed` fold anew by it."""
        event = record.summary
        assert event.patient is not None
        for number in dict.fromkeys(patient_id_of(key) for key in (event.patient, *moved_from(event))):
            self.register.stated(number)
            self.statements.setdefault(number, []).append(event)
            self.stated.append((number, record))
        for encounter_id in sorted(rekeyed):
            row = self.rows[encounter_id]
            if row.survivor_id is None:
                self._settle(row, self._refolded(row), event)
        for move in moves_of(event):
            if move.visit is not None:
                row = root_row(self.rows, move.visit)
                if row.patient_id != self.register.root(move.surviving):
                    summary = "A move was refused: it names a patient whose visit it is not."
                    self._work(WorkKind.MERGE_REFUSED, f"{row.encounter_id}|move", summary, event, row)
        meant = self.register.person(patient_id_of(event.patient), event.recorded.at)
        for row in self.rows.values():
            about = row.patient_id == meant and row.survivor_id is None and row.encounter_id not in rekeyed
            if about and row.folded.last is not None and _still_watched(row.folded, event):
                self._advance(row, event)

    def _rekey(self, event: Event) -> set[EncounterId]:
        """Takes in what `event` says of keys; gives the visits that have to fold anew."""
        said = edges_of(event)
        self.edges += [(event, edge) for edge in said]
        undone = [
            edge
            for edge in said
            if edge.kind is EdgeKind.UNLINK
            and self.register.root_of(PatientId(edge.prior)) == self.register.root_of(PatientId(edge.surviving))
        ]
        self._refuse(undone, "Two records that were merged are unlinked; no message undoes a merge.", event)
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
        changed = self.register.regroup(event)
        self.merged += [(event, prior, surviving) for prior, surviving in changed.merged]
        self._refuse(changed.refused, "A merge was refused: it is circular or reverses an earlier one.", event)
        affected: set[EncounterId] = set()
        for row in self.rows.values():
            before, row.patient_id = row.patient_id, self.register.root_of(row.owner_id)
            if {before, row.patient_id} & changed.roots and row.survivor_id is None and row.folded.last is not None:
                affected.add(row.encounter_id)
                row.rekeyed = row.rekeyed or before != row.patient_id
        return affected

    def _regroup_visits(self, event: Event) -> set[EncounterId]:
        if not visit_edges(event):
            return set()
        survivors, refused = self.visits.regroup(event)
        self._refuse(refused, "A merge of visits was refused: it is circular or reverses an earlier one.", event)
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
        row.body = EncounterBody(folded=Folded(visit=row.visit))
        row.transitions, row.cancelled, row.event, row.touched = [], [], event, True

    def _refuse(self, edges: Iterable[Edge], summary: str, event: Event) -> None:
        for edge in edges:
            self._work(WorkKind.MERGE_REFUSED, f"{edge.prior}|{edge.surviving}", summary, event, None)

    def _work(self, kind: WorkKind, subject: str, summary: str, event: Event, row: Row | None) -> None:
        self.work_items.append(
            WorkItem(
                kind=kind,
                subject=subject,
                summary=summary,
                opened_at=self.now,
                feed=event.feed,
                message_id=event.message_id,
                encounter_id=row.encounter_id if row else None,
            )
        )

    def root_of(self, encounter_id: EncounterId) -> EncounterId:
        """The encounter that what is kept under `encounter_id` counts for."""
        return self.rows[encounter_id].root_id

    def numbers_of(self, encounter_id: EncounterId) -> list[PatientId]:
        """Every number of the patient of an encounter, those that changed hands too."""
        return self.register.family(self.rows[encounter_id].patient_id)

    def tracked(self) -> list[TrackedEncounter]:
        """The encounters that were touched and of which anything is known, in the order of their ids."""
        return [
            self._tracked(row)
            for _, row in sorted(self.rows.items())
            if row.event is not None and row.survivor_id is None and row.folded.state is not EncounterState.NONE
        ]

    def _tracked(self, row: Row) -> TrackedEncounter:
        folded, began = row.folded, row.folded.began_as
        keys = self.register.keys(row.patient_id)
        snapshot = row.snapshot(keys[0])
        replaced = msgspec.structs.replace
        return TrackedEncounter(
            encounter_id=row.encounter_id,
            patient_id=row.patient_id,
            patient_keys=keys,
            snapshot=snapshot,
            facts=tuple(entry.fact for entry in row.body.announced),
            cancelled=tuple(row.cancelled),
            transitions=tuple(replaced(t, snapshot_id=snapshot.snapshot_id) for t in row.transitions),
            sensitivity=tuple(sorted({*folded.sensitivity, *began.sensitivity})) if began else folded.sensitivity,
            part2=folded.part2 or bool(began and began.part2),
            deceased=folded.expired is not None or folded.dead_on_arrival,
            suppressed="" if "" in row.silences else min(row.silences, default=""),
            shadow=folded.shadow,
            message_ids=tuple(dict.fromkeys(row.message_ids)),
            adopted=row.body.adopted,
            number_ids=tuple(self.register.person_numbers(row.patient_id)),
            moved_keys=self.register.moved_keys(row.patient_id),
            rekeyed=row.rekeyed,
        )


def _still_watched(folded: Folded, event: Event) -> bool:
    return folded.closed_at is None or event.recorded.at - folded.closed_at <= WATCHED_AFTER_CLOSE
