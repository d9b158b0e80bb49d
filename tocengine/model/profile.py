"""Owns the source profile: what the engine has to know about a sender to read its messages rightly, as data."""

from collections.abc import Mapping

import msgspec

from tocengine.model.facts import Mark, MarkEffect, PatientClass
from tocengine.model.ids import FacilityId, FeedName

SNAPSHOT_SEGMENTS = ("DG1", "AL1", "IN1", "NK1", "PR1", "OBX")
"""Repeating segments without action codes, of which a message that has any states all there are."""


PRIVACY_MARKS = {
    Mark.PROTECTION: MarkEffect.HOLD,
    Mark.VISIT_PROTECTION: MarkEffect.HOLD,
    Mark.RESTRICTION: MarkEffect.HOLD,
    Mark.CONSENT: MarkEffect.HOLD,
    Mark.CLASSIFICATION: MarkEffect.HOLD,
    Mark.VIP: MarkEffect.LEAST,
    Mark.PUBLICITY: MarkEffect.LEAST,
    Mark.VISIT_PUBLICITY: MarkEffect.LEAST,
    Mark.SECURITY: MarkEffect.LEAST,
}
"""What each mark does where the profile says nothing of it: a stated protection holds back, a courtesy limits."""


class UnitTraits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is known of a unit (PV1-3.1)."""

    part2: bool = False
    sensitivity: tuple[str, ...] = ()
    level_of_care: str = ""  # "" acute; swing-bed, hospice, rehab, ...
    facility: str = ""


class SendingFacility(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A hospital, as notices show it."""

    id: FacilityId
    name: str
    npi: str | None = None
    ccn: str | None = None


class IdentifierDomain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An assigning authority with the other names it goes by; `system` is the URI used in FHIR."""

    name: str
    aliases: tuple[str, ...] = ()
    system: str = ""


class SenderMatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which MSH-3 and MSH-4 (first components) and client certificates a feed accepts; empty accepts any."""

    msh3: str = ""
    msh4: str = ""
    certificates: tuple[str, ...] = ()  # sha256:HEX, a common name or an alternative name


class SourceProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The keys of ``[profiles.NAME]`` that are in force so far (domain: source profile keys)."""

    match: SenderMatch = SenderMatch()
    time_zone: str = "America/New_York"
    charset_default: str = ""
    visit_key: str = "PV1-19"
    mrn_authority: str = ""  # "" is MSH-4.1
    class_map: dict[str, PatientClass] = msgspec.field(default_factory=dict)
    patient_type_map: dict[str, PatientClass] = msgspec.field(default_factory=dict)
    disposition_map: dict[str, str] = msgspec.field(default_factory=dict)
    nubc_dispositions: bool = True  # bare digits in PV1-36 are NUBC codes
    location_map: dict[str, UnitTraits] = msgspec.field(default_factory=dict)
    trust_evn2: bool = True
    a23_is_cancel_visit: bool = False
    late_after_h: int = 24
    holdback_s: int = 30
    stale_open_days: int = 30  # 0: never asked about
    ack_policy: str = "accept_and_quarantine"  # or "strict"
    unsupported_types: str = "reject"  # or "ignore": stored and answered AA
    test_patient_patterns: tuple[str, ...] = ("ZZTEST",)
    account_is_visit: bool = False  # PID-18 identifies the visit, whatever visit_key says
    enabled_events: tuple[str, ...] = ()  # triggers that count, such as A01; others are stored. () is all
    go_live_at: str = ""  # ISO 8601 with an offset: what took effect before is loaded silently
    treating_order: tuple[str, ...] = (
        "ROL",
        "PV1-7",
        "PV1-17",
        "PV1-9",
    )  # in this order
    null_policy: str = "delete"  # or "ignore": "" says nothing
    snapshot_segments: tuple[str, ...] = SNAPSHOT_SEGMENTS  # of the others, what a message has comes to what is known
    ed_close_disposition_codes: tuple[str, ...] = ()  # local PV1-36 codes that mean "admitted here" (NUBC 09)
    destination_aliases: dict[str, str] = msgspec.field(default_factory=dict)  # PV1-37 text -> NPI or CCN
    privacy_marks: dict[Mark, MarkEffect] = msgspec.field(default_factory=dict)  # over `PRIVACY_MARKS`
    z_paths: dict[str, str] = msgspec.field(default_factory=dict)  # an empty standard field -> the Z field to read


VISIT_KEYS = ("PV1-19", "PV1-50", "PID-18")
"""The fields that may name the visit."""
HL7V2_ONLY = (
    "match",
    "charset_default",
    "visit_key",
    "mrn_authority",
    "patient_type_map",
    "nubc_dispositions",
    "trust_evn2",
    "a23_is_cancel_visit",
    "ack_policy",
    "unsupported_types",
    "account_is_visit",
    "null_policy",
    "snapshot_segments",
    "privacy_marks",
    "z_paths",
)
"""Keys that speak of segments, fields or acknowledgments: in FHIR there is nothing they could mean."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A feed with everything the normalizer needs to read it: its profile, facility and identifier domains."""

    feed: FeedName
    facility: SendingFacility
    profile: SourceProfile
    shadow: bool = False
    domains: dict[str, IdentifierDomain] = msgspec.field(default_factory=dict)  # by name and by every alias
    local_codes: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    """Table -> code -> meaning, as mapped while the engine runs. What the profile maps wins over it."""


class EngineIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this engine is to its partners: the intermediary in every notice, and the hospitals it speaks for."""

    name: str
    base_url: str  # FHIR base, such as https://toc.example.org/fhir
    organization: str
    facilities: Mapping[FacilityId, SendingFacility] = msgspec.field(default_factory=dict)
    domains: Mapping[str, IdentifierDomain] = msgspec.field(default_factory=dict)  # by name and by every alias
