"""Owns what a message says of a patient and a visit, and how later statements overlay earlier ones.

Three states per field (HL7 v2.5.1 section 2.5.3): ``UNSET`` says nothing and keeps what is known, ``None``
deletes it (a field sent as ``""``), a value replaces it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.model.identity import Identifier, Organization, Practitioner
from tocengine.model.time import Timestamp


class PatientClass(StrEnum):
    """What the mapped PV1-2 / PV1-18 says the visit is; it, not the trigger, selects the matrix column."""

    EMERGENCY = "EMERGENCY"
    INPATIENT = "INPATIENT"
    OBSERVATION = "OBSERVATION"
    OUTPATIENT = "OUTPATIENT"
    PREADMIT = "PREADMIT"
    RECURRING = "RECURRING"
    OBSTETRICS = "OBSTETRICS"
    NEWBORN = "NEWBORN"
    UNKNOWN = "UNKNOWN"


class CareSetting(StrEnum):
    """Where a discharged patient goes, from the discharge disposition."""

    HOME = "HOME"
    ACUTE_HOSPITAL = "ACUTE_HOSPITAL"
    SNF = "SNF"
    ICF_ALF = "ICF_ALF"
    SPECIALTY_HOSPITAL = "SPECIALTY_HOSPITAL"
    HOME_HEALTH = "HOME_HEALTH"
    AMA = "AMA"
    ADMITTED_SAME = "ADMITTED_SAME"
    EXPIRED = "EXPIRED"
    LAW_ENFORCEMENT = "LAW_ENFORCEMENT"
    STILL_PATIENT = "STILL_PATIENT"
    FEDERAL = "FEDERAL"
    HOSPICE_HOME = "HOSPICE_HOME"
    HOSPICE_FACILITY = "HOSPICE_FACILITY"
    SWING_BED = "SWING_BED"
    IRF = "IRF"
    LTACH = "LTACH"
    NURSING_FACILITY = "NURSING_FACILITY"
    PSYCH = "PSYCH"
    CAH = "CAH"
    DISASTER_SITE = "DISASTER_SITE"
    OTHER_FACILITY = "OTHER_FACILITY"
    UNKNOWN = "UNKNOWN"


class PersonName(msgspec.Struct, frozen=True, omit_defaults=True):
    """One name; `use` is a FHIR name-use code where the source gave one."""

    family: str = ""
    given: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""
    use: str | None = None


_NAME_RANK = {
    use: rank
    for rank, uses in enumerate((("official",), ("usual", None), ("temp",), ("anonymous",), ("nickname",), ("maiden",)))
    for use in uses
}


def by_standing(names: Iterable[PersonName]) -> list[PersonName]:
    """`names`, the one to be told first: the official one before others, aliases and former names last."""
    return sorted(names, key=_name_rank)


def told_name(names: Iterable[PersonName]) -> PersonName | None:
    """The name by which a person is told: the first of `by_standing`."""
    return min(names, key=_name_rank, default=None)


def _name_rank(name: PersonName) -> int:
    return _NAME_RANK.get(name.use, len(_NAME_RANK))


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """A postal address, for matching and display."""

    lines: tuple[str, ...] = ()
    city: str = ""
    state: str = ""
    postal_code: str = ""


def told_address(stated: Iterable[tuple[str, Address]]) -> Address | None:
    """Of addresses with their FHIR address-use ("" for none) where a person lives, else another; none that is old."""
    present = (each for each in stated if each[0] != "old" and each[1] != Address())
    found = min(present, key=lambda each: each[0] not in ("home", ""), default=None)
    return found[1] if found else None


_NOBODY_BORN = "1900-01-01"
"""What systems write where they know no date of birth; nobody alive was born before it."""


def is_nobodys_birth(date: str, received_at: datetime) -> bool:
    """Whether nobody alive was born on that FHIR date, possibly partial: up to 1900-01-01, or in the future."""
    tomorrow = (received_at + timedelta(days=1)).date().isoformat()
    return date <= _NOBODY_BORN or date > tomorrow[: len(date)]


class Mark(StrEnum):
    """Where a sender asks for care with what is told of a patient or a visit (domain 1.3)."""

    PUBLICITY = "PD1-11"
    PROTECTION = "PD1-12"
    VIP = "PV1-16"
    VISIT_PUBLICITY = "PV2-21"
    VISIT_PROTECTION = "PV2-22"
    SECURITY = "MSH-8"
    CLASSIFICATION = "MSH-26"
    RESTRICTION = "ARV"
    CONSENT = "CON"


class MarkEffect(StrEnum):
    """What a mark does: nothing is told, the minimum is told, or it is noted."""

    HOLD = "hold"
    LEAST = "least"
    NOTE = "note"


_STRICTNESS: dict[MarkEffect | None, int] = {None: 0, MarkEffect.NOTE: 1, MarkEffect.LEAST: 2, MarkEffect.HOLD: 3}
Marks = dict[Mark, MarkEffect | None]
"""What is marked, and with what effect; None where a mark no longer stands."""


class PatientFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one message, or the accumulation of all so far, says of a patient."""

    identifiers: tuple[Identifier, ...] | UnsetType = UNSET
    names: tuple[PersonName, ...] | UnsetType | None = UNSET
    birth_date: str | UnsetType | None = UNSET  # FHIR date, possibly partial
    sex: str | UnsetType | None = UNSET  # FHIR administrative-gender
    deceased: bool | UnsetType | None = UNSET
    deceased_at: Timestamp | UnsetType | None = UNSET
    phones: tuple[str, ...] | UnsetType | None = UNSET
    address: Address | UnsetType | None = UNSET
    pcp: tuple[Practitioner, ...] | UnsetType | None = UNSET
    pcp_practices: tuple[Organization, ...] | UnsetType | None = UNSET
    marks: Marks | UnsetType = UNSET  # `overlay` adds them up, mark by mark


