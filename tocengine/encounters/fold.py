"""Owns the fold of an encounter's events and the diff of the facts that stand against the facts announced.

An event in order is one `apply`; anything else folds all events anew. The diff names what is new, corrected and
cancelled, pairing facts by kind and digest first and by occurrence second, so that an earlier discharge that comes
late does not look like a cancellation.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from tocengine.encounters.facts import (
    ARRIVALS,
    CONVERSION,
    COVERED_BY_DISCHARGE,
    DISCHARGES,
    ENDINGS,
    Resolver,
    carried,
    standing,
    unchanged,
)
from tocengine.encounters.machine import apply
from tocengine.encounters.state import SILENT, Announced, EncounterBody, Folded
from tocengine.model.encounter import Adopted, EncounterState, Fact, Transition, TransitionKind, TransitionStatus
from tocengine.model.event import Event, Processing
from tocengine.model.identity import VisitKey
from tocengine.model.ids import EncounterId, TransitionId, derive

K = TransitionKind

CORRECTED = {
    K.ED_REGISTRATION: K.ED_REGISTRATION_CORRECTED,
    K.INPATIENT_ADMIT: K.INPATIENT_ADMIT_CORRECTED,
    K.OBSERVATION_START: K.OBSERVATION_START_CORRECTED,
    K.ED_DISCHARGE: K.ED_DISCHARGE_CORRECTED,
    K.INPATIENT_DISCHARGE: K.INPATIENT_DISCHARGE_CORRECTED,
    K.PATIENT_EXPIRED: K.PATIENT_EXPIRED_CORRECTED,
    K.DISCHARGE_PENDING: K.DISCHARGE_PENDING,
}
CANCELLED = {
    K.ED_REGISTRATION: K.ED_CANCELLED,
    K.INPATIENT_ADMIT: K.ADMIT_CANCELLED,
    K.OBSERVATION_START: K.ADMIT_CANCELLED,
    K.ED_DISCHARGE: K.DISCHARGE_CANCELLED,
    K.INPATIENT_DISCHARGE: K.DISCHARGE_CANCELLED,
    K.PATIENT_EXPIRED: K.DISCHARGE_CANCELLED,
    K.DISCHARGE_PENDING: K.DISCHARGE_CANCELLED,
}
WEIGHT = {K.INPATIENT_ADMIT: 0, K.ED_REGISTRATION: 1, K.OBSERVATION_START: 2}
"""Which fact a "visit cancelled" speaks of, where it covers several."""


JOINED = 0
"""The folded occurrence of what was announced of another visit, until the first diff after the merge."""


def fold(visit: VisitKey | None, events: Iterable[Event]) -> Folded:
    """The state all `events` of an encounter fold into, in canonical order whatever order they are given in.

    Test messages count only while a visit has no others, and never beyond their own visit.
    """
    given = list(events)
    counting = [event for event in given if event.processing is not Processing.TEST]
    rehearsal = _of_visit(given, visit) and not _of_visit(counting, visit)
    if rehearsal:
        counting += [event for event in given if event.processing is Processing.TEST and event.visit == visit]
    folded = Folded(visit=visit, rehearsal=rehearsal)
    for event in sorted(counting, key=lambda event: event.order_key):
        folded, _ = apply(folded, event)
    return folded


def _of_visit(events: Sequence[Event], visit: VisitKey | None) -> bool:
    return any(event.visit == visit for event in events)


def in_order(folded: Folded, event: Event) -> bool:
    """Whether one `apply` of `event` gives what folding anew would give."""
    last = folded.last
    if last is not None and event.recorded.at <= last[0] and event.order_key <= last:
        return False
    if event.processing is Processing.TEST:
        return event.visit == folded.visit and (folded.rehearsal or folded.last is None)
    return event.visit != folded.visit or not folded.rehearsal


def step(folded: Folded, event: Event) -> tuple[Folded, tuple[str, ...]]:
    """`apply` for an event that is `in_order`; a test message first opens a rehearsal."""
    if folded.last is None and event.processing is Processing.TEST:
        folded = Folded(visit=folded.visit, rehearsal=True)
    return apply(folded, event)


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What changed outwardly. `cancelled` are facts once announced with the kind that takes them back."""

    body: EncounterBody
    transitions: tuple[Transition, ...] = ()
    cancelled: tuple[tuple[Fact, TransitionKind], ...] = ()


