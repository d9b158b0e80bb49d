"""Owns which facts stand about a folded encounter, and the digest of the values whose change is worth a correction.

What becomes untrue is watched in every fact; what was merely missing (a treating practitioner) only while the fact is
the latest one. All of it is a function of the folded state, so any arrival order gives the same digests.
"""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Protocol

from msgspec import UNSET

from tocengine.encounters.state import EncounterBody, Folded, Movement
from tocengine.encounters.steps import says_converted, says_expired
from tocengine.model.encounter import EncounterState, Fact, TransitionKind
from tocengine.model.facts import Destination, EncounterFacts, told_name
from tocengine.model.ids import FeedName
from tocengine.model.time import Timestamp

K = TransitionKind

ARRIVALS = frozenset({K.ED_REGISTRATION, K.INPATIENT_ADMIT, K.OBSERVATION_START})
DISCHARGES = frozenset({K.ED_DISCHARGE, K.INPATIENT_DISCHARGE})
ENDINGS = DISCHARGES | {K.PATIENT_EXPIRED}
CONVERSION = "CONVERSION_NOT_DISCHARGE"
COVERED_BY_DISCHARGE = "COVERED_BY_DISCHARGE"


class Resolver(Protocol):
    """Names the directory's recipient a destination means (ports.DestinationResolver)."""

    def resolve(self, feed: FeedName, destination: Destination) -> str | None:
        """None where nobody or more than one matches."""


def standing(folded: Folded, resolver: Resolver, after: int = 0) -> tuple[Fact, ...]:
    """The facts that stand, in the order of their movements; a death stands before the discharge it replaces.

    Without the first `after` of them, which the caller has (`carried`).
    """
    person = _person(folded)
    return tuple(
        Fact(
            kind=kind,
            occurrence=movement.occurrence,
            effective=movement.effective,
            recorded=movement.recorded,
            received_at=movement.received_at,
            message_id=movement.message_id,
            watched=_digest(person, _watched(folded, kind, movement, resolver)),
            covered_by=_covered_by(folded, kind, movement),
        )
        for kind, movement in islice(_raised(folded), after, None)
    )


def carried(body: EncounterBody, after: Folded) -> int:
    """How many of the first facts announced stand in `after` exactly as they were announced: what comes at the end of a
    history leaves what came before it alone. No discharge is among them, as what is known of it follows from the visit.

    What is in `body` was announced of the same visits as are in `after`.
    """
    before, found = body.folded, 0
    if before.expected is not None or after.expected is not None or not _same_person(before, after):
        return 0
    for movement, now in zip(before.movements, after.movements, strict=False):
        if movement is not now or movement.kind in DISCHARGES:
            break
        if movement.kind is not None and not movement.reversed:
            announced = body.announced[found] if found < len(body.announced) else None
            if announced is None or (announced.fact.kind, announced.folded) != (movement.kind, movement.occurrence):
                break
            found += 1
    return found


def unchanged(before: Folded, after: Folded) -> bool:
    """Whether the same facts stand with the same values, as far as that shows without looking at each.

    True for most messages. What a destination resolves to is not asked again: that follows from the message.
    """
    one, other = before.encounter, after.encounter
    return (
        before.movements is after.movements
        and before.expired is after.expired
        and before.expected is after.expected
        and before.converted == after.converted
        and before.became_stay == after.became_stay
        and before.facility == after.facility
        and before.dead_on_arrival == after.dead_on_arrival
        and (one is other or _discharge(one) == _discharge(other))
        and _same_person(before, after)
    )


def _same_person(before: Folded, after: Folded) -> bool:
    one, other = before.patient, after.patient
    if before.facility == after.facility and (
        one is other or (one.names == other.names and one.birth_date == other.birth_date)
    ):
        return True
    return _person(before) == _person(after)


def _discharge(said: EncounterFacts) -> tuple[object, ...]:
    return said.disposition, said.destination, said.patient_class


def _raised(folded: Folded) -> Iterator[tuple[TransitionKind, Movement]]:
    if folded.expected is not None:
        yield K.DISCHARGE_PENDING, folded.expected
    expired = folded.expired
    for movement in folded.movements:
        kind = movement.kind
        if kind is None or movement.reversed:
            continue
        if kind in DISCHARGES and _replaced_by_death(folded, movement):
            continue
        yield kind, movement
    if expired is not None:
        yield K.PATIENT_EXPIRED, expired


def _replaced_by_death(folded: Folded, discharge: Movement) -> bool:
    """Death before the discharge, or given as its disposition, is told instead of it."""
    if folded.dead_on_arrival:
        return True
    expired = folded.expired
    if expired is None:
        return False
    return expired.recorded.at <= discharge.recorded.at or says_expired(folded.encounter)


def _covered_by(folded: Folded, kind: TransitionKind, movement: Movement) -> str:
    if movement.silent:
        return movement.silent
    if kind in DISCHARGES:
        if says_converted(folded.encounter):
            return CONVERSION
        if (folded.converted or folded.became_stay) and kind is K.ED_DISCHARGE:
            return CONVERSION
    return ""


def _person(folded: Folded) -> str:
    """Name and birth date, as compared: case and spacing do not count."""
    patient = folded.patient
    name = told_name(patient.names or ())
    spelled = " ".join((name.family, *name.given, name.suffix)) if name else ""
    return f"{' '.join(spelled.casefold().split())}|{patient.birth_date or ''}|{folded.facility}"


def _watched(folded: Folded, kind: TransitionKind, movement: Movement, resolver: Resolver) -> str:
    time = int(movement.effective.at.timestamp() // 60)
    treating = "" if kind is K.PATIENT_EXPIRED else f"{movement.treating:d}"
    if kind not in DISCHARGES and kind is not K.DISCHARGE_PENDING:
        return f"{time}|{treating}"
    said = folded.encounter
    disposition = said.disposition
    code = (disposition.code or disposition.raw) if disposition else ""
    destination = _destination(folded, resolver)
    stated = said.patient_class if said.patient_class is not UNSET else ""
    return f"{time}|{treating}|{code}|{destination}|{stated}"


def _destination(folded: Folded, resolver: Resolver) -> str:
    destination = folded.encounter.destination
    if not destination:
        return ""
    resolved = resolver.resolve(folded.feed, destination)
    if resolved is not None:
        return resolved
    identified = destination.npi or destination.ccn
    return f"?{identified}" if identified else f"?{' '.join(destination.text.casefold().split())}"


def _digest(person: str, watched: str) -> bytes:
    return blake2b(f"{person}\x1f{watched}".encode(), digest_size=16).digest()


def phases(folded: Folded) -> tuple[tuple[str, Timestamp], ...]:
    """The starts of the ED, observation and inpatient phases (classHistory; the three-midnight rule)."""
    found: list[tuple[str, Timestamp]] = []
    if folded.began_as is not None:
        found.append((PHASES[EncounterState.ED], folded.began_as.arrived))
    for movement in folded.movements:
        name = PHASES.get(movement.state)
        if name and not movement.reversed and (not found or found[-1][0] != name):
            found.append((name, movement.effective))
    return tuple(found)


PHASES = {
    EncounterState.ED: "EMERGENCY",
    EncounterState.OBSERVATION: "OBSERVATION",
    EncounterState.INPATIENT: "INPATIENT",
}
