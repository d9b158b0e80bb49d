"""Owns tracking in PostgreSQL: repeats dropped, rows locked, events folded, all written in the caller's transaction.

The number of statements does not depend on the size of the batch. `postgres_rows` has the rows and their locks.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import asyncpg
import msgspec

from tocengine.encounters.audited import audited
from tocengine.encounters.holdback import HeldBack, Window
from tocengine.encounters.identity import Register
from tocengine.encounters.postgres_due import AT_ONCE, StaleAfter, fire_due, store_due
from tocengine.encounters.postgres_held import count_waiting, read_ended, read_waiting, store_waiting, take_out
from tocengine.encounters.postgres_identity import (
    know,
    lock_register,
    read_account_edges,
    read_statements,
    read_visit_edges,
)
from tocengine.encounters.postgres_rows import (
    SQL,
    checked,
    former_homes,
    leave_homes,
    lock_encounters,
    mark_fresh,
    problem,
    read_history,
    store_transitions,
    write_batch,
)
from tocengine.encounters.refolding import named_in, refolding
from tocengine.encounters.tracker import Batch
from tocengine.errors import EventDataError
from tocengine.formats.fhir.chart import overlay, renamed
from tocengine.formats.packing import pack, unpack
from tocengine.model.encounter import Snapshot, TrackedEncounter, Transition
from tocengine.model.event import EventRecord, Processing
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, MessageId, SnapshotId
from tocengine.model.time import Timestamp
from tocengine.ports import (
    AuditTrail,
    ClosableWorkItems,
    DestinationResolver,
    LogRecord,
    Transaction,
    TransitionRecords,
)

ENGINE = "tocengine"
"""Who closes what has settled itself."""

_encode = msgspec.json.Encoder().encode

DATA_ERRORS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, UnicodeError, OverflowError, ValueError)
"""What PostgreSQL or an encoder says of a value it cannot hold: the event's own fault, never an outage."""


class ChartEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the chart needs of a stored event: its place in the canonical order, and what it deleted."""

    message_id: MessageId
    recorded: Timestamp
    received_at: datetime
    sequence: int | None = None
    processing: Processing = Processing.PRODUCTION
    cleared: tuple[str, ...] = ()
    patient: PatientKey | None = None
    visit: VisitKey | None = None

    @property
    def order_key(self) -> tuple[datetime, int, datetime, str]:
        """As `Event.order_key`."""
        return self.recorded.at, self.sequence or 0, self.received_at, self.message_id.hex


_decode_chart_entry = msgspec.json.Decoder(ChartEntry).decode


class PostgresTracker:
    """Implements `ports.Tracker`. One instance serves one routing loop: `track` and then `store` of the same batch."""

    def __init__(
        self,
        resolver: DestinationResolver,
        work_items: ClosableWorkItems,
        records: TransitionRecords,
        audit: AuditTrail | None = None,
        window: Window | None = None,
        stale_after: StaleAfter | None = None,
    ) -> None:
        self._stale_after = stale_after or {}
        self._window = window or Window()
        self._resolver, self._work_items, self._records, self._audit = resolver, work_items, records, audit
        self._charts: dict[SnapshotId, bytes] = {}  # of the batch under way: charts of a single event, as they came
        self._batch: Batch | None = None

    async def track(
        self, transaction: Transaction, events: Sequence[EventRecord], now: datetime, *, hold: bool = True
    ) -> Sequence[TrackedEncounter]:
        """The encounters `events` touched, in the order of their ids. Repeats are dropped and audited.

        What is obviously early is held back, and what was held back before is applied once its window has ended or
        what it presupposes has come; with `hold` False neither happens, so that each event answers for itself. An event
        with `released_at` was held back (`ended`) and is applied now.

        Raises EventDataError where an event's own data makes it impossible to track; the transaction is then of no
        use. What asyncpg raises for an outage passes through.
        """
        self._charts.clear()
        try:
            return await self._track(transaction, events, now, hold)
        except DATA_ERRORS as error:
            raise EventDataError(problem("data_rejected", type(error).__name__)) from error

    async def _track(
        self, transaction: Transaction, events: Sequence[EventRecord], now: datetime, hold: bool
    ) -> Sequence[TrackedEncounter]:
        records = [checked(record) for record in events]
        freed = await take_out(transaction, [record for record in records if record.summary.released_at])
        arrived = [record for record in records if not record.summary.released_at]
        fresh, repeats = await mark_fresh(transaction, arrived) if arrived else ([], [])
        handled = [*freed, *(record for record in fresh if record.summary.handled)]
        batch = await self._load(transaction, handled, now, hold)
        for record in handled:
            batch.add(record)
        await write_batch(transaction, batch, now)
        await self._write_held(transaction, batch)
        if batch.begun:
            await store_due(transaction, batch, self._stale_after)
        tracked = batch.tracked()
        self._batch = batch
        self._remember(batch, tracked)
        await self._publish_inside(transaction, batch)
        await self._ask(transaction, batch, now)
        if self._audit is not None:
            await self._audit.record(transaction, audited(batch, [*freed, *fresh], repeats, now))
        return tracked

    async def _ask(self, transaction: Transaction, batch: Batch, now: datetime) -> None:
        """Asks a person what the batch could not settle, and takes back what has settled itself."""
        questions = batch.questions
        for kind in sorted({kind for kind, _ in questions.closed}):
            subjects = [subject for each, subject in questions.closed if each is kind]
            await self._work_items.close_subjects(transaction, kind, subjects, ENGINE, "settled by a message", now)
        if questions.items:
            await self._work_items.open(transaction, questions.items)

    async def store(
        self, transaction: Transaction, snapshots: Sequence[Snapshot], transitions: Sequence[Transition]
    ) -> None:
        """Keeps `snapshots` with their charts, `transitions`, and the outbox rows that publish them.

        `snapshots` holds every one that a transition or a notice refers to.
        """
        charts = await self._charts_of(transaction, snapshots)
        if snapshots:
            await transaction.execute(
                SQL["store_snapshots"],
                [snapshot.snapshot_id for snapshot in snapshots],
                [snapshot.encounter_id for snapshot in snapshots],
                [pack(_encode(snapshot)) for snapshot in snapshots],
                [pack(charts[snapshot.snapshot_id]) for snapshot in snapshots],
                [snapshot.received_at for snapshot in snapshots],
            )
        by_id = {snapshot.snapshot_id: snapshot for snapshot in snapshots}
        published = [
            self._records.transition(transition, by_id[transition.snapshot_id], charts[transition.snapshot_id])
            for transition in transitions
            if transition.snapshot_id is not None
        ]
        await store_transitions(transaction, transitions, published)

    async def remind(self, transaction: Transaction, now: datetime) -> int:
        """Asks a person about what has not come in time by `now`; returns how many visits were looked at."""
        return await fire_due(transaction, self._work_items, self._stale_after, now)

    async def recall(self, transaction: Transaction, now: datetime) -> Sequence[TrackedEncounter] | None:
        """Encounters of which has to be decided anew who is told what, as they stand, locked; some at once, and
        None where there are none. One whose messages are no longer kept is not among them."""
        taken = [EncounterId(row["encounter_id"]) for row in await transaction.fetch(SQL["take_telling"], now, AT_ONCE)]
        if not taken:
            return None
        register = Register([])
        rows = await lock_encounters(transaction, (), register, dict.fromkeys(taken), (), now)
        await read_history(transaction, rows, set(rows))
        batch = Batch(rows, register, {}, self._resolver, now)
        roots = sorted({batch.root_of(encounter_id) for encounter_id in taken if encounter_id in rows})
        found = (batch.recall(encounter_id) for encounter_id in roots)
        return [tracked for tracked in found if tracked is not None]

    # --- hold-back

    async def window_ended(self, transaction: Transaction, now: datetime) -> bool:
        """Whether anything is held back whose window has ended by `now`, on whatever partition."""
        return bool(await transaction.fetchval(SQL["window_ended"], now))

    async def ended(self, transaction: Transaction, until: Mapping[int, datetime]) -> Sequence[EventRecord]:
        """The events held back whose window has ended by `until`, by partition, as `track` takes them, in order."""
        return await read_ended(transaction, until)

    async def forget(self, transaction: Transaction, events: Sequence[tuple[MessageId, int]]) -> None:
        """Events (message id, part) that were held back are set aside: as if they had never been tracked."""
        await transaction.execute(SQL["forget_held"], [event[0] for event in events], [event[1] for event in events])

    async def _write_held(self, transaction: Transaction, batch: Batch) -> None:
        await store_waiting(transaction, batch.held.waiting)
        if batch.held.gone:
            await take_out(transaction, [each.record for each in batch.held.gone])

    # --- loading

    async def _load(self, transaction: Transaction, records: Sequence[EventRecord], now: datetime, hold: bool) -> Batch:
        window = self._window if hold else Window()
        waiting = await read_waiting(transaction, records) if window.by_feed else []
        events = [*(each.record.summary for each in waiting), *(record.summary for record in records)]
        homes = await former_homes(transaction, events)
        register = await lock_register(transaction, events, now)
        visit_edges = await read_visit_edges(transaction, events)
        rows = await lock_encounters(transaction, events, register, homes, visit_edges, now)
        late, stated, some_may_wait = refolding(rows, events, register, window)
        late |= homes.keys() & rows.keys()
        for each in waiting:
            if each.encounter_id in rows:  # a move waits under its own id
                late |= {each.encounter_id, rows[each.encounter_id].root_id}
        room = window.most - await count_waiting(transaction) if some_may_wait else 0
        if late:
            await read_history(transaction, rows, late)
            named = named_in(rows, late)
            await know(transaction, register, named)
            stated |= {root for root in map(register.root_of, named) if register.statements(root)}
        statements = await read_statements(transaction, register, stated, now)
        accounts = await read_account_edges(transaction, events, statements.values())
        batch = Batch(
            rows, register, statements, self._resolver, now, visit_edges, accounts, HeldBack(window, waiting, room)
        )
        await leave_homes(transaction, batch, events, homes)
        return batch

    # --- charts

    def _remember(self, batch: Batch, tracked: Iterable[TrackedEncounter]) -> None:
        """A chart of one event is that event's content; it need not be read back."""
        alone = {stored.encounter_id: stored.record for stored in batch.stored if not stored.linked}
        for encounter in tracked:
            row = batch.rows[encounter.encounter_id]
            record = alone.get(encounter.encounter_id)
            if record is None or row.folded.events != 1:
                continue
            patient = record.summary.patient
            if record.summary.visit == row.visit and patient and patient.patient_id == row.patient_id:
                self._charts[encounter.snapshot.snapshot_id] = bytes(record.fhir)

    async def _charts_of(self, transaction: Transaction, snapshots: Iterable[Snapshot]) -> dict[SnapshotId, bytes]:
        charts = {s.snapshot_id: self._charts[s.snapshot_id] for s in snapshots if s.snapshot_id in self._charts}
        missing = {s.encounter_id: s.snapshot_id for s in snapshots if s.snapshot_id not in charts}
        if not missing:
            return charts
        found: dict[EncounterId, list[tuple[ChartEntry, bytes]]] = {encounter_id: [] for encounter_id in missing}
        assert self._batch is not None, "a chart is made in the batch that tracked its encounter"
        numbers = [(number, each) for each in missing for number in self._batch.numbers_of(each)]
        for row in await transaction.fetch(
            SQL["read_chart"], list(missing), [number for number, _ in numbers], [each for _, each in numbers]
        ):
            found[row["encounter_id"]].append((_decode_chart_entry(unpack(row["summary"])), unpack(row["fhir"])))
        for encounter_id, entries in found.items():
            real = [entry for entry in entries if entry[0].processing is not Processing.TEST] or entries
            real.sort(key=lambda entry: entry[0].order_key)
            charts[missing[encounter_id]] = overlay(
                [self._of(encounter_id, said.patient, said.visit, said.recorded.at, fhir) for said, fhir in real],
                [said.cleared for said, _ in real],
            )
        return charts

    def _of(
        self, encounter_id: EncounterId, patient: PatientKey | None, visit: VisitKey | None, at: datetime, fhir: bytes
    ) -> bytes:
        """An event's content as part of the chart of an encounter: under the numbers that survive, and without what it
        says of anybody else."""
        assert self._batch is not None
        row = self._batch.rows[encounter_id]
        names = {}
        if visit is not None and visit != row.visit:
            names[str(visit.encounter_id)] = str(encounter_id)
        theirs = True
        if patient is not None and patient.patient_id != row.patient_id:
            names[str(patient.patient_id)] = str(row.patient_id)
            theirs = self._batch.register.person(patient.patient_id, at) == row.patient_id
        return renamed(fhir, names, with_person=theirs) if names else fhir

    async def _publish_inside(self, transaction: Transaction, batch: Batch) -> None:
        """Bed moves and leaves go to the topic with their own message's content, and to nobody else."""
        content = {(batch.root_of(s.encounter_id), s.record.summary.message_id): s.record for s in batch.stored}
        transitions: list[Transition] = []
        published: list[LogRecord] = []
        for row in batch.rows.values():
            for transition in row.inside:
                transitions.append(transition)
                record = content[row.encounter_id, transition.message_id]
                said = record.summary
                fhir = self._of(row.encounter_id, said.patient, said.visit, said.recorded.at, bytes(record.fhir))
                published.append(
                    self._records.transition(transition, row.snapshot(batch.register.keys(row.patient_id)[0]), fhir)
                )
        await store_transitions(transaction, transitions, published)
