"""Owns what a batch needs at hand before its events are applied: whose history, whose statements, and whether anything
may be held back. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from tocengine.encounters.edges import keys_of, moves_of, rekeyed_visits, rekeys
from tocengine.encounters.fold import in_order
from tocengine.encounters.holdback import Arrivals, Window
from tocengine.encounters.identity import Register
from tocengine.encounters.rows import Row, is_statement, root_row, visits_of
from tocengine.encounters.state import Folded
from tocengine.encounters.steps import Step, step_of
from tocengine.model.event import Event, Processing
from tocengine.model.ids import EncounterId, PatientId


def refolding(
    rows: Mapping[EncounterId, Row], events: Sequence[Event], register: Register, window: Window
) -> tuple[set[EncounterId], set[PatientId], bool]:
    """The encounters whose history is needed before `events` can be applied, the patients whose statements are, and
    whether an event may be held back.

    Needed for what comes late, replaces an earlier revision, follows a merge, begins after statements were made, names
    another patient than the visit's, or may be held back and applied after what comes later.
    """
    late: set[EncounterId] = set()
    some_may_wait = False
    arrivals = Arrivals()
    merged = register.regrouping() if any(rekeys(event) for event in events) else set()
    stated: set[PatientId] = set()
    owners: dict[EncounterId, PatientId] = {}
    undescribed = {encounter_id for encounter_id, row in rows.items() if row.undescribed}
    ahead: dict[EncounterId, Folded] = {}  # as far as order is concerned, after the events before
    for event in events:
        wait = window.of(event)
        if rekeys(event):
            some_may_wait = some_may_wait or bool(moves_of(event) and wait)
            merged.update(register.root(key) for key in keys_of(event))
            late.update(root_row(rows, visit).encounter_id for visit in rekeyed_visits(event))
        if is_statement(event) and event.patient is not None:
            root = register.root(event.patient)
            stated.add(root)
            touched = [row for row in rows.values() if row.patient_id == root]
        else:
            touched = [root_row(rows, visit) for visit in visits_of(event)]
        home = event.visit.encounter_id if event.visit is not None else None
        for row in touched:
            folded = ahead.get(row.encounter_id) or row.folded
            waits = wait and arrivals.may_wait(row.encounter_id, row.folded, event)
            some_may_wait = some_may_wait or bool(waits)
            again = event.revision or event.released_at or waits or row.encounter_id in undescribed
            own = home is not None and home in rows and rows[home].root_id == row.encounter_id
            if again or (own and names_another(owners, row, event, register)) or not in_order(folded, event):
                late.add(row.encounter_id)
            elif row.encounter_id not in late:  # one that folds anew does so once for all
                if _leaves_undescribed(folded, event):
                    undescribed.add(row.encounter_id)
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
    for event in events if late else ():  # the first word on whose a visit is may come now
        if event.patient is not None and any(root_row(rows, visit).encounter_id in late for visit in visits_of(event)):
            patients.add(register.root(event.patient))
    return late, {root for root in patients if register.statements(root)}, some_may_wait


def names_another(owners: dict[EncounterId, PatientId], row: Row, event: Event, register: Register) -> bool:
    """Whether `event` names a patient other than the one `row` belongs to, as far as `owners`, the first ones named in
    this batch, let see."""
    if event.patient is None:
        return False
    named = register.root(event.patient)
    return owners.setdefault(row.encounter_id, named if row.folded.last is None else row.patient_id) != named


def named_in(rows: Mapping[EncounterId, Row], late: Iterable[EncounterId]) -> set[PatientId]:
    """The patients whom the histories of `late` name: any of them may turn out to be the owner."""
    events = (event for encounter_id in late for event in (rows[encounter_id].history or {}).values())
    return {event.patient.patient_id for event in events if event.patient is not None}


def _leaves_undescribed(folded: Folded, event: Event) -> bool:
    """Whether `event` is the first of a visit and says nothing of it: of another visit, or stored only."""
    return folded.last is None and (event.visit != folded.visit or step_of(event, folded.visit) is Step.IGNORE)


def _rehearses(folded: Folded, event: Event) -> bool:
    return folded.rehearsal or (folded.last is None and event.processing is Processing.TEST)
