"""Owns the tracking of a batch in memory: which encounters an event touches, and what it changes about each. Pure.

`postgres` brings the rows, locked, and writes back what `Batch` leaves behind. Events are taken one by one in the
order of the log, so that where one batch ends and the next begins never shows in the result.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET

from tocengine.encounters.due import DueKind, begins
from tocengine.encounters.facts import Resolver
from tocengine.encounters.fold import diff, fold, in_order, step
from tocengine.encounters.holdback import Arrivals, HeldBack, Window, partition_of
from tocengine.encounters.identity import Merged, Register, encounter_id_of, patient_id_of
from tocengine.encounters.joining import concerns_others, kept, related
from tocengine.encounters.machine import SILENT, WATCHED_AFTER_CLOSE
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
    patient_id: PatientId
    body: EncounterBody
    history: dict[EventId, Event] | None = None
    touched: bool = False
    stale: bool = False  # a merge gave its patient another past: the next event folds it anew
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


def refolding(
    rows: Mapping[EncounterId, Row], events: Iterable[Event], register: Register, window: Window
) -> tuple[set[EncounterId], set[PatientId], bool]:
    """The encounters whose history is needed before `events` can be applied, the patients whose statements are, and
    whether an event may be held back.

    Needed for what comes late, replaces an earlier revision, follows a merge, begins after statements were made, or
    may be held back and applied after what comes later.
    """
    late: set[EncounterId] = set()
    some_may_wait = False
    arrivals = Arrivals()
    merged: set[PatientId] = set()
    stated: set[PatientId] = set()
    ahead: dict[EncounterId, Folded] = {}  # as far as order is concerned, after the events before
    for event in events:
        if event.merges:
            merged.update(register.root(key) for merge in event.merges for key in (merge.prior, merge.surviving))
        if is_statement(event) and event.patient is not None:
            root = register.root(event.patient)
            stated.add(root)
            touched = [row.encounter_id for row in rows.values() if row.patient_id == root]
        else:
            touched = [encounter_id_of(visit) for visit in visits_of(event)]
        for encounter_id in touched:
            folded = ahead.get(encounter_id) or rows[encounter_id].folded
            waits = window.of(event) and arrivals.may_wait(encounter_id, rows[encounter_id].folded, event)
            some_may_wait = some_may_wait or bool(waits)
            if event.revision or event.released_at or waits or not in_order(folded, event):
                late.add(encounter_id)
            elif encounter_id not in late:  # one that folds anew does so once for all
                ahead[encounter_id] = Folded(
                    visit=folded.visit, last=event.order_key, rehearsal=_rehearses(folded, event)
                )
    for row in rows.values():
        new_to_statements = row.folded.last is None and (
            row.patient_id in stated or register.statements(row.patient_id)
        )
        if new_to_statements or row.patient_id in merged:
            late.add(row.encounter_id)
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
        held: HeldBack | None = None,
    ) -> None:
        self.rows, self.register, self.resolver, self.now = rows, register, resolver, now
        self.held = held or HeldBack(Window())
        self.statements = {root: list(events) for root, events in statements.items()}  # by surviving patient
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
        if row is not None and held.takes(row.folded, record, row.encounter_id):
            return
        self._apply_and_follow(record)

    def _apply_and_follow(self, record: EventRecord) -> None:
        """Applies `record` and whatever waited for it."""
        self._apply(record)
        event = record.summary
        row = self._row_of(event) if self.held.waiting else None
        while row and (ready := self.held.next_ready(row.encounter_id, row.folded, event.known_since)):
            self._apply(ready)

    def _row_of(self, event: Event) -> Row | None:
        return None if event.visit is None else self.rows.get(encounter_id_of(event.visit))

    def _apply(self, record: EventRecord) -> None:
        event = record.summary
        if is_statement(event):
            self._state(record)
        for visit in visits_of(event):
            row = self.rows[encounter_id_of(visit)]
            own = event if visit != event.visit or self._same_person(row, event) else _without_person(event)
            linked = visit != event.visit
            self._advance(row, own, replaces=True)
            self.stored.append(Stored(row.encounter_id, EventRecord(own, record.fhir), linked))
        if concerns_others(event):
            self._relate(event)

    def _relate(self, event: Event) -> None:
        """Renews what the patient's visits make of each other, the event's own one first."""
        own = self._row_of(event)
        if own is None:
            return
        rows = [row for row in self.rows.values() if row.patient_id == own.patient_id]
        for row in sorted(rows, key=lambda row: row is not own) if len(rows) > 1 else ():
            folded = related(row.folded, [other.folded for other in rows if other is not row])
            if folded is not row.folded:
                self._settle(row, folded, event)

    def remove(self, encounter_id: EncounterId, event: Event) -> None:
        """Takes an earlier revision of `event` out of an encounter it no longer belongs to."""
        row = self.rows[encounter_id]
        assert row.history is not None
        row.history.pop((event.message_id, event.part), None)
        self._settle(row, self._refolded(row), event)

    # --- one encounter

    def _same_person(self, row: Row, event: Event) -> bool:
        return event.patient is None or self.register.root(event.patient) == row.patient_id

    def _advance(self, row: Row, event: Event, *, replaces: bool) -> None:
        direct = in_order(row.folded, event)
        if row.history is not None:
            if replaces:
                identity = (event.message_id, event.part)
                direct = direct and identity not in row.history
                row.history[identity] = event
            begins = row.folded.last is None and bool(self.statements.get(row.patient_id))
            direct = direct and not begins and not row.stale
            row.stale = False
        folded = step(row.folded, event)[0] if direct else self._refolded(row)
        self._settle(row, folded, event)

    def _refolded(self, row: Row) -> Folded:
        assert row.history is not None, "an encounter folds anew without its history"
        folded = fold(row.visit, [*row.history.values(), *self.statements.get(row.patient_id, ())])
        return kept(row.folded, folded)

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

    def _state(self, record: EventRecord) -> None:
        """An event about the person: merges first, then what it says, for every visit that is open or just closed."""
        event = record.summary
        assert event.patient is not None
        for merge in event.merges:
            prior, surviving = self.register.root(merge.prior), self.register.root(merge.surviving)
            match self.register.merge(merge):
                case Merged.DONE:
                    self.merged.append((event, prior, surviving))
                    self._join(prior, surviving)
                case Merged.REFUSED:
                    summary = "A merge was refused: it is circular or reverses an earlier one."
                    subject = f"{merge.prior.patient_id}|{merge.surviving.patient_id}"
                    self._work(WorkKind.MERGE_REFUSED, subject, summary, event, None)
        root = self.register.root(event.patient)
        self.register.stated(event.patient)
        self.statements.setdefault(root, []).append(event)
        self.stated.append((patient_id_of(event.patient), record))
        for row in self.rows.values():
            if row.patient_id == root and row.folded.last is not None and _still_watched(row.folded, event):
                self._advance(row, event, replaces=False)

    def _join(self, prior: PatientId, surviving: PatientId) -> None:
        self.statements.setdefault(surviving, []).extend(self.statements.pop(prior, ()))
        for row in self.rows.values():
            if row.patient_id == prior:
                row.patient_id = surviving
                row.touched = row.stale = True
            elif row.patient_id == surviving:
                row.stale = True

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

    def tracked(self) -> list[TrackedEncounter]:
        """The encounters that were touched and of which anything is known, in the order of their ids."""
        return [
            self._tracked(row)
            for _, row in sorted(self.rows.items())
            if row.event is not None and row.folded.state is not EncounterState.NONE
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
        )


def _without_person(event: Event) -> Event:
    return msgspec.structs.replace(event, patient_facts=UNSET, flags=(*event.flags, "patient_contradicts_visit"))


def _still_watched(folded: Folded, event: Event) -> bool:
    return folded.closed_at is None or event.recorded.at - folded.closed_at <= WATCHED_AFTER_CLOSE
