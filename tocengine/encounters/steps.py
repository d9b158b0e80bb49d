"""Owns the reading of one event as one step of its encounter: the column of the matrix (domain 2.8).

The mapped patient class decides, not the trigger; the trigger only says whether something arrives, changes,
ends or is taken back. Pure.
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec import UNSET

from tocengine.model.event import Event, MovementAction, Processing
from tocengine.model.facts import CareSetting, EncounterFacts, PatientClass, PatientFacts, known
from tocengine.model.identity import VisitKey
from tocengine.model.time import Timestamp

AHEAD = timedelta(hours=24)
"""A recorded or effective time further ahead of receipt than this is a wrong clock and counts as received."""


class Step(StrEnum):
    """What an event does to its encounter."""

    PREADMIT = "PREADMIT"
    CANCEL_PREADMIT = "CANCEL_PREADMIT"
    ED_ARRIVAL = "ED_ARRIVAL"
    OUTPATIENT = "OUTPATIENT"
    ADMIT = "ADMIT"
    OBSERVATION = "OBSERVATION"
    REVERSE = "REVERSE"  # A07
    LEAVE = "LEAVE"
    RETURN = "RETURN"
    CANCEL_LEAVE = "CANCEL_LEAVE"
    CANCEL_RETURN = "CANCEL_RETURN"
    DISCHARGE = "DISCHARGE"  # A03 whose class says neither emergency nor inpatient: the state decides
    DISCHARGE_EMERGENCY = "DISCHARGE_EMERGENCY"
    DISCHARGE_INPATIENT = "DISCHARGE_INPATIENT"
    STILL_PATIENT = "STILL_PATIENT"  # A03 with disposition 30: an interim bill
    CANCEL_ARRIVAL = "CANCEL_ARRIVAL"
    CANCEL_DISCHARGE = "CANCEL_DISCHARGE"
    UPDATE = "UPDATE"
    UPDATE_EMERGENCY = "UPDATE_EMERGENCY"
    UPDATE_INPATIENT = "UPDATE_INPATIENT"
    UPDATE_OBSERVATION = "UPDATE_OBSERVATION"
    UPDATE_PREADMIT = "UPDATE_PREADMIT"
    MOVE = "MOVE"
    CANCEL_MOVE = "CANCEL_MOVE"
    EXPECT_DISCHARGE = "EXPECT_DISCHARGE"
    CANCEL_EXPECTED = "CANCEL_EXPECTED"
    AMEND = "AMEND"  # changes the movement it names (Z99, ZBE-4 UPDATE)
    STRIKE = "STRIKE"  # cancels the movement it names (Z99, ZBE-4 CANCEL)
    PERSON = "PERSON"  # says something of the patient, nothing of this visit
    LINK = "LINK"  # an event of another visit that names this one as where the patient came from
    IGNORE = "IGNORE"  # stored only


ARRIVALS = {
    PatientClass.EMERGENCY: Step.ED_ARRIVAL,
    PatientClass.INPATIENT: Step.ADMIT,
    PatientClass.OBSERVATION: Step.OBSERVATION,
    PatientClass.PREADMIT: Step.PREADMIT,
}
"""A01, A04, A06 by mapped class; every other class arrives as an outpatient and raises nothing."""
DISCHARGES = {
    PatientClass.EMERGENCY: Step.DISCHARGE_EMERGENCY,
    PatientClass.INPATIENT: Step.DISCHARGE_INPATIENT,
}
UPDATES = {
    PatientClass.EMERGENCY: Step.UPDATE_EMERGENCY,
    PatientClass.INPATIENT: Step.UPDATE_INPATIENT,
    PatientClass.OBSERVATION: Step.UPDATE_OBSERVATION,
    PatientClass.PREADMIT: Step.UPDATE_PREADMIT,
}
BY_CLASS = {
    "A01": (ARRIVALS, Step.OUTPATIENT),
    "A04": (ARRIVALS, Step.OUTPATIENT),
    "A06": (ARRIVALS, Step.OUTPATIENT),
    "A03": (DISCHARGES, Step.DISCHARGE),
    "A08": (UPDATES, Step.UPDATE),
    "A28": (UPDATES, Step.UPDATE),  # with a visit number; without one they speak of the person alone
    "A31": (UPDATES, Step.UPDATE),
}
BY_TRIGGER = {
    "A02": Step.MOVE,
    "A05": Step.PREADMIT,
    "A07": Step.REVERSE,
    "A11": Step.CANCEL_ARRIVAL,
    "A12": Step.CANCEL_MOVE,
    "A14": Step.PREADMIT,
    "A13": Step.CANCEL_DISCHARGE,
    "A16": Step.EXPECT_DISCHARGE,
    "A17": Step.MOVE,  # one event per patient
    "A21": Step.LEAVE,
    "A22": Step.RETURN,
    "A23": Step.CANCEL_ARRIVAL,  # handled only where the sender means a cancelled visit
    "A25": Step.CANCEL_EXPECTED,
    "A27": Step.CANCEL_PREADMIT,
    "A38": Step.CANCEL_PREADMIT,
    "A52": Step.CANCEL_LEAVE,
    "A53": Step.CANCEL_RETURN,
    "A54": Step.UPDATE,  # practitioners, whatever the class
    "A55": Step.UPDATE,
    "A61": Step.UPDATE,
    "A62": Step.UPDATE,
}
"""Triggers that mean the same whatever the class."""
NAMING = {MovementAction.UPDATE: Step.AMEND, MovementAction.CANCEL: Step.STRIKE}
"""Z99 by what it does to the movement it names."""
ADMISSIONS = frozenset({"A01", "A04", "A06"})
UNLINKING = frozenset({"A11", "A23"})


def step_of(event: Event, visit: VisitKey | None) -> Step:
    """The step `event` is for the encounter known as `visit`."""
    if not event.handled:
        return Step.IGNORE
    if event.visit is None or event.merges:
        return Step.PERSON
    if visit is not None and event.visit != visit:
        return Step.LINK
    if event.trigger == "Z99":
        return NAMING.get(event.movement.action, Step.IGNORE) if event.movement else Step.IGNORE
    by_class = BY_CLASS.get(event.trigger)
    if by_class is None:
        return BY_TRIGGER.get(event.trigger, Step.IGNORE)
    said = event.encounter_facts
    if event.trigger == "A03" and said is not UNSET and _still_patient(said):
        return Step.STILL_PATIENT
    steps, otherwise = by_class
    return steps.get(class_said(said), otherwise)


def class_said(said: EncounterFacts | msgspec.UnsetType) -> PatientClass:
    """The mapped class a message states; UNKNOWN where it states none."""
    if said is UNSET or said.patient_class is UNSET:
        return PatientClass.UNKNOWN
    return said.patient_class


def _care_setting(said: EncounterFacts) -> CareSetting | None:
    disposition = known(said.disposition)
    return disposition.care_setting if disposition else None


def says_converted(said: EncounterFacts) -> bool:
    """Whether the disposition is an admission to this hospital (NUBC 09), which ends no stay."""
    return _care_setting(said) is CareSetting.ADMITTED_SAME


def says_expired(said: EncounterFacts) -> bool:
    """Whether the disposition is a death (NUBC 20, 40, 41, 42)."""
    return _care_setting(said) is CareSetting.EXPIRED


def says_dead(said: PatientFacts) -> bool:
    """Whether the patient is stated to be dead (PID-29, PID-30)."""
    return said.deceased is True or (bool(said.deceased_at) and said.deceased is not False)


def _still_patient(said: EncounterFacts) -> bool:
    return _care_setting(said) is CareSetting.STILL_PATIENT


def unlinks(event: Event) -> bool:
    """Whether an event takes back an admission, and with it what that grew out of."""
    named = event.movement
    if event.trigger == "Z99" and named is not None:
        return named.action is MovementAction.CANCEL and named.trigger in ADMISSIONS
    return event.trigger in UNLINKING


def link_of(event: Event) -> VisitKey | None:
    """The visit an inpatient admission names as the one it grew out of (PV1-50; domain 2.2, second shape)."""
    undoes = unlinks(event)
    if not event.handled or event.visit is None or not (undoes or event.trigger in ADMISSIONS):
        return None
    if event.processing is Processing.TEST:
        return None
    said = event.encounter_facts
    if said is UNSET or not said.alternate_visit or said.alternate_visit == event.visit.value:
        return None
    if not undoes and class_said(said) is not PatientClass.INPATIENT:
        return None
    return VisitKey(event.visit.domain, said.alternate_visit)


def settled(event: Event) -> Event:
    """`event` with times that lie more than 24 h ahead of receipt replaced by the time of receipt (domain 2.2)."""
    limit = event.received_at + AHEAD
    recorded_wrong = event.recorded.at > limit
    effective_wrong = event.effective is not None and event.effective.at > limit
    if not recorded_wrong and not effective_wrong:
        return event
    received = Timestamp(text=event.received_at.isoformat(timespec="seconds"), at=event.received_at, assumed=True)
    return msgspec.structs.replace(
        event,
        recorded=received if recorded_wrong else event.recorded,
        effective=received if effective_wrong else event.effective,
        flags=(*event.flags, "time_ahead_of_receipt"),
    )


def effective_of(event: Event, arrivals: tuple[datetime, ...] = ()) -> Timestamp:
    """When the step took effect.

    `arrivals` are the times at which the visit is known to have arrived: an arrival on such a visit never takes
    effect at PV1-44, which is when the patient came, unless that is later than all of them (domain 2.2).
    """
    effective = event.effective
    if effective is None:
        return event.recorded
    if arrivals and event.trigger in ("A01", "A04", "A06", "A07"):
        said = event.encounter_facts
        admitted = said.admitted if said is not UNSET else None
        if admitted and admitted.at == effective.at and effective.at <= max(arrivals):
            return event.recorded
    return effective
