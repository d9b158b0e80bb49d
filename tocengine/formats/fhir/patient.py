"""Owns the Patient of a notification: the tracked facts, with what only the chart knows, at a disclosure level."""

from collections.abc import Mapping

import msgspec

from tocengine.formats.fhir import facts
from tocengine.formats.fhir.disclosure import Disclosure
from tocengine.formats.fhir.elements import declared
from tocengine.formats.fhir.ids import URN, patient_id
from tocengine.formats.fhir.resources import (
    US_CORE,
    Json,
    Resource,
    absent,
    profiled,
    reference,
)
from tocengine.model.encounter import Snapshot
from tocengine.model.facts import PatientFacts, by_standing, known
from tocengine.model.identity import Identifier, Organization, Practitioner
from tocengine.model.profile import IdentifierDomain


class Rendered(msgspec.Struct, frozen=True):
    """A resource of a notification with those that it refers to."""

    resource: Resource
    others: list[Resource]


def tracked_patient(
    snapshot: Snapshot,
    carried: Mapping[str, Resource],
    level: Disclosure,
    domains: Mapping[str, IdentifierDomain],
) -> Rendered:
    """The US Core Patient. What the profile demands and the level hides is marked absent (`masked`)."""
    identity = patient_id(snapshot.patient_key)
    content = _content(snapshot, declared(carried.get(URN + identity, {}), "Patient"), domains)
    others: list[Resource] = []
    if "generalPractitioner" in level.patient:
        others = _primary_care(snapshot.patient, identity, domains)
        if others:
            content["generalPractitioner"] = [reference(str(each["id"])) for each in others]
    found: Resource = {
        "resourceType": "Patient",
        "id": identity,
        "meta": profiled(US_CORE + "us-core-patient"),
        **{name: value for name, value in content.items() if name in level.patient},
    }
    if "identifier" not in found:
        reason = "unknown" if "identifier" in level.patient else "masked"
        found["identifier"] = [{"_system": absent(reason), "_value": absent(reason)}]
    if "name" not in found:
        found["name"] = [absent("unknown")]
    return Rendered(found, others)


def _content(snapshot: Snapshot, charted: Resource, domains: Mapping[str, IdentifierDomain]) -> dict[str, Json]:
    said = snapshot.patient
    content: dict[str, Json] = {
        name: value for name, value in charted.items() if name not in ("generalPractitioner", "meta")
    }
    stated: dict[str, Json] = {
        "identifier": list(_identifiers(snapshot, charted, domains)),
        "name": [shown for each in by_standing(known(said.names) or ()) if (shown := facts.human_name(each))],
        "birthDate": known(said.birth_date),
        "gender": known(said.sex),
        "deceasedDateTime": at.text if (at := known(said.deceased_at)) else None,
        "deceasedBoolean": None if at else known(said.deceased),
    }
    address = known(said.address)
    if address is not None and "address" not in charted:
        stated["address"] = [where] if (where := facts.postal_address(address)) else None
    if "telecom" not in charted and (phones := known(said.phones)):
        stated["telecom"] = [{"system": "phone", "value": phone} for phone in phones]
    if stated["deceasedDateTime"] or stated["deceasedBoolean"] is not None:
        content.pop("deceasedDateTime", None)
        content.pop("deceasedBoolean", None)
    for name, value in stated.items():
        if value is not None and value != []:
            content[name] = value
    for element, fact in (("birthDate", said.birth_date), ("address", said.address), ("telecom", said.phones)):
        if fact is None:  # deleted by the sender
            content.pop(element, None)
    return content


def _identifiers(snapshot: Snapshot, charted: Resource, domains: Mapping[str, IdentifierDomain]) -> list[Resource]:
    """The chart's identifiers as sent where they include the key; after a merge the key's own come first."""
    tracked = known(snapshot.patient.identifiers) or ()
    key = Identifier(snapshot.patient_key.domain, snapshot.patient_key.value, "MR")
    if not any((each.domain, each.value) == (key.domain, key.value) for each in tracked):
        tracked = (key, *tracked)
    sent = charted.get("identifier")
    by_value = {
        str(each.get("value")): each for each in (sent if isinstance(sent, list) else ()) if isinstance(each, dict)
    }
    return [
        by_value.get(each.value) or facts.patient_identifier(each, domains) for each in tracked if each.type != "SS"
    ]


def _primary_care(said: PatientFacts, scope: str, domains: Mapping[str, IdentifierDomain]) -> list[Resource]:
    found: list[Resource] = []
    for person in known(said.pcp) or ():
        found.append(practitioner(person, scope, domains))
    for practice in known(said.pcp_practices) or ():
        found.append(practice_organization(practice, scope, domains))
    return found


def practitioner(person: Practitioner, scope: str, domains: Mapping[str, IdentifierDomain]) -> Resource:
    """A US Core Practitioner; a missing number or family name is marked absent, never made up."""
    found = facts.practitioner(person, scope, domains)
    found["meta"] = profiled(US_CORE + "us-core-practitioner")
    if "identifier" not in found:
        found["identifier"] = [{"_system": absent("unknown"), "_value": absent("unknown")}]
    names = found.get("name")
    first = names[0] if isinstance(names, list) and isinstance(names[0], dict) else {}
    if "family" not in first:
        found["name"] = [{**first, "_family": absent("unknown")}]
    return found


def practice_organization(practice: Organization, scope: str, domains: Mapping[str, IdentifierDomain]) -> Resource:
    """A US Core Organization."""
    found = facts.organization(practice, scope, domains)
    found["meta"] = profiled(US_CORE + "us-core-organization")
    if "name" not in found:
        found["_name"] = absent("unknown")
    return found
