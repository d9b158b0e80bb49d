"""Owns one encounter in the hands of a batch, and which encounters and people an event is about. Pure."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from tocengine.encounters.snapshots import snapshot_of
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.encounters.steps import link_of
from tocengine.model.encounter import Fact, Snapshot, Transition, TransitionKind
from tocengine.model.event import Event, EventRecord, Processing
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, MessageId, PatientId

EventId = tuple[UUID, int]
"""(message id, part): what a re-normalized event replaces."""


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
    parted: bool = False  # a merge that had been done is refused now: numbers are no longer its patient's
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
        folded = self.body.folded
        return folded.last is not None and not folded.feed

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
    row = rows[visit.encounter_id]
    return row if row.survivor_id is None else rows[row.survivor_id]
