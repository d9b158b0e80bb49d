"""Owns the canonical event: what one message said, normalized; not yet what it means."""

import re
from datetime import datetime
from enum import StrEnum
from functools import cached_property

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.model.facts import EncounterFacts, PatientFacts
from tocengine.model.identity import AccountKey, PatientKey, VisitKey
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


class VisitMerge(msgspec.Struct, frozen=True, kw_only=True):
    """A visit's number ceases in favour of another: a merge of visits or a new number (A42, A50, A51, MRG of A06)."""

    prior: VisitKey
    surviving: VisitKey


class AccountMerge(msgspec.Struct, frozen=True, kw_only=True):
    """An account's number ceases in favour of another (A35, A36, A41, A49)."""

    prior: AccountKey
    surviving: AccountKey


class Move(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something filed under patient `prior` belongs to another person, `surviving`: one visit (A45), an account with
    all its visits (A44), or, where neither is named, the number itself with everything under it (A43).

    `into` is the account a moved visit or account has from then on.
    """

    prior: PatientKey
    surviving: PatientKey
    visit: VisitKey | None = None
    account: AccountKey | None = None
    into: AccountKey | None = None


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Two records the sender holds to be of one person (A24), or no longer (A37). They stay two records."""

    one: PatientKey
    other: PatientKey
    stands: bool = True


class Rekeying(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says of keys, beyond merges of patients."""

    visits: tuple[VisitMerge, ...] = ()
    accounts: tuple[AccountMerge, ...] = ()
    moves: tuple[Move, ...] = ()
    links: tuple[Link, ...] = ()


class MovementAction(StrEnum):
    """What a message does to the movement it names (ZBE-4)."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    CANCEL = "CANCEL"


class NamedMovement(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The movement a message names by an id of its sender (IHE PAM, segment ZBE).

    Several ids may name the same movement (ZBE-1 repeats). `starts` is when it began (ZBE-2), `historic` that it is
    not where the patient is now (ZBE-5), `trigger` the event that first stated it (ZBE-6).
    """

    ids: tuple[str, ...]
    action: MovementAction
    trigger: str = ""
    starts: Timestamp | None = None
    historic: bool = False


CODE = re.compile(r"[A-Za-z0-9._/+-]{1,12}")
NO_CODE = "?"
"""What stands for text that is no code: it may be about a person."""


class UnmappedCode(msgspec.Struct, frozen=True, order=True):
    """A code that `table` of the feed does not know, as the rule looked it up; NO_CODE where it was free text."""

    table: str
    code: str

    @classmethod
    def sent(cls, table: str, text: str) -> "UnmappedCode":
        """What may be counted and shown of `text`."""
        return cls(table, text if CODE.fullmatch(text) else NO_CODE)


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """The typed summary the engine tracks and routes on; the exchangeable content travels beside it as FHIR.

    `trigger` is the HL7 v2 trigger (FHIR messages get the trigger they are equivalent to). Canonical order
    of a visit's events is `order_key`. A message about two patients (A17) gives two events, told apart by
    `part`; a re-normalized message gives the next `revision`. `released_at` is never on the log: the tracker notes
    when it applied an event it had held back, which counts as known since then.
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
    rekeying: Rekeying | None = None
    movement: NamedMovement | None = None
    patient_facts: PatientFacts | UnsetType = UNSET
    encounter_facts: EncounterFacts | UnsetType = UNSET
    cleared: tuple[str, ...] = ()  # FHIR elements deleted by "": "Patient.telecom"
    flags: tuple[str, ...] = ()
    unmapped: tuple[UnmappedCode, ...] = ()
    released_at: datetime | None = None

    @property
    def known_since(self) -> datetime:
        """When it came to count: on receipt, or when it was released."""
        return self.released_at or self.received_at

    @cached_property
    def order_key(self) -> tuple[datetime, int, datetime, str]:
        """Recorded, then MSH-13, then received, then the id, so that the order is total."""
        return self.recorded.at, self.sequence or 0, self.received_at, self.message_id.hex


class EventRecord(msgspec.Struct, frozen=True):
    """`data` of a `toc.events.v1` record. `fhir`, a collection Bundle in JSON, stays undecoded up to routing."""

    summary: Event
    fhir: msgspec.Raw


class LoggedEvent(EventRecord, frozen=True):
    """An event as it was read from a partition of the log."""

    partition: int = 0
