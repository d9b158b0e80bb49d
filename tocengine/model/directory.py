"""Owns who can be told: post-acute facilities and practitioners, their endpoints and what they asked for."""

from datetime import date, datetime, timedelta
from enum import StrEnum

import msgspec

from tocengine.model.encounter import TransitionKind
from tocengine.model.ids import EndpointId, RecipientId


class RecipientKind(StrEnum):
    """The two kinds of recipients."""

    FACILITY = "facility"
    PRACTITIONER = "practitioner"


class Level(StrEnum):
    """How much a notice discloses; each level contains the one before it."""

    COP_MIN = "COP_MIN"
    STANDARD = "STANDARD"
    FULL = "FULL"


class ChannelKind(StrEnum):
    """The channels the engine can send through."""

    WEBHOOK = "webhook"
    FHIR = "fhir"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address of a recipient. `secrets` are references (``env:NAME``, ``file:PATH``, or literal ``whsec_``), the
    first one signs, all are valid to the receiver while one is rotated."""

    id: EndpointId
    channel: ChannelKind
    url: str
    secrets: tuple[str, ...] = ()
    headers: dict[str, str] = msgspec.field(default_factory=dict)  # values may be env:/file: references
    accepts_cancel: bool = False  # FHIR: the partner agreed to read cancellations (Da Vinci has no code for them)
    timeout_s: float = 30.0


class Subscription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a recipient wants to hear and how much of it."""

    events: tuple[TransitionKind, ...] = ()  # () is every outward kind that is on by default
    level: Level = Level.STANDARD


class Alias(msgspec.Struct, frozen=True, omit_defaults=True):
    """A destination spelling that names this facility; of one feed alone when `feed` is given."""

    value: str
    feed: str | None = None


class Recipient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A facility or practitioner of the directory."""

    recipient_id: RecipientId
    kind: RecipientKind
    name: str
    type: str = ""  # SNF, HHA, IRF, LTCH, HOSPICE, ...
    npi: str | None = None
    ccn: str | None = None
    aliases: tuple[Alias, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    subscription: Subscription = Subscription()


class PanelMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A patient whom a recipient cares for, known by identifier, from one date to another (inclusive)."""

    recipient_id: RecipientId
    domain: str
    value: str
    starts: date | None = None
    ends: date | None = None
    family: str = ""
    given: str = ""
    birth_date: str = ""
    sex: str = ""


OPT_OUT = "opt-out:"


def opt_out_of(recipient_id: str) -> RecipientId:
    """Under what an opt-out is kept: as the panel of those whom a recipient, or anybody at all (""), may not be told
    of. So it is matched by every number of the patient, as a panel is."""
    return RecipientId(f"{OPT_OUT}{recipient_id}")


def days_anywhere(at: datetime) -> tuple[date, date]:
    """The earliest and the latest day that it is somewhere on earth at `at`, which is in UTC. An opt-out has begun when
    its first day has begun anywhere, and lasts until its last one is over everywhere: it errs towards silence."""
    return (at - timedelta(hours=12)).date(), (at + timedelta(hours=14)).date()
