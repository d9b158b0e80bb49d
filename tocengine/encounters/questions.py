"""Owns what a batch asks of a person, and which earlier questions have answered themselves. Pure."""

from datetime import datetime

from tocengine.encounters.ownership import CONTRADICTS
from tocengine.encounters.rows import Row
from tocengine.model.event import Event
from tocengine.model.identity import AccountKey
from tocengine.model.work import WorkItem, WorkKind

FOR_A_PERSON = {
    "discharge_facts_cleared_by_update": "An update emptied discharge data, which only a cancellation may; ignored.",
    "inpatient_closed_as_admitted": "An inpatient stay was closed with disposition 09; no discharge was told.",
    "names_unknown_movement": "A message cancels or changes a movement that is not known; nothing was changed.",
    CONTRADICTS: "A message of this visit names another patient; its patient data was not used.",
}
"""Flags that only a person can settle, each with the sentence of its work item."""

K = WorkKind


class Questions:
    """`items` are the work items to open, `closed` the kind and subject of those whose cause is gone. A question that
    arises and answers itself within the batch is never asked."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._items: dict[tuple[WorkKind, str], WorkItem] = {}
        self.closed: dict[tuple[WorkKind, str], None] = {}

    @property
    def items(self) -> list[WorkItem]:
        """What to open."""
        return list(self._items.values())

    def ask(self, kind: WorkKind, subject: str, summary: str, event: Event, row: Row | None = None) -> None:
        """Opens a work item: its sentence, the event that led to it, the encounter it is about."""
        self.closed.pop((kind, subject), None)
        self._items[kind, subject] = WorkItem(
            kind=kind,
            subject=subject,
            summary=summary,
            opened_at=self._now,
            feed=event.feed,
            message_id=event.message_id,
            encounter_id=row.encounter_id if row else None,
        )

    def close(self, kind: WorkKind, subject: str) -> None:
        """The cause of a work item is gone."""
        self._items.pop((kind, subject), None)
        self.closed[kind, subject] = None

    def flagged(self, row: Row, before: tuple[str, ...], after: tuple[str, ...], event: Event) -> None:
        """What the flags of an encounter that came ask, and those that went no longer do."""
        if before == after:
            return
        was, now = set(before) & FOR_A_PERSON.keys(), set(after) & FOR_A_PERSON.keys()
        for flag in sorted(now - was):
            self.ask(K.ENCOUNTER_FLAGGED, f"{row.encounter_id}|{flag}", FOR_A_PERSON[flag], event, row)
        for flag in was - now:
            self.close(K.ENCOUNTER_FLAGGED, f"{row.encounter_id}|{flag}")

    def move_refused(self, row: Row, event: Event) -> None:
        """A move names a patient whose visit it is not."""
        summary = "A move was refused: it names a patient whose visit it is not."
        self.ask(K.MERGE_REFUSED, f"{row.encounter_id}|move", summary, event, row)

    def account_not_moved(self, account: AccountKey, event: Event) -> None:
        """A move names an account of which no visit could be moved: another patient's, or none that is known."""
        summary = "A move of an account was refused: no visit of its patients is under that account."
        self.ask(K.MERGE_REFUSED, f"{account.account_id}|move", summary, event)

    def account_moved(self, account: AccountKey) -> None:
        """A visit was moved with its account."""
        self.close(K.MERGE_REFUSED, f"{account.account_id}|move")

    def move_done(self, row: Row) -> None:
        """The last move of a visit was done, whatever was refused before."""
        self.close(K.MERGE_REFUSED, f"{row.encounter_id}|move")
