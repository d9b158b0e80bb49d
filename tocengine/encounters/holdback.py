"""Owns the hold-back window (domain 2.2): which messages are obviously early, and when one that waits is applied. Pure.

A message that presupposes something nobody has told us yet waits, stored, until that comes or its window ends. What
decides is the order of the log and the times of receipt in it, never how records were batched, so that a replay
decides the same.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from tocengine.encounters.matrix import cell_of
from tocengine.encounters.state import Folded
from tocengine.encounters.steps import class_said, step_of
from tocengine.model.encounter import EncounterState
from tocengine.model.event import Event, EventRecord, LoggedEvent, Processing
from tocengine.model.facts import PatientClass
from tocengine.model.ids import EncounterId, FeedName
from tocengine.model.message import ContentType

PRESUPPOSE_A_VISIT = frozenset({"A03", "A08", "A13"})
KNOWN_TO_BE_IN = frozenset({EncounterState.INPATIENT, EncounterState.ON_LEAVE, EncounterState.DISCHARGED})
"""States in which no discharge is early, whatever its class."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One event held back; `stored` says that it has a row already."""

    record: EventRecord
    encounter_id: EncounterId
    partition: int
    release_at: datetime
    stored: bool = False


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """How long each feed's early messages wait (nothing for a feed that is not named), and how many may at once."""

    by_feed: Mapping[FeedName, timedelta] = msgspec.field(default_factory=dict)
    most: int = 10_000  # per partition; what comes beyond is applied at once

    def of(self, event: Event) -> timedelta:
        """How long `event` would wait. A test, an initial load, a message read again and a FHIR bundle, which states
        its whole visit, never do."""
        waits = (
            event.processing is Processing.PRODUCTION
            and event.content_type is ContentType.HL7V2
            and not event.revision
            and event.released_at is None
        )
        return self.by_feed.get(event.feed, timedelta()) if waits else timedelta()


def is_early(folded: Folded, event: Event) -> bool:
    """Whether `event` presupposes what is not known: a visit, or for a discharge the state its class speaks of."""
    if event.trigger not in PRESUPPOSE_A_VISIT:
        return False
    if folded.state is EncounterState.NONE:
        return True
    cell = cell_of(folded.state, step_of(event, folded.visit))
    return event.trigger == "A03" and cell.flag == "implicit_open"


class Arrivals:
    """What the events of a batch, seen in their order before any is applied, make sure of about their visits."""

    def __init__(self) -> None:
        self._class: dict[EncounterId, PatientClass] = {}

    def may_wait(self, encounter_id: EncounterId, folded: Folded, event: Event) -> bool:
        """Whether `event` could turn out early when its turn comes; `folded` is the state before the batch."""
        trigger, arrived = event.trigger, self._class.get(encounter_id)
        if trigger in ("A01", "A04", "A06"):
            self._class[encounter_id] = class_said(event.encounter_facts)
        elif trigger in ("A07", "A11", "A23"):
            self._class.pop(encounter_id, None)
        if trigger not in PRESUPPOSE_A_VISIT:
            return False
        if trigger != "A03":
            return arrived is None and folded.state is EncounterState.NONE
        stated = class_said(event.encounter_facts)
        return folded.state not in KNOWN_TO_BE_IN and (arrived is None or arrived is not stated)


def partition_of(record: EventRecord) -> int:
    """The partition `record` was read from; 0 where it was not read from a log."""
    return record.partition if isinstance(record, LoggedEvent) else 0


def released(record: EventRecord, at: datetime) -> EventRecord:
    """`record` as it is applied, having waited until `at`."""
    return EventRecord(msgspec.structs.replace(record.summary, released_at=at), record.fhir)


class HeldBack:
    """The events that wait while a batch is applied: those of earlier batches, and those it holds back itself.

    `released` are the ones applied meanwhile, as they were applied; `gone` the rows that are no longer needed.
    """

    def __init__(self, window: Window, waiting: Iterable[Waiting] = (), room: int = 0) -> None:
        self.window, self.room = window, room
        self.waiting = list(waiting)
        self.released: list[EventRecord] = []
        self.gone: list[Waiting] = []

    def takes(self, folded: Folded, record: EventRecord, encounter_id: EncounterId) -> bool:
        """Whether `record` waits from now on."""
        return is_early(folded, record.summary) and self.holds(record, encounter_id)

    def holds(self, record: EventRecord, encounter_id: EncounterId) -> bool:
        """Whether there is a window and room for `record` to wait in: then it does."""
        event = record.summary
        waits = self.window.of(event)
        if not waits or self.room <= 0:
            return False
        self.room -= 1
        self.waiting.append(
            Waiting(
                record=record,
                encounter_id=encounter_id,
                partition=partition_of(record),
                release_at=event.received_at + waits,
            )
        )
        return True

    def next_ended(self, partition: int, now: datetime) -> EventRecord | None:
        """The next one whose window has ended when something is received on its partition at `now`."""
        found = [each for each in self.waiting if each.partition == partition and each.release_at <= now]
        first = min(found, key=lambda each: (each.release_at, each.record.summary.order_key), default=None)
        return None if first is None else self._release(first, first.release_at)

    def next_ready(self, encounter_id: EncounterId, folded: Folded, now: datetime) -> EventRecord | None:
        """The next one of an encounter that is no longer early, its predecessor having come at `now`."""
        found = [each for each in self.waiting if each.encounter_id == encounter_id]
        found = [each for each in found if not is_early(folded, each.record.summary)]
        first = min(found, key=lambda each: each.record.summary.order_key, default=None)
        return None if first is None else self._release(first, max(now, first.record.summary.received_at))

    def forget(self, event: Event) -> None:
        """Drops an earlier reading of the message that `event` is a later reading of."""
        identity = (event.message_id, event.part)
        for each in [w for w in self.waiting if (w.record.summary.message_id, w.record.summary.part) == identity]:
            self._remove(each)

    def _release(self, each: Waiting, at: datetime) -> EventRecord:
        self._remove(each)
        record = released(each.record, at)
        self.released.append(record)
        return record

    def _remove(self, each: Waiting) -> None:
        self.waiting.remove(each)
        self.room += 1
        if each.stored:
            self.gone.append(each)
