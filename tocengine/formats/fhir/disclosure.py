"""Owns what each disclosure level shows of a notice, as lists of what is allowed (domain: content levels).

Whatever is not listed is not shown; a new element or resource stays inside until someone lists it here.
"""

from collections.abc import Mapping

import msgspec

from tocengine.formats.fhir.resources import DA_VINCI, US_CORE
from tocengine.model.directory import Level
from tocengine.model.encounter import TransitionStatus
from tocengine.model.notice import Notice

_IDENTITY = frozenset({"resourceType", "id"})


class Disclosure(msgspec.Struct, frozen=True, kw_only=True):
    """One level. `encounter` and `patient` are the elements shown; `carried` the elements of the chart's other
    resources by type; `profiles` what those then claim to conform to."""

    patient: frozenset[str]
    encounter: frozenset[str]
    participants: frozenset[str] = frozenset({"ATND"})
    hospitalization: frozenset[str] = frozenset()
    times: bool = True  # the whole period; otherwise the time of the event alone
    carried: Mapping[str, frozenset[str]] = msgspec.field(default_factory=dict)
    profiles: Mapping[str, str] = msgspec.field(default_factory=dict)


_COP_MIN = Disclosure(
    patient=frozenset({"name"}),
    encounter=frozenset({"status", "class", "type", "subject", "participant", "period", "serviceProvider"}),
    times=False,
)
_STANDARD = Disclosure(
    patient=frozenset(
        {
            "name",
            "identifier",
            "birthDate",
            "gender",
            "telecom",
            "deceasedBoolean",
            "deceasedDateTime",
            "generalPractitioner",
        }
    ),
    encounter=_COP_MIN.encounter | {"identifier", "classHistory", "hospitalization", "location"},
    hospitalization=frozenset({"dischargeDisposition", "destination"}),
    carried={
        "Coverage": _IDENTITY | {"status", "beneficiary", "payor"},
        "Organization": _IDENTITY | {"active", "name"},
    },
)
_FULL = Disclosure(
    patient=_STANDARD.patient | {"address", "maritalStatus", "contact"},
    encounter=_STANDARD.encounter | {"serviceType", "priority", "reasonCode", "diagnosis"},
    participants=frozenset({"ATND", "REF", "CON", "ADM"}),
    hospitalization=_STANDARD.hospitalization | {"admitSource"},
    carried={
        "Condition": _IDENTITY
        | {
            "clinicalStatus",
            "verificationStatus",
            "category",
            "code",
            "subject",
            "encounter",
            "onsetDateTime",
            "recordedDate",
        },
        "AllergyIntolerance": _IDENTITY
        | {
            "clinicalStatus",
            "verificationStatus",
            "type",
            "category",
            "criticality",
            "code",
            "patient",
            "onsetDateTime",
            "reaction",
        },
        "Coverage": _IDENTITY
        | {"identifier", "status", "type", "subscriberId", "beneficiary", "relationship", "period", "payor", "class"},
        "DocumentReference": _IDENTITY
        | {
            "masterIdentifier",
            "status",
            "docStatus",
            "type",
            "category",
            "subject",
            "date",
            "description",
            "content",
            "context",
        },
        "RelatedPerson": _IDENTITY | {"active", "patient", "relationship", "name", "telecom", "address"},
        "Organization": _IDENTITY | {"identifier", "active", "name", "telecom", "address"},
    },
    profiles={
        "Condition": DA_VINCI + "adt-notification-condition",
        "Coverage": DA_VINCI + "adt-notification-coverage",
        "AllergyIntolerance": US_CORE + "us-core-allergyintolerance",
        "RelatedPerson": US_CORE + "us-core-relatedperson",
        "Organization": US_CORE + "us-core-organization",
    },
)
_LEVELS = {Level.COP_MIN: _COP_MIN, Level.STANDARD: _STANDARD, Level.FULL: _FULL}


def disclosure_of(notice: Notice) -> Disclosure:
    """What `notice` may show. A retraction goes to someone who should not have been told: the least."""
    if notice.status is TransitionStatus.RETRACTED:
        return _COP_MIN
    return _LEVELS[notice.level]
