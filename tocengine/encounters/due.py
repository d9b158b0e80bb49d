"""Owns the rules that fire later (domain 2.2): what is asked of a person when something has not come in time. Pure.

A rule is a row with a due time, made when the visit gets into the situation. What it means is decided from the visit
as it is when the time has come, so that nothing needs to be taken back.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from tocengine.encounters.state import Folded
from tocengine.encounters.steps import says_converted
from tocengine.model.encounter import EncounterState
from tocengine.model.work import WorkKind

ADMISSION_WITHIN = timedelta(hours=6)
"""So long after an ED visit was closed as admitted (NUBC 09) its admission is waited for."""
OPEN = frozenset({EncounterState.ED, EncounterState.OBSERVATION, EncounterState.INPATIENT, EncounterState.ON_LEAVE})


class DueKind(StrEnum):
    """What may be due of a visit."""

    ADMISSION = "ADMISSION"  # closed as admitted, and no admission known
    CLOSING = "CLOSING"  # open, and nothing heard of it
    TELLING = "TELLING"  # the patient no longer wants something told that waited to be sent: to be decided anew


ASKED = {
    DueKind.ADMISSION: (
        WorkKind.ADMISSION_NOT_SEEN,
        "A visit was closed as admitted here (disposition 09) and no admission has come: find the inpatient visit.",
    ),
    DueKind.CLOSING: (
        WorkKind.VISIT_LEFT_OPEN,
        "A visit is still open and nothing was heard of it for long: was its discharge missed?",
    ),
}
"""The kind of the work item, and its sentence."""


def begins(before: Folded, after: Folded) -> tuple[DueKind, ...]:
    """The rules whose situation a step led to."""
    found = []
    if after.state in OPEN and before.state not in OPEN:
        found.append(DueKind.CLOSING)
    if _admission_missing(after) and not _admission_missing(before):
        found.append(DueKind.ADMISSION)
    return tuple(found)


def due_at(kind: DueKind, folded: Folded, stale_after: timedelta) -> datetime | None:
    """When the rule fires for the visit as it is; None where it no longer applies. Measured from what was received,
    so that a feed that catches up is not asked about what is on its way."""
    if folded.rehearsal or folded.last is None:
        return None
    if kind is DueKind.ADMISSION:
        return folded.movements[-1].received_at + ADMISSION_WITHIN if _admission_missing(folded) else None
    _, _, last_received, _ = folded.last
    return last_received + stale_after if stale_after and folded.state in OPEN else None


def _admission_missing(folded: Folded) -> bool:
    closed = folded.state is EncounterState.DISCHARGED and folded.underlying is not EncounterState.INPATIENT
    return closed and says_converted(folded.encounter) and not folded.became_stay
