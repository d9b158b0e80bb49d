"""Owns what the engine holds about an encounter: its state, the facts that stand, and what it tells of them."""

from datetime import datetime
from enum import StrEnum

import msgspec

from tocengine.model.facts import EncounterFacts, Marks, PatientFacts
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import (
    EncounterId,
    FacilityId,
    FeedName,
    MessageId,
    PatientId,
    SnapshotId,
    TransitionId,
)
from tocengine.model.message import ContentType
from tocengine.model.time import Timestamp


class EncounterState(StrEnum):
    """Where an encounter stands."""

    NONE = "NONE"
    PREADMIT = "PREADMIT"
    REGISTERED = "REGISTERED"
    ED = "ED"
    OBSERVATION = "OBSERVATION"
    INPATIENT = "INPATIENT"
    ON_LEAVE = "ON_LEAVE"
    DISCHARGED = "DISCHARGED"
    CANCELLED = "CANCELLED"
    MERGED = "MERGED"


class TransitionKind(StrEnum):
    """What happened to an encounter: the thing people are told."""

    ED_REGISTRATION = "ED_REGISTRATION"
    INPATIENT_ADMIT = "INPATIENT_ADMIT"
    OBSERVATION_START = "OBSERVATION_START"
    LOCATION_CHANGE = "LOCATION_CHANGE"
    DISCHARGE_PENDING = "DISCHARGE_PENDING"
    ED_DISCHARGE = "ED_DISCHARGE"
    INPATIENT_DISCHARGE = "INPATIENT_DISCHARGE"
    PATIENT_EXPIRED = "PATIENT_EXPIRED"
    LEAVE_START = "LEAVE_START"
    LEAVE_END = "LEAVE_END"
    DISCHARGE_CANCELLED = "DISCHARGE_CANCELLED"
    ADMIT_CANCELLED = "ADMIT_CANCELLED"
    ED_CANCELLED = "ED_CANCELLED"
    INPATIENT_REVERSED = "INPATIENT_REVERSED"
    ED_REGISTRATION_CORRECTED = "ED_REGISTRATION_CORRECTED"
    INPATIENT_ADMIT_CORRECTED = "INPATIENT_ADMIT_CORRECTED"
    OBSERVATION_START_CORRECTED = "OBSERVATION_START_CORRECTED"
    ED_DISCHARGE_CORRECTED = "ED_DISCHARGE_CORRECTED"
    INPATIENT_DISCHARGE_CORRECTED = "INPATIENT_DISCHARGE_CORRECTED"
    PATIENT_EXPIRED_CORRECTED = "PATIENT_EXPIRED_CORRECTED"
    PATIENT_MERGED = "PATIENT_MERGED"
    ENCOUNTER_MOVED = "ENCOUNTER_MOVED"


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that stands about an encounter, as it folds from the encounter's history.

    Identified by (`kind`, `occurrence`) within the encounter; a cancellation raises the occurrence of what
    comes after it. Once announced, a fact keeps its occurrence whatever earlier messages come late. `watched` is the
    digest of the values whose change is worth a correction (domain: watch set). `covered_by` is the ReasonCode for
    which a fact is recorded but not told by itself.
    """

    kind: TransitionKind
    occurrence: int
    effective: Timestamp
    recorded: Timestamp
    received_at: datetime
    message_id: MessageId
    watched: bytes
    covered_by: str = ""  # COVERED_BY_DISCHARGE, CONVERSION_NOT_DISCHARGE, INITIAL_LOAD, TEST_MESSAGE

    @property
    def key(self) -> tuple[TransitionKind, int]:
        """What identifies the fact within its encounter."""
        return self.kind, self.occurrence


class TransitionStatus(StrEnum):
    """How a transition relates to what was announced before; the `status` of its notices too."""

    NEW = "NEW"
    UPDATED = "UPDATED"
    CANCELLED = "CANCELLED"
    RETRACTED = "RETRACTED"


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact told, corrected or cancelled, once per encounter; notices address it to recipients.

    `kind` is the outward one (INPATIENT_DISCHARGE, INPATIENT_DISCHARGE_CORRECTED, DISCHARGE_CANCELLED);
    (`fact_kind`, `occurrence`) names the fact it speaks of.
    """

    transition_id: TransitionId
    encounter_id: EncounterId
    kind: TransitionKind
    status: TransitionStatus
    fact_kind: TransitionKind
    occurrence: int
    watched: bytes
    snapshot_id: SnapshotId | None
    message_id: MessageId
    effective: Timestamp
    recorded: Timestamp
    received_at: datetime
    supersedes: TransitionId | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was known of an encounter at the moment something was told of it: everything a notice renders.

    Immutable, so that a retry sends what the first attempt sent.
    """

    snapshot_id: SnapshotId
    encounter_id: EncounterId
    feed: FeedName
    facility: FacilityId
    state: EncounterState
    patient_key: PatientKey
    visit: VisitKey
    patient: PatientFacts
    encounter: EncounterFacts
    trigger: str
    control_id: str
    message_id: MessageId
    received_at: datetime
    content_type: ContentType = ContentType.HL7V2  # what the triggering message came as
    phases: tuple[tuple[str, Timestamp], ...] = ()  # ("EMERGENCY", start), ("INPATIENT", start): classHistory
    flags: tuple[str, ...] = ()


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """A fact announced of a visit that was merged into another, and the occurrence it has there. `absorbed` where the
    same was announced of both: it counts, but what was told of the other one counts more."""

    encounter_id: EncounterId
    kind: TransitionKind
    occurrence: int
    here: int
    absorbed: bool = False


class TrackedEncounter(msgspec.Struct, frozen=True, kw_only=True):
    """An encounter after a batch: what routing needs to decide who is told what.

    `facts` are all that stand now, in the order of their movements; `cancelled` are facts once announced that this
    batch took away, with the kind that says so outward: facts with the same kind are taken back by one statement (a
    "visit cancelled" covers its discharge). `transitions` are what this batch says outwardly, all with `snapshot`; bed
    moves and leaves are not among them (the tracker publishes those itself). `snapshot` shows a disposition or a
    destination only once there is a discharge, a death or a pending discharge. `sensitivity` is the union over all
    locations and services of the stay so far, `marks` what the sender asks for care with and has not lifted.
    """

    encounter_id: EncounterId
    patient_id: PatientId
    patient_keys: tuple[PatientKey, ...]  # the surviving key first, then its aliases
    snapshot: Snapshot
    facts: tuple[Fact, ...]
    cancelled: tuple[tuple[Fact, TransitionKind], ...]
    transitions: tuple[Transition, ...]  # new ones, made by this batch
    sensitivity: tuple[str, ...] = ()
    part2: bool = False
    marks: Marks = msgspec.field(default_factory=dict)
    deceased: bool = False
    suppressed: str = ""  # TEST_MESSAGE, INITIAL_LOAD, SHADOW: facts stand, nobody is told
    shadow: bool = False
    message_ids: tuple[MessageId, ...] = ()  # the batch's messages that touched it
    adopted: tuple[Adopted, ...] = ()  # what was told of it while parts of it were visits of their own
    number_ids: tuple[
        PatientId, ...
    ] = ()  # of `patient_keys`: whoever was told under one of them was told of this person
    moved_keys: tuple[PatientKey, ...] = ()  # numbers that changed hands: to others they mean their former owner still
    rekeyed: bool = False  # a merge or a move of this batch gave it to another patient
    parted: bool = False  # a merge that had been done was refused in this batch: numbers are others' again