class Location(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the patient lies, with what the source profile's `location_map` knows of the unit."""

    unit: str = ""
    room: str = ""
    bed: str = ""
    facility: str = ""
    level_of_care: str = ""  # "" is acute
    sensitivity: tuple[str, ...] = ()  # HL7 v3 ActCode, such as SUD
    part2: bool = False  # a 42 CFR Part 2 program


class Disposition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A discharge disposition: `raw` as sent, `code` the NUBC code or None where it is not mapped."""

    raw: str
    code: str | None = None
    care_setting: CareSetting = CareSetting.UNKNOWN
    planned_readmission: bool = False


class Destination(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the message says the patient goes (PV1-37, Encounter.hospitalization.destination)."""

    text: str = ""
    npi: str | None = None
    ccn: str | None = None
    date: str | None = None


class Diagnosis(msgspec.Struct, frozen=True, omit_defaults=True):
    """One diagnosis; `system` a code system URI, `type` the DG1-6 code (A, W, F)."""

    code: str = ""
    system: str = ""
    text: str = ""
    type: str = ""


class DiagnosisChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A diagnosis that comes to those known, or no longer stands."""

    diagnosis: Diagnosis
    withdrawn: bool = False


class EncounterFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one message, or the accumulation of all so far, says of a visit."""

    patient_class: PatientClass | UnsetType = UNSET
    class_code: str | UnsetType = UNSET  # as sent
    patient_type: str | UnsetType = UNSET  # PV1-18 as sent
    account_number: str | UnsetType | None = UNSET
    alternate_visit: str | UnsetType | None = UNSET  # PV1-50
    location: Location | UnsetType | None = UNSET
    treating: Practitioner | UnsetType | None = UNSET
    treating_source: str | UnsetType = UNSET  # "PV1-7", "PV1-17", ...
    service: str | UnsetType | None = UNSET
    admit_source: str | UnsetType | None = UNSET  # NUBC point of origin code
    disposition: Disposition | UnsetType | None = UNSET
    destination: Destination | UnsetType | None = UNSET
    admitted: Timestamp | UnsetType | None = UNSET
    discharged: Timestamp | UnsetType | None = UNSET
    expected_discharge: Timestamp | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET
    diagnoses: tuple[Diagnosis, ...] | UnsetType | None = UNSET
    marks: Marks | UnsetType = UNSET  # as of the patient
    diagnosis_changes: tuple[DiagnosisChange, ...] | UnsetType = UNSET  # only of one message: `overlay` applies them


_VALUES = {kind: attrgetter(*kind.__struct_fields__) for kind in (PatientFacts, EncounterFacts)}
FactsT = TypeVar("FactsT", PatientFacts, EncounterFacts)


def overlay(known: FactsT, said: FactsT) -> FactsT:
    """`known` with every field that `said` states (a value, or None to delete) replaced."""
    of_kind = type(said)
    stated = {
        name: value
        for name, value in zip(of_kind.__struct_fields__, _VALUES[of_kind](said), strict=True)
        if value is not UNSET
    }
    if known.marks is not UNSET and "marks" in stated:
        stated["marks"] = {**known.marks, **stated["marks"]}
    changes = stated.pop("diagnosis_changes", None)
    if changes is not None and isinstance(known, EncounterFacts):
        stated["diagnoses"] = _changed(stated.get("diagnoses", known.diagnoses) or (), changes)
    return msgspec.structs.replace(known, **stated) if stated else known


def _changed(known: Sequence[Diagnosis], changes: Sequence[DiagnosisChange]) -> tuple[Diagnosis, ...]:
    """One that is withdrawn goes whatever its type was (DG1-6); one of the same code and type takes the place of it."""
    kept = list(known)
    for change in changes:
        said = change.diagnosis
        if change.withdrawn:
            kept = [each for each in kept if not _same(each, said)]
        elif found := [place for place, each in enumerate(kept) if each.type == said.type and _same(each, said)]:
            kept[found[0]] = said
        else:
            kept.append(said)
    return tuple(kept)


def _same(one: Diagnosis, other: Diagnosis) -> bool:
    if one.code or other.code:
        return (one.system, one.code) == (other.system, other.code)
    return one.text == other.text


def standing(*said: PatientFacts | EncounterFacts) -> Marks:
    """The marks that stand, of all who speak."""
    return strictest(*(each.marks for each in said if each.marks is not UNSET))


def strictest(*said: Marks) -> Marks:
    """The marks of all, each with the most it does for anybody."""
    found: Marks = {}
    for marks in said:
        for mark, effect in marks.items():
            if effect is not None and _STRICTNESS[effect] > _STRICTNESS[found.get(mark)]:
                found[mark] = effect
    return found


T = TypeVar("T")


def known(value: T | UnsetType | None) -> T | None:
    """The value, or None where nothing was said or it was deleted."""
    return None if value is UNSET else value
