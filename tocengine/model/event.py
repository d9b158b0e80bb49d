"""Owns the canonical event: what one message said, normalized; not yet what it means."""

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.model.facts import EncounterFacts, PatientFacts
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import FacilityId, FeedName, MessageId
from tocengine.model.message import ContentType
from tocengine.model.time import Timestamp


class Processing(StrEnum):
    """Whether a message may lead to notices (MSH-11; HL7 tables 0103 and 0207)."""

    PRODUCTION = "PRODUCTION"
    TEST = "TEST"
    INITIAL_LOAD = "INITIAL_LOAD"


class Merge(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One MRG group: `prior` patient key ceases to be used in favour of `surviving` (A40)."""

    prior: PatientKey
    surviving: PatientKey


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The typed summary the engine tracks and routes on; the exchangeable content travels beside it as FHIR.

    `trigger` is the HL7 v2 trigger (FHIR messages get the trigger they are equivalent to). Canonical order
    of a visit's events is `order_key`. A message about two patients (A17) gives two events, told apart by
    `part`; a re-normalized message gives the next `revision`.
    """

    message_id: MessageId
    part: int = 0
    revision: int = 0
    feed: FeedName
    facility: FacilityId
    content_type: ContentType
    trigger: str
    control_id: str
    message_day: str  # YYYY-MM-DD of MSH-7 (UTC), else of receipt: the dedupe table's partition
    received_at: datetime
    recorded: Timestamp
    effective: Timestamp | None = None
    sequence: int | None = None  # MSH-13
    processing: Processing = Processing.PRODUCTION
    shadow: bool = False
    handled: bool = True  # False: stored and marked "not handled yet"
    answered: str = ""  # the acknowledgment code given, or the HTTP status
    patient: PatientKey | None = None
    visit: VisitKey | None = None
    merges: tuple[Merge, ...] = ()
    patient_facts: PatientFacts | UnsetType = UNSET
    encounter_facts: EncounterFacts | UnsetType = UNSET
    cleared: tuple[str, ...] = ()  # FHIR elements deleted by "": "Patient.telecom"
    flags: tuple[str, ...] = ()

    @property
    def order_key(self) -> tuple[datetime, int, datetime, str]:
        """Recorded, then MSH-13, then received, then the id, so that the order is total."""
        return self.recorded.at, self.sequence or 0, self.received_at, self.message_id.hex


class EventRecord(msgspec.Struct, frozen=True):
    """`data` of a `toc.events.v1` record. `fhir`, a collection Bundle in JSON, stays undecoded up to routing."""

    summary: Event
    fhir: msgspec.Raw
