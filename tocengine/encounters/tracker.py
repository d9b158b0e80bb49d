"""Owns the tracking of a batch in memory: which encounters an event touches, and what it changes about each. Pure.

`postgres` brings the rows, locked, and writes back what `Batch` leaves behind. Events are taken one by one in the
order of the log, so that where one batch ends and the next begins never shows in the result.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET

from tocengine.encounters.due import DueKind, begins
from tocengine.encounters.edges import Edge, keys_of, moved_from, moved_to, moves_of, rekeys
from tocengine.encounters.facts import Resolver
from tocengine.encounters.fold import diff, fold, in_order, step
from tocengine.encounters.holdback import HeldBack, Window, partition_of
from tocengine.encounters.identity import Register
from tocengine.encounters.joining import bears, concerns_others, kept, related
from tocengine.encounters.machine import WATCHED_AFTER_CLOSE
from tocengine.encounters.ownership import CONTRADICTS, owned, without_person
from tocengine.encounters.questions import Questions
from tocengine.encounters.rekeying import Rekeying
from tocengine.encounters.rows import EventId, Row, Stored, is_statement, root_row, visits_of
from tocengine.encounters.snapshots import inside_kind, inside_transition
from tocengine.encounters.state import SILENT, Folded
from tocengine.model.encounter import EncounterState, TrackedEncounter
from tocengine.model.event import Event, EventRecord
from tocengine.model.facts import Marks, standing, strictest
from tocengine.model.ids import EncounterId, PatientId


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
        self.questions = Questions(now)
        self.rekeying = Rekeying(rows, register, visits, accounts, self.questions)
        self._by_patient: dict[PatientId, list[Row]] | None = None  # as far as it is known and still right
        self.stored: list[Stored] = []
        self.stated: list[tuple[PatientId, EventRecord]] = []
        self.moved: dict[EncounterId, tuple[PatientId, PatientId]] = {}  # from one person's number to another's
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
        if held.window.of(event):
            row = self._row_of(event)
            if row is not None and event.visit and held.takes(row.folded, record, event.visit.encounter_id):
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
        home = event.visit.encounter_id
        while ready := self.held.next_ready(home, row.folded, event.known_since):
            self._apply(ready)

    def _moves_between_people(self, event: Event) -> bool:
        """Whether an event moves something to another person, who may turn out to be the same within the window:
        senders move visits inside a merge (A43-A45, domain 2.1). It waits under its own id, for nothing but that."""
        moves = moves_of(event) if rekeys(event) else ()
        return any(self.register.root(move.prior) != self.register.root(move.surviving) for move in moves)

    def _row_of(self, event: Event) -> Row | None:
        if event.visit is None or event.visit.encounter_id not in self.rows:
            return None
        return root_row(self.rows, event.visit)

    def _apply(self, record: EventRecord) -> None:
        event = record.summary
        rekeyed: set[EncounterId] = set()
        owners: dict[EncounterId, PatientId] = {}
        if rekeys(event):
            owners = self._owners()
            rekeyed, self._by_patient = self.rekeying.take_in(event), None
        if is_statement(event):
            self._state(record, rekeyed)
        renewed: set[PatientId] = set()
        own: Row | None = None
        for visit in visits_of(event):
            home = self.rows[visit.encounter_id]
            row = home if home.survivor_id is None else self.rows[home.survivor_id]
            if own is None:
                own = row
            before, owner = row.folded, row.patient_id
            self._advance(row, event, home, anew=row.encounter_id in rekeyed)
            if before.last is not None and row.patient_id != owner:
                renewed |= {owner, row.patient_id}
            elif bears(before, row.folded):
                renewed.add(row.patient_id)
            self.stored.append(Stored(home.encounter_id, record, visit != event.visit))
        if own is None:
            own = self._row_of(event)
        if own is not None and own.patient_id not in renewed and concerns_others(event):
            self._relate({own.patient_id}, event, own)
        if rekeyed:
            renewed |= {self.register.root(key) for key in keys_of(event)}
            renewed |= {self.rows[each].patient_id for each in rekeyed}
        if owners:
            renewed |= {owner for _, owner in owners.items() - self._owners().items()}  # who lost a visit by it
        self._relate(renewed, event)

    def _relate(self, patients: Collection[PatientId], event: Event, own: Row | None = None) -> None:
        """Renews what the visits of patients make of each other, the event's own one first."""
        for patient_id in sorted(patients) if len(patients) > 1 else patients:
            rows = [row for row in self._rows_of(patient_id) if row.survivor_id is None]
            if own is not None and len(rows) == 1:
                continue
            for row in sorted(rows, key=lambda row: row is not own):
                folded = related(row.folded, [other.folded for other in rows if other is not row])
                if folded is not row.folded:
                    self._settle(row, folded, event)

    def _rows_of(self, patient_id: PatientId) -> Sequence[Row]:
        if self._by_patient is None:
            self._by_patient = {}
            for row in self.rows.values():
                self._by_patient.setdefault(row.patient_id, []).append(row)
        return self._by_patient.get(patient_id, ())

    def _owners(self) -> dict[EncounterId, PatientId]:
        """Whose each visit is that stands for itself."""
        return {row.encounter_id: row.patient_id for row in self.rows.values() if row.survivor_id is None}

    def _belongs(self, row: Row, owner: PatientId) -> None:
        """Files `row` under the number `owner`."""
        row.owner_id, patient_id = owner, self.register.root_of(owner)
        if row.patient_id != patient_id:
            row.patient_id, self._by_patient = patient_id, None

    def remove(self, encounter_id: EncounterId, event: Event) -> None:
        """Takes an earlier revision of `event` out of an encounter it no longer belongs to."""
        home = self.rows[encounter_id]
        row = home if home.survivor_id is None else self.rows[home.survivor_id]
        assert home.history is not None
        home.history.pop((event.message_id, event.part), None)
        self._settle(row, self._refolded(row, event), event)

    # --- one encounter

    def _advance(self, row: Row, event: Event, home: Row | None = None, *, anew: bool = False) -> None:
        """Applies `event` to `row`, or folds it anew; `home` is where the event is kept, None for a statement."""
        direct = in_order(row.folded, event) and not row.undescribed and not anew
        if row.history is not None and event.patient is not None and row.folded.last is not None:
            direct = direct and self.register.root(event.patient) == row.patient_id
        if row.history is not None:
            if home is not None:
                assert home.history is not None
                identity = (event.message_id, event.part)
                direct = direct and identity not in home.history
                home.history[identity] = event
            direct = direct and not (row.folded.last is None and self._statements_of(row))
        folded = step(row.folded, self._meant(row, event))[0] if direct else self._refolded(row, event)
        self._settle(row, folded, event)

    def _meant(self, row: Row, event: Event) -> Event:
        """What an event in order means for `row`: under its own key, and without what is said of another person."""
        if event.visit is None:
            return event
        own = event.visit == row.visit
        if not own:
            home = self.rows.get(event.visit.encounter_id)
            if home is None or home.survivor_id != row.encounter_id:
                return event  # of another visit, which names this one
            event = msgspec.structs.replace(event, visit=row.visit)
        if event.patient is None:
            return event
        number = event.patient.patient_id
        if row.folded.last is None:
            self._belongs(row, number)
        if self.register.person(number, event.recorded.at) == row.patient_id:
            return event
        return without_person(event, CONTRADICTS if own else "")

    def _names(self, row: Row) -> list[EncounterId]:
        aliases = [each.encounter_id for each in self.rows.values() if each.survivor_id == row.encounter_id]
        return [row.encounter_id, *aliases] if aliases else [row.encounter_id]

    def _refolded(self, row: Row, event: Event) -> Folded:
        members = [self.rows[encounter_id] for encounter_id in self._names(row)]
        history: dict[EventId, Event] = {}
        for member in reversed(members):
            assert member.history is not None, "an encounter folds anew without its history"
            history.update(member.history)
        visits = {member.visit for member in members}
        found = owned(
            row.visit, visits, history.values(), self._statements_of(row), self.register, self.rekeying.accounts
        )  # fmt: skip
        if found.owner is not None and found.owner != row.owner_id:
            if self.register.root_of(found.owner) != self.register.root_of(row.owner_id):
                self.moved[row.encounter_id] = self.moved.get(row.encounter_id, (row.owner_id,))[0], found.owner
            row.owner_id = found.owner
        self._belongs(row, row.owner_id)
        if found.move_refused and (row.folded.last is None or row.undescribed):
            self.questions.move_refused(row, event)  # it came before the visit's own messages
        elif found.move_refused is False:
            self.questions.move_done(row)
        for account in found.moved_with:
            self.questions.account_moved(account)
        return kept(row.folded, fold(row.visit, found.events))

    def _statements_of(self, row: Row) -> list[Event]:
        """What was said of anybody the visit is, or was, filed under."""
        if not self.statements:
            return []
        history = [event for each in self._names(row) for event in (self.rows[each].history or {}).values()]
        numbers = {row.owner_id, *(event.patient.patient_id for event in history if event.patient)}
        found: list[Event] = []
        seen: set[PatientId] = set()
        while numbers:
            for number in {each for known in numbers for each in self.register.family(self.register.root_of(known))}:
                if number not in seen:
                    seen.add(number)
                    found += self.statements.get(number, ())
            numbers = {key.patient_id for event in found for key in moved_to(event)} - seen
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
        self.questions.flagged(row, before.flags, folded.flags, event)

    # --- patients

    def _state(self, record: EventRecord, rekeyed: Collection[EncounterId]) -> None:
        """What an event says of a person, for every visit that is open or just closed; `rekeyed` fold anew by it."""
        event = record.summary
        assert event.patient is not None
        for number in dict.fromkeys(key.patient_id for key in (event.patient, *moved_from(event))):
            self.register.stated(number)
            self.statements.setdefault(number, []).append(event)
            self.stated.append((number, record))
        for encounter_id in sorted(rekeyed):
            row = self.rows[encounter_id]
            if row.survivor_id is None:
                self._settle(row, self._refolded(row, event), event)
        self.rekeying.refuse_moves(event)
        meant = self.register.person(event.patient.patient_id, event.recorded.at)
        for row in self.rows.values():
            about = row.patient_id == meant and row.survivor_id is None and row.encounter_id not in rekeyed
            if about and row.folded.last is not None and _still_watched(row.folded, event):
                self._advance(row, event)

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
            for row in sorted(self.rows.values(), key=lambda row: row.encounter_id.bytes)
            if row.event is not None and row.survivor_id is None and row.folded.state is not EncounterState.NONE
        ]

    def recall(self, encounter_id: EncounterId) -> TrackedEncounter | None:
        """An encounter as it stands, without a message; `read_history` was called for it. None where its messages are
        no longer kept."""
        row = self.rows[self.root_of(encounter_id)]
        said = [event for each in self._names(row) for event in (self.rows[each].history or {}).values()]
        row.event = max(said, key=lambda event: event.order_key, default=None)
        return self._tracked(row) if row.event is not None else None

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
            facts=tuple([entry.fact for entry in row.body.announced]),
            cancelled=tuple(row.cancelled),
            transitions=tuple([replaced(t, snapshot_id=snapshot.snapshot_id) for t in row.transitions]),
            sensitivity=tuple(sorted({*folded.sensitivity, *began.sensitivity})) if began else folded.sensitivity,
            part2=folded.part2 or bool(began and began.part2),
            marks=_marks(folded),
            deceased=folded.expired is not None or folded.dead_on_arrival,
            suppressed=min(row.silences, default=""),
            shadow=folded.shadow,
            message_ids=tuple(dict.fromkeys(row.message_ids)),
            adopted=row.body.adopted,
            number_ids=tuple(self.register.person_numbers(row.patient_id)),
            moved_keys=self.register.moved_keys(row.patient_id),
            rekeyed=row.rekeyed,
            parted=row.parted,
        )


def _still_watched(folded: Folded, event: Event) -> bool:
    return folded.closed_at is None or event.recorded.at - folded.closed_at <= WATCHED_AFTER_CLOSE


def _marks(folded: Folded) -> Marks:
    """Of patient and visit, and of the ED visit that it began as, except what was lifted from the patient here."""
    here, began = folded.patient.marks, folded.began_as
    lifted = () if here is UNSET else [mark for mark, effect in here.items() if effect is None]
    inherited = {mark: effect for mark, effect in began.marks.items() if mark not in lifted} if began else {}
    return strictest(inherited, standing(folded.patient, folded.encounter))