def diff(
    encounter_id: EncounterId,
    body: EncounterBody,
    folded: Folded,
    event: Event,
    resolver: Resolver,
) -> Diff:
    """Announces what `folded` changes against what `body` announced before; `event` is what led to it.

    The transitions name no snapshot yet: it shows what is known at the end of the batch.
    """
    joining = any(entry.folded == JOINED for entry in body.announced)
    if unchanged(body.folded, folded) and not joining:
        return Diff(body=msgspec.structs.replace(body, folded=folded))
    kept = 0 if joining else carried(body, folded)
    facts = standing(folded, resolver, kept)
    if not facts and not body.announced:
        return Diff(body=msgspec.structs.replace(body, folded=folded))
    paired, gone = _pair(facts, body.announced[kept:])
    adopted = body.adopted
    if joining:
        adopted, gone = _absorb(encounter_id, facts, paired, gone, adopted)
    maker = _Maker(encounter_id, event)
    used = dict(body.used)
    announced: list[Announced] = []
    transitions: list[Transition] = []
    later_end = False  # a discharge that stands above has been announced before
    for fact in reversed(facts):
        earlier = paired.get(fact.key)
        entry, transition = _announce(fact, earlier, used, maker, covered=later_end and fact.kind in ARRIVALS)
        announced.append(entry)
        if transition is not None:
            transitions.append(transition)
        if earlier is not None and fact.kind in ENDINGS and not earlier.fact.covered_by:
            later_end = True
    announced.reverse()
    transitions.reverse()
    cancelled = _cancelled(gone, folded) if gone else ()
    taken_back = maker.cancellations(gone, cancelled) if cancelled else ()
    return Diff(
        body=EncounterBody(folded=folded, announced=(*body.announced[:kept], *announced), used=used, adopted=adopted),
        transitions=(*taken_back, *transitions),
        cancelled=cancelled,
    )


def _pair(
    facts: Sequence[Fact], announced: Sequence[Announced]
) -> tuple[dict[tuple[TransitionKind, int], Announced], list[Announced]]:
    """Standing facts with what was announced of each, by (kind, digest) and then by (kind, folded occurrence)."""
    paired: dict[tuple[TransitionKind, int], Announced] = {}
    left = list(announced)
    if not left:
        return paired, left
    for matches in (_same_in_place, _same, _in_place):
        for fact in facts:
            if fact.key in paired:
                continue
            found = next((entry for entry in left if matches(fact, entry)), None)
            if found is not None:
                paired[fact.key] = found
                left.remove(found)
        if not left:
            break
    return paired, left


def _same(fact: Fact, entry: Announced) -> bool:
    return entry.fact.kind is fact.kind and entry.fact.watched == fact.watched


def _in_place(fact: Fact, entry: Announced) -> bool:
    return entry.fact.kind is fact.kind and entry.folded in (fact.occurrence, JOINED)


def _same_in_place(fact: Fact, entry: Announced) -> bool:
    return _same(fact, entry) and _in_place(fact, entry)


def adopt(encounter_id: EncounterId, body: EncounterBody, survivor: EncounterBody) -> EncounterBody:
    """`survivor` once the visit with `body` is merged into it: what was announced of that visit was announced of it.

    Each fact gets an occurrence of its own here; the next diff finds out which of them are one and the same.
    """
    used, announced, adopted = dict(survivor.used), list(survivor.announced), list(survivor.adopted)
    here: dict[tuple[TransitionKind, int], int] = {}
    for entry in body.announced:
        kind = entry.fact.kind
        used[kind] = here[entry.fact.key] = used.get(kind, 0) + 1
        fact = msgspec.structs.replace(entry.fact, occurrence=used[kind])
        announced.append(Announced(fact=fact, folded=JOINED, transition_id=entry.transition_id))
        adopted.append(Adopted(encounter_id=encounter_id, kind=kind, occurrence=entry.fact.occurrence, here=used[kind]))
    adopted += [
        msgspec.structs.replace(each, here=here[each.kind, each.here])
        for each in body.adopted
        if (each.kind, each.here) in here
    ]
    return EncounterBody(
        folded=survivor.folded, announced=tuple(announced), used=used, adopted=tuple(adopted)
    )  # fmt: skip


def _absorb(
    encounter_id: EncounterId,
    facts: Sequence[Fact],
    paired: dict[tuple[TransitionKind, int], Announced],
    gone: Sequence[Announced],
    adopted: tuple[Adopted, ...],
) -> tuple[tuple[Adopted, ...], list[Announced]]:
    """Two visits that are one were each announced to arrive: those are one fact, so that neither is taken back."""
    standing_now = {fact.kind: paired[fact.key].fact.occurrence for fact in reversed(facts) if fact.key in paired}
    same = {entry.fact.key: standing_now[entry.fact.kind] for entry in gone if entry.fact.kind in standing_now}
    moved = [
        msgspec.structs.replace(each, here=same[each.kind, each.here], absorbed=True)
        if (each.kind, each.here) in same
        else each
        for each in adopted
    ]
    moved += [
        Adopted(encounter_id=encounter_id, kind=kind, occurrence=occurrence, here=here, absorbed=True)
        for (kind, occurrence), here in same.items()
        if not any((each.kind, each.here) == (kind, occurrence) for each in adopted)
    ]
    return tuple(moved), [entry for entry in gone if entry.fact.key not in same]


