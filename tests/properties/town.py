"""Owns a hospital's day in memory: the tracker's and the router's own code, and what PostgreSQL would keep between two
batches. A batch is given no more history than it says it needs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import msgspec

from tests.fixtures.visits import FHIR
from tests.unit.routing.building import POLICY, ledger_row, recipient
from tocengine.encounters.edges import Edge, EdgeKind, keys_of, merges_patients, rekeyed_visits, visit_edges
from tocengine.encounters.holdback import HeldBack, Waiting, Window
from tocengine.encounters.identity import Patient, Register
from tocengine.encounters.refolding import named_in, refolding
from tocengine.encounters.rows import EventId, Row, visits_of
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.encounters.tracker import Batch
from tocengine.model.encounter import Fact, TrackedEncounter, TransitionKind, TransitionStatus
from tocengine.model.event import Event, EventRecord
from tocengine.model.ids import EncounterId, PatientId, RecipientId
from tocengine.model.notice import Notice, NoticeState
from tocengine.routing.directory import Directory
from tocengine.routing.ledger import NOBODY, Entry, Ledger, LedgerRow, fold, with_adopted
from tocengine.routing.matching import PanelHit, identifiers, match
from tocengine.routing.router import decide
from tocengine.routing.rulings import Ruling

HOMES = {number: RecipientId(f"facility:home-{number.lower()}") for number in "ABCD"}
"""Each patient number is on the panel of a nursing home of its own."""
SUNNYSIDE, MEADOW = RecipientId("facility:sunnyside"), RecipientId("facility:meadow")
DIRECTORY = Directory(
    1,
    (
        *(recipient(home) for home in HOMES.values()),
        recipient(SUNNYSIDE, aliases=("SUNNYSIDE REHAB",)),
        recipient(MEADOW, aliases=("MEADOW",)),
    ),
)
SAYS_NO_MORE = (TransitionStatus.CANCELLED, TransitionStatus.RETRACTED)
Holding: TypeAlias = dict[tuple[RecipientId, TransitionKind, int], bytes]
Kept: TypeAlias = dict[EncounterId, list[LedgerRow]]


class Town:
    """`take` is one batch of the log, routed; `deliver` lets what waits reach its recipients."""

    def __init__(self, window: Window | None = None) -> None:
        self.window = window or Window()
        self.patients: dict[PatientId, Patient] = {}
        self.edges: list[Edge] = []
        self.rows: dict[EncounterId, Row] = {}
        self.histories: dict[EncounterId, dict[EventId, Event]] = defaultdict(dict)
        self.statements: dict[PatientId, dict[EventId, Event]] = defaultdict(dict)
        self.waiting: list[Waiting] = []
        self.seen: set[tuple[UUID, int, int]] = set()
        self.decisions: Kept = {}
        self.notices: dict[UUID, Notice] = {}
        self.states: dict[UUID, tuple[NoticeState, bool]] = {}

    def take(self, *events: Event) -> None:
        """Tracks and routes a batch."""
        fresh: list[Event] = []
        for event in events:
            key = (event.message_id, event.part, event.revision)
            if key not in self.seen:
                self.seen.add(key)
                fresh.append(event)
        if not fresh:
            return
        batch = self._load(fresh)
        for event in fresh:
            batch.add(EventRecord(event, FHIR))
        self._write(batch)
        for tracked in batch.tracked():
            self._route(tracked, batch.now)

    def _load(self, events: Sequence[Event]) -> Batch:
        coming = [*(each.record.summary for each in self.waiting), *events]
        for event in coming:
            for key in keys_of(event):
                self.patients.setdefault(key.patient_id, Patient(patient_id=key.patient_id, key=key))
        regrouping = any(merges_patients(event) for event in coming)
        register = Register(
            [msgspec.structs.replace(patient) for patient in self.patients.values()],
            self._edges(EdgeKind.PATIENT) if regrouping else (),
        )
        for event in coming:
            for visit in (*visits_of(event), *rekeyed_visits(event)):
                if visit.encounter_id not in self.rows and event.patient is not None:
                    owner = event.patient.patient_id
                    body = EncounterBody(folded=Folded(visit=visit))
                    self.rows[visit.encounter_id] = Row(
                        encounter_id=visit.encounter_id, visit=visit, owner_id=owner, patient_id=owner, body=body
                    )
        rows = {
            encounter_id: Row(
                encounter_id=encounter_id,
                visit=row.visit,
                owner_id=row.owner_id,
                patient_id=register.root_of(row.owner_id),
                survivor_id=row.survivor_id,
                body=row.body,
            )
            for encounter_id, row in self.rows.items()
        }
        late, stated, _ = refolding(rows, coming, register, self.window)
        for each in self.waiting:
            if each.encounter_id in rows:
                late |= {each.encounter_id, rows[each.encounter_id].root_id}
        for encounter_id in late:
            rows[encounter_id].history = dict(self.histories[encounter_id])
        stated |= {root for root in map(register.root_of, named_in(rows, late)) if register.statements(root)}
        return Batch(
            rows,
            register,
            {number: list(said.values()) for number, said in self.statements.items()} if stated else {},
            DIRECTORY,
            max(event.received_at for event in events),
            self._edges(EdgeKind.VISIT) if any(visit_edges(event) for event in coming) else (),
            self._edges(EdgeKind.ACCOUNT),
            HeldBack(self.window, [msgspec.structs.replace(each, stored=True) for each in self.waiting], 1000),
        )

    def _edges(self, kind: EdgeKind) -> list[Edge]:
        return [edge for edge in self.edges if edge.kind is kind]

    def _write(self, batch: Batch) -> None:
        for patient in batch.register.rows():
            self.patients[patient.patient_id] = patient
        again = {(event.message_id, event.part) for event, _ in batch.rekeying.edges if event.revision}
        self.edges = [edge for edge in self.edges if (edge.message_id, edge.part) not in again]
        self.edges += [edge for _, edge in batch.rekeying.edges]
        for encounter_id, row in batch.rows.items():
            if row.touched:
                self.rows[encounter_id] = row
        for stored in batch.stored:
            event = stored.record.summary
            self.histories[stored.encounter_id][event.message_id, event.part] = event
        for number, record in batch.stated:
            self.statements[number][record.summary.message_id, record.summary.part] = record.summary
        self.waiting = batch.held.waiting

    # --- routing

    def _route(self, tracked: TrackedEncounter, now: datetime) -> None:
        hits = [PanelHit(HOMES[key.value], key.domain) for key in identifiers(tracked) if key.value in HOMES]
        matches = match(tracked, tuple(hits), DIRECTORY, POLICY.facilities)
        rows = self._joined(tracked.encounter_id, *(each.encounter_id for each in tracked.adopted))
        ledger = fold(with_adopted(tracked.encounter_id, tracked.adopted, rows))
        for ruling in decide(tracked, matches, ledger, DIRECTORY, POLICY, now):
            self._keep(tracked, ruling)

    def _joined(self, *encounters: EncounterId) -> Kept:
        found: Kept = {}
        for encounter_id in dict.fromkeys(encounters):
            found[encounter_id] = []
            for row in self.decisions.get(encounter_id, ()):
                if row.notice_id is not None:
                    state, possibly_told = self.states[row.notice_id]
                    body = msgspec.json.encode(self.notices[row.notice_id])
                    row = msgspec.structs.replace(row, state=state, possibly_told=possibly_told, body=body)
                found[encounter_id].append(row)
        return found

    def _keep(self, tracked: TrackedEncounter, ruling: Ruling) -> None:
        if ruling.drop is not None:
            state, possibly_told = self.states[ruling.drop.notice_id]
            assert state is NoticeState.QUEUED
            assert not possibly_told
            self.states[ruling.drop.notice_id] = NoticeState.SUPERSEDED, False
        if ruling.notice is not None:
            assert ruling.notice.notice_id not in self.notices, "a notice id was made twice"
            self.notices[ruling.notice.notice_id] = ruling.notice
            self.states[ruling.notice.notice_id] = NoticeState.QUEUED, False
        decision = ruling.decision
        if decision is not None:
            row = ledger_row(ruling, decision, tracked.patient_id)
            self.decisions.setdefault(tracked.encounter_id, []).append(row)

    def deliver(self) -> None:
        """What waits is sent and arrives."""
        for notice_id, (state, _) in self.states.items():
            if state is NoticeState.QUEUED:
                self.states[notice_id] = NoticeState.DELIVERED, True

    # --- what is to be seen

    def surviving(self) -> list[Row]:
        """The encounters that count, in the order of their ids."""
        return [row for _, row in sorted(self.rows.items()) if row.survivor_id is None]

    def facts(self, row: Row) -> dict[tuple[TransitionKind, int], Fact]:
        """What stands of an encounter, as announced."""
        return {entry.fact.key: entry.fact for entry in row.body.announced}

    def ledger(self, row: Row) -> Ledger:
        """Where every recipient stands with every fact of an encounter."""
        adopted = row.body.adopted
        rows = self._joined(row.encounter_id, *(each.encounter_id for each in adopted))
        return fold(with_adopted(row.encounter_id, adopted, rows))

    def holding(self, row: Row) -> Holding:
        """What each recipient was told, or will be with what waits, and was not told otherwise."""
        found: Holding = {}
        for key, entry in self.ledger(row).items():
            watched = _held(entry)
            if key[0] != NOBODY and watched is not None:
                found[key] = watched
        return found

    def told(self) -> list[tuple[RecipientId, EncounterId, str, str]]:
        """Every notice that left or will, in order."""
        return [
            (notice.recipient_id, notice.encounter_id, notice.status.value, notice.kind.value)
            for notice_id, notice in self.notices.items()
            if self.states[notice_id][0] is not NoticeState.SUPERSEDED
        ]


def _held(entry: Entry) -> bytes | None:
    if entry.pending is not None:
        return None if entry.pending.status in SAYS_NO_MORE else entry.pending.watched
    return entry.told.watched if entry.told is not None else None


def state_of(town: Town) -> list[object]:
    """Who everybody is and what has become of every visit, whatever order it was heard in."""
    people = [
        (number, patient.survivor_id, patient.moved_from, patient.moved_at)
        for number, patient in sorted(town.patients.items())
    ]
    visits = [
        (encounter_id, row.survivor_id, row.survivor_id is None and (row.patient_id, row.body.folded))
        for encounter_id, row in sorted(town.rows.items())
        if row.body.folded.feed or row.survivor_id
    ]
    return [people, visits]


def batches(events: Sequence[Event], sizes: Iterable[int]) -> Iterable[Sequence[Event]]:
    """`events` cut by `sizes`, and what is left one by one."""
    start = 0
    for size in sizes:
        yield events[start : start + size]
        start += size
    for event in events[start:]:
        yield (event,)
