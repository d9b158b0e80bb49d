"""Owns the code translations: the tables of `tables/*.toml`, checked when loaded, with a feed's local maps on top.

A code without a row is never guessed: the rule keeps it as sent and raises ``unmapped:FIELD``.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Protocol, TypeVar, cast

import msgspec

from tocengine.formats.fhir.resources import (
    ADMIT_SOURCE,
    DIAGNOSIS_ROLE,
    MARITAL_STATUS,
    NUBC_DISPOSITION,
    NULL_FLAVOR,
    PRIORITY,
    RELIGION,
    SERVICE_TYPE,
    TERMINOLOGY,
    Resource,
    coding,
    concept,
    is_identifier_type,
)
from tocengine.model.facts import CareSetting, PatientClass
from tocengine.model.profile import Source, SourceProfile

RowT = TypeVar("RowT")
ADMITTED_HERE = "09"
"""NUBC: the closing of an outpatient claim, not a discharge."""
MAPPABLE = (
    "class", "patient_type", "disposition", "admit_source", "service", "sex", "relationship",
    "diagnosis.type", "diagnosis.system", "allergy.type", "allergy.severity", "marital_status.status", "visit.priority",
    "observation.kept", "observation.status", "observation.interpretation", "identifier_type", "language",
    "relationship.subscriber", "visit.admission_type", "name_use", "telecom.use", "telecom.system", "address.use",
    "religion.affiliation", "visit.arrival",
)  # fmt: skip
"""Tables a feed's local codes can be added to while the engine runs (``tocengine codes map``)."""
NUBC_ORIGIN = "https://www.nubc.org/CodeSystem/PointOfOrigin"


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the rows of tables that have more than one column."""


class Trigger(Row, frozen=True):
    """A row of `trigger.toml`."""

    kind: str
    effective: str = ""
    status: str = "unknown"
    changes: tuple[str, ...] = ()


class IdentifierType(Row, frozen=True):
    """A row of `identifier_type.toml`."""

    rank: int
    keep: bool = True
    code: str | None = None  # of table 0203; None where the code sent is one


class DispositionRow(Row, frozen=True):
    """A row of `disposition.toml`."""

    label: str
    setting: CareSetting
    fhir: str | None = None
    planned_readmission: bool = False
    retired: bool = False


class AdmitSourceRow(Row, frozen=True):
    """A row of `admit_source.toml`."""

    label: str
    fhir: str | None = None
    display: str = ""


class ServiceRow(Row, frozen=True):
    """A row of `service.toml`."""

    hl7: bool = False
    code: str | None = None
    display: str = ""


class DiagnosisType(Row, frozen=True):
    """A row of `diagnosis.toml`."""

    verification: str
    role: str | None = None


class AllergyType(Row, frozen=True):
    """A row of `allergy.toml`."""

    type: str | None = None
    category: str | None = None


class AllergySeverity(Row, frozen=True):
    """A row of `allergy.toml`."""

    criticality: str | None = None
    severity: str | None = None


_FILLING = re.compile(r"0+|([1-9])\1{5,}|[\W_]+").fullmatch
"""Numbers that only fill a field: zeros, one digit again and again, no letter or digit at all."""


class Codes(msgspec.Struct, frozen=True):
    """Every table, ready to look up. One instance serves all messages of a feed."""

    triggers: Mapping[str, Trigger]
    classes: Mapping[str, PatientClass]
    local_classes: Mapping[str, PatientClass]  # those of the feed's own maps alone
    patient_types: Mapping[str, PatientClass]
    sexes: Mapping[str, str]
    identifier_types: Mapping[str, IdentifierType]
    name_uses: Mapping[str, str]
    telecom_uses: Mapping[str, str]
    telecom_systems: Mapping[str, str]
    telecom_uses_by_equipment: Mapping[str, str]
    address_uses: Mapping[str, str]
    address_types: Mapping[str, str]
    dispositions: Mapping[str, DispositionRow]
    local_dispositions: Mapping[str, str]
    destinations: Mapping[str, str]  # PV1-37 in small letters -> NPI or CCN
    admit_sources: Mapping[str, Resource]
    services: Mapping[str, Resource]
    diagnosis_types: Mapping[str, DiagnosisType]
    diagnosis_roles: Mapping[str, Resource]
    code_systems: Mapping[str, str]
    allergy_types: Mapping[str, AllergyType]
    allergy_severities: Mapping[str, AllergySeverity]
    no_allergies: Mapping[str, str]
    relationships: Mapping[str, Resource]
    organizations: Mapping[str, bool]
    residences: Mapping[str, bool]
    subscribers: Mapping[str, str]
    marital_statuses: Mapping[str, Resource]
    languages: Mapping[str, Resource]
    religions: Mapping[str, Resource]
    priorities: Mapping[str, Resource]
    admission_types: Mapping[str, Resource]
    arrivals: Mapping[str, Resource]
    participations: Mapping[str, str]
    observation_statuses: Mapping[str, str]
    observation_values: Mapping[str, str]
    interpretations: Mapping[str, Resource]
    observations_kept: Mapping[str, str]
    unit_systems: Mapping[str, str]
    placeholder_numbers: Mapping[str, bool]
    placeholder_names: Mapping[str, bool]

    def is_placeholder(self, number: str) -> bool:
        """Whether `number` stands where a sender knows none: it names no patient, visit, account or practitioner."""
        return bool(self.placeholder_numbers.get(number.upper())) or _FILLING(number) is not None


class Wrap(Protocol):
    """Puts something around each table; `explain` notes what was looked up."""

    def __call__(self, table: str, rows: Mapping[str, RowT]) -> Mapping[str, RowT]:
        """The table to look up in."""


def plain(table: str, rows: Mapping[str, RowT]) -> Mapping[str, RowT]:
    """The table as it is."""
    return rows


@lru_cache(maxsize=32)
def _table(name: str) -> Mapping[str, object]:
    content: Mapping[str, object] = tomllib.loads(
        files(__package__).joinpath("tables", f"{name}.toml").read_text("utf-8")
    )
    return content


def _rows(name: str, row: type[RowT], part: str = "") -> dict[str, RowT]:
    content = _table(name)
    return msgspec.convert(content[part] if part else content, dict[str, row])  # type: ignore[valid-type]


def _text(name: str, part: str = "") -> dict[str, str]:
    return _rows(name, str, part)


def _flags(name: str, part: str) -> dict[str, bool]:
    return _rows(name, bool, part)


def _each(rows: Mapping[str, RowT], build: Callable[[str, RowT], Resource]) -> dict[str, Resource]:
    return {code: build(code, row) for code, row in rows.items()}


def codes_for(source: Source, wrap: Wrap = plain) -> Codes:
    """The tables with the local maps of a feed: those of its profile, under them those made by ``codes map``.

    Raises msgspec.ValidationError for a table that is wrong.
    """
    profile, local = source.profile, _Local(source.local_codes)
    classes = {**local.classes("class"), **profile.class_map}
    roles = {row.role for row in _rows("diagnosis", DiagnosisType, "type").values() if row.role}
    return Codes(
        triggers=wrap("trigger", _triggers(profile)),
        classes=wrap("class", {**_rows("class", PatientClass), **classes}),
        local_classes=wrap("class_map", classes),
        patient_types=wrap("patient_type_map", {**local.classes("patient_type"), **profile.patient_type_map}),
        sexes=wrap("sex", local.over("sex", _text("sex"))),
        identifier_types=wrap("identifier_type", local.over("identifier_type", _identifier_types())),
        name_uses=wrap("name_use", local.over("name_use", _text("name_use"))),
        telecom_uses=wrap("telecom.use", local.over("telecom.use", _text("telecom", "use"))),
        telecom_systems=wrap("telecom.system", local.over("telecom.system", _text("telecom", "system"))),
        telecom_uses_by_equipment=wrap("telecom.use_by_equipment", _text("telecom", "use_by_equipment")),
        address_uses=wrap("address.use", local.over("address.use", _text("address", "use"))),
        address_types=wrap("address.type", _text("address", "type")),
        dispositions=wrap("disposition", _rows("disposition", DispositionRow)),
        local_dispositions=wrap(
            "disposition_map",
            {
                **local.of("disposition"),
                **dict.fromkeys(profile.ed_close_disposition_codes, ADMITTED_HERE),
                **profile.disposition_map,
            },
        ),
        destinations=wrap(
            "destination_aliases",
            {" ".join(text.split()).casefold(): number for text, number in profile.destination_aliases.items()},
        ),
        admit_sources=wrap(
            "admit_source",
            local.over("admit_source", _each(_rows("admit_source", AdmitSourceRow), _admit_source)),
        ),
        services=wrap("service", local.over("service", _each(_rows("service", ServiceRow), _service))),
        diagnosis_types=wrap("diagnosis.type", local.over("diagnosis.type", _rows("diagnosis", DiagnosisType, "type"))),
        diagnosis_roles={code: concept(coding(DIAGNOSIS_ROLE, code)) for code in roles},
        code_systems=wrap("diagnosis.system", local.over("diagnosis.system", _text("diagnosis", "system"))),
        allergy_types=wrap("allergy.type", local.over("allergy.type", _rows("allergy", AllergyType, "type"))),
        allergy_severities=wrap(
            "allergy.severity", local.over("allergy.severity", _rows("allergy", AllergySeverity, "severity"))
        ),
        no_allergies=wrap("allergy.none", _text("allergy", "none")),
        relationships=wrap("relationship", local.over("relationship", _relationships())),
        organizations=wrap("relationship.organization", _flags("relationship", "organization")),
        residences=wrap("relationship.residence", _flags("relationship", "residence")),
        subscribers=wrap(
            "relationship.subscriber", local.over("relationship.subscriber", _text("relationship", "subscriber"))
        ),
        marital_statuses=wrap("marital_status", local.over("marital_status.status", _marital_statuses())),
        languages=wrap("language", local.over("language", _languages())),
        religions=wrap("religion", local.over("religion.affiliation", _religions())),
        priorities=wrap("visit.priority", local.over("visit.priority", _priorities())),
        admission_types=wrap(
            "visit.admission_type",
            local.over("visit.admission_type", _in_system("visit", "admission_type", TERMINOLOGY + "v2-0007")),
        ),
        arrivals=wrap(
            "visit.arrival",
            local.over(
                "visit.arrival",
                {code: coding(TERMINOLOGY + "v2-0430", code) for code in _flags("visit", "arrival")},
            ),
        ),
        participations=wrap("visit.participation", _text("visit", "participation")),
        observation_statuses=wrap(
            "observation.status", local.over("observation.status", _text("observation", "status"))
        ),
        interpretations=wrap(
            "observation.interpretation",
            local.over(
                "observation.interpretation",
                _in_system("observation", "interpretation", TERMINOLOGY + "v3-ObservationInterpretation"),
            ),
        ),
        observation_values=wrap("observation.value", _text("observation", "value")),
        observations_kept=wrap("observation.kept", local.over("observation.kept", _text("observation", "kept"))),
        unit_systems=wrap("observation.unit", _text("observation", "unit")),
        placeholder_numbers=wrap("placeholder.number", _flags("placeholder", "number")),
        placeholder_names=wrap("placeholder.name", _flags("placeholder", "name")),
    )


class _Local:
    """The codes of one feed that were mapped while the engine ran: table -> code sent -> what it means."""

    def __init__(self, codes: Mapping[str, Mapping[str, str]]) -> None:
        self._codes = codes

    def of(self, table: str) -> Mapping[str, str]:
        """The map of one table; a code counts in capitals too, as some rules look it up."""
        sent = self._codes.get(table, {})
        return {**{code.upper(): value for code, value in sent.items()}, **sent}

    def classes(self, table: str) -> dict[str, PatientClass]:
        """As of a table whose codes mean a class of patients."""
        return {code: PatientClass(value) for code, value in self.of(table).items() if value in tuple(PatientClass)}

    def over(self, table: str, rows: Mapping[str, RowT]) -> dict[str, RowT]:
        """`rows` with the local codes, each meaning what one of `rows` means."""
        return {**rows, **{code: rows[value] for code, value in self.of(table).items() if value in rows}}


def meanings(table: str) -> Sequence[str]:
    """What a local code of `table` may be mapped to: classes, or the codes the table has itself; () of no table."""
    if table in ("class", "patient_type"):
        return tuple(PatientClass)
    if table not in MAPPABLE:
        return ()
    name, _, part = table.partition(".")
    content = _relationships() if table == "relationship" else _table(name)
    rows = content[part] if part else content
    return tuple(code for code in cast(Mapping[str, object], rows) if code)


def _triggers(profile: SourceProfile) -> dict[str, Trigger]:
    """A23 deletes a record; only some senders mean by it that the visit is cancelled (domain 2.1)."""
    rows = _rows("trigger", Trigger)
    if not profile.a23_is_cancel_visit:
        del rows["A23"]
    if profile.enabled_events:
        return {trigger: row for trigger, row in rows.items() if trigger in profile.enabled_events}
    return rows


def _identifier_types() -> dict[str, IdentifierType]:
    rows = _rows("identifier_type", IdentifierType)
    return {
        code: msgspec.structs.replace(row, code=row.code or code) if is_identifier_type(code) or row.code else row
        for code, row in rows.items()
    }


def _admit_source(code: str, row: AdmitSourceRow) -> Resource:
    sent = coding(TERMINOLOGY + "v2-0023" if code.isdigit() else NUBC_ORIGIN, code)
    return concept(coding(ADMIT_SOURCE, row.fhir, row.display), sent) if row.fhir else concept(sent)


def _service(code: str, row: ServiceRow) -> Resource:
    sent = coding(TERMINOLOGY + "v2-0069", code)
    return concept(coding(SERVICE_TYPE, row.code, row.display), sent) if row.code else concept(sent)


def _marital_statuses() -> dict[str, Resource]:
    return {
        **{code: concept(coding(MARITAL_STATUS, status)) for code, status in _text("marital_status", "status").items()},
        **{code: concept(coding(NULL_FLAVOR, reason)) for code, reason in _text("marital_status", "none").items()},
    }


def _religions() -> dict[str, Resource]:
    return {
        **{code: concept(coding(RELIGION, known)) for code, known in _text("religion", "affiliation").items()},
        **_in_system("religion", "hl7", TERMINOLOGY + "v2-0006"),
    }


def _priorities() -> dict[str, Resource]:
    return {code: concept(coding(PRIORITY, known)) for code, known in _text("visit", "priority").items()}


def _languages() -> dict[str, Resource]:
    return {code: concept(coding("urn:ietf:bcp:47", tag)) for code, tag in _text("language").items()}


def _in_system(name: str, part: str, system: str) -> dict[str, Resource]:
    """The codes of a table that FHIR has as they are sent."""
    return {code: concept(coding(system, code)) for code in _flags(name, part)}


def _relationships() -> dict[str, Resource]:
    roles = _rows("relationship", str, "role")
    return {
        **{code: concept(coding(TERMINOLOGY + "v3-RoleCode", role)) for code, role in roles.items()},
        **{code: concept(coding(TERMINOLOGY + "v2-0063", code)) for code in _rows("relationship", str, "hl7")},
        **{
            code: concept(coding(TERMINOLOGY + "v2-0131", role))
            for code, role in _text("relationship", "contact").items()
        },
    }


def nubc(raw: str) -> str | None:
    """A NUBC code as two digits, from ``3``, ``03`` or ``003``; None for anything that is no number."""
    if not (raw.isascii() and raw.isdigit()):
        return None
    number = raw.lstrip("0").rjust(2, "0")
    return number if len(number) == 2 else None


__all__ = ["MAPPABLE", "NUBC_DISPOSITION", "Codes", "Wrap", "codes_for", "meanings", "nubc", "plain"]