def _announce(
    fact: Fact,
    earlier: Announced | None,
    used: dict[TransitionKind, int],
    maker: "_Maker",
    *,
    covered: bool,
) -> tuple[Announced, Transition | None]:
    """The entry that now stands for `fact`, and what is said of it, if anything."""
    told = earlier is not None and not earlier.fact.covered_by
    if earlier is not None and earlier.fact.covered_by in SILENT.values() and not fact.covered_by:
        earlier = None  # what was only rehearsed or loaded has now been said in earnest: a fact of its own
    if earlier is None:
        occurrence = max(fact.occurrence, used.get(fact.kind, 0) + 1)
        used[fact.kind] = occurrence
    else:
        occurrence = earlier.fact.occurrence
    reason = fact.covered_by
    if told and reason == CONVERSION:
        reason = ""  # it was told before it turned out to be one; corrections still follow it
    elif not told and not reason and _stays_covered(earlier, covered):
        reason = COVERED_BY_DISCHARGE
    outward = msgspec.structs.replace(fact, occurrence=occurrence, covered_by=reason)
    if reason or (told and earlier is not None and earlier.fact.watched == fact.watched):
        transition_id = earlier.transition_id if earlier else None
        return Announced(fact=outward, folded=fact.occurrence, transition_id=transition_id), None
    transition = maker.said(outward, earlier if told else None)
    return Announced(fact=outward, folded=fact.occurrence, transition_id=transition.transition_id), transition


def _stays_covered(earlier: Announced | None, covered: bool) -> bool:
    if earlier is None:
        return covered
    return earlier.fact.covered_by == COVERED_BY_DISCHARGE


def _cancelled(gone: Sequence[Announced], folded: Folded) -> tuple[tuple[Fact, TransitionKind], ...]:
    """Facts that no longer stand, each with what takes it back. One "visit cancelled" covers all of a visit."""
    told = [entry for entry in gone if not entry.fact.covered_by]
    reversed_now = {(m.kind, m.occurrence) for m in folded.movements if m.reversed}
    whole = folded.state is EncounterState.CANCELLED
    arrivals = {entry.fact.kind for entry in told if entry.fact.kind in ARRIVALS}
    taken_back = {entry.fact.kind for entry in told if (entry.fact.kind, entry.folded) not in reversed_now}
    one_for_all = _visit_cancelled(told, arrivals) if whole and told else None
    result = []
    for entry in told:
        fact = entry.fact
        kind = CANCELLED[fact.kind]
        if one_for_all is not None:
            kind = one_for_all
        elif (fact.kind, entry.folded) in reversed_now:
            kind = K.INPATIENT_REVERSED
        elif fact.kind in DISCHARGES and K.INPATIENT_ADMIT in taken_back:
            kind = K.ADMIT_CANCELLED
        result.append((fact, kind))
    return tuple(result)


def _visit_cancelled(told: Sequence[Announced], arrivals: Collection[TransitionKind]) -> TransitionKind:
    if K.INPATIENT_ADMIT in arrivals:
        return K.ADMIT_CANCELLED
    ed = K.ED_REGISTRATION in arrivals or all(entry.fact.kind is K.ED_DISCHARGE for entry in told)
    return K.ED_CANCELLED if ed else K.ADMIT_CANCELLED


class _Maker:
    """Makes transitions with ids that a replay makes again."""

    def __init__(self, encounter_id: EncounterId, event: Event) -> None:
        self.encounter_id, self.event = encounter_id, event

    def said(self, fact: Fact, earlier: Announced | None) -> Transition:
        """A fact that is new, or one that corrects what was said of it."""
        if earlier is None:
            return self._transition(fact, fact.kind, TransitionStatus.NEW, None)
        return self._transition(fact, CORRECTED[fact.kind], TransitionStatus.UPDATED, earlier.transition_id)

    def cancellations(
        self, gone: Sequence[Announced], cancelled: Sequence[tuple[Fact, TransitionKind]]
    ) -> list[Transition]:
        """One transition per outward kind, about the fact with most weight among those it takes back."""
        ids = {entry.fact.key: entry.transition_id for entry in gone}
        groups: dict[TransitionKind, Fact] = {}
        for fact, kind in cancelled:
            best = groups.get(kind)
            if best is None or WEIGHT.get(fact.kind, 9) < WEIGHT.get(best.kind, 9):
                groups[kind] = fact
        return [
            self._transition(fact, kind, TransitionStatus.CANCELLED, ids[fact.key]) for kind, fact in groups.items()
        ]

    def _transition(
        self, fact: Fact, kind: TransitionKind, status: TransitionStatus, supersedes: TransitionId | None
    ) -> Transition:
        event = self.event
        return Transition(
            transition_id=TransitionId(
                derive(
                    "transition",
                    self.encounter_id.bytes,
                    event.message_id.bytes,
                    f"{event.part}.{event.revision}.{kind}.{fact.kind}.{fact.occurrence}",
                )
            ),
            encounter_id=self.encounter_id,
            kind=kind,
            status=status,
            fact_kind=fact.kind,
            occurrence=fact.occurrence,
            watched=fact.watched,
            snapshot_id=None,
            message_id=event.message_id,
            effective=fact.effective,
            recorded=event.recorded,
            received_at=event.received_at,
            supersedes=supersedes,
        )
