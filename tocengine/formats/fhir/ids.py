"""Owns the ids of FHIR resources: derived from what identifies the thing, so that every message names it alike.

The same patient, visit, practitioner or place has the same id in every bundle the engine makes; patients and
encounters have the ids under which the engine tracks them (`model.identity`).
"""

from uuid import UUID

from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import FacilityId, derive_text
from tocengine.model.remembering import remembered

URN = "urn:uuid:"


@remembered(16_384)
def resource_id(kind: str, *parts: str) -> str:
    """The id of a resource of `kind` identified by `parts` (authority, value, ...)."""
    return derive_text(kind, *parts)


@remembered(16_384)
def patient_id(key: PatientKey) -> str:
    """The id of the Patient with this key."""
    return str(key.patient_id)


@remembered(16_384)
def encounter_id(key: VisitKey) -> str:
    """The id of the Encounter with this key."""
    return str(key.encounter_id)


def facility_id(facility: FacilityId) -> str:
    """The id of the Organization that stands for a sending facility."""
    return resource_id("facility", facility)


def full_url(identifier: str | UUID) -> str:
    """The ``urn:uuid:`` form, used as fullUrl of an entry and in references to it."""
    return f"{URN}{identifier}"
