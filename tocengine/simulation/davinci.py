"""Owns how the simulated partner hospital writes Da Vinci discharge notifications (FHIR R4 messages)."""

import orjson

from tocengine.model.ids import derive
from tocengine.simulation.adt import Visit
from tocengine.simulation.people import Clinician

PROFILE = "http://hl7.org/fhir/us/davinci-alerts/StructureDefinition/"
NPI_SYSTEM = "http://hl7.org/fhir/sid/us-npi"
MRN_SYSTEM = "urn:oid:2.16.840.1.113883.19.7"
VISIT_SYSTEM = "urn:oid:2.16.840.1.113883.19.7.1"


def discharge_bundle(visit: Visit, *, destination_npi: str = "") -> bytes:
    """A `notification-discharge` message of a finished inpatient stay; without a destination the patient went home."""
    assert visit.discharged_at is not None
    urn = {name: f"urn:uuid:{derive('simulation', visit.number, name)}" for name in _PARTS}
    resources: dict[str, dict[str, object]] = {
        "header": {
            "resourceType": "MessageHeader",
            "meta": {"profile": [PROFILE + "discharge-notification-messageheader"]},
            "eventCoding": {
                "system": "http://hl7.org/fhir/us/davinci-alerts/CodeSystem/notification-event",
                "code": "notification-discharge",
            },
            "source": {"endpoint": "https://valley.example.org/fhir"},
            "sender": {"reference": urn["hospital"]},
            "focus": [{"reference": urn["encounter"]}],
        },
        "encounter": _encounter(visit, urn),
        "patient": _patient(visit, urn),
        "attending": _practitioner(visit.attending),
        "hospital": {"resourceType": "Organization", "active": True, "name": "Valley General"},
        "unit": {"resourceType": "Location", "status": "active", "name": visit.unit},
    }
    if visit.destination:
        resources["destination"] = {
            "resourceType": "Location",
            "status": "active",
            "identifier": [{"system": NPI_SYSTEM, "value": destination_npi}],
            "name": visit.destination,
        }
    if visit.person.pcp:
        resources["pcp"] = _practitioner(visit.person.pcp)
    bundle = {
        "resourceType": "Bundle",
        "id": str(derive("simulation", visit.number)),
        "meta": {"profile": [PROFILE + "notifications-bundle"]},
        "type": "message",
        "timestamp": visit.discharged_at.isoformat(),
        "entry": [
            {"fullUrl": urn[name], "resource": {**resource, "id": urn[name].removeprefix("urn:uuid:")}}
            for name, resource in resources.items()
        ],
    }
    return orjson.dumps(bundle)


_PARTS = ("header", "encounter", "patient", "attending", "hospital", "unit", "destination", "pcp")


def _encounter(visit: Visit, urn: dict[str, str]) -> dict[str, object]:
    assert visit.discharged_at is not None
    hospitalization: dict[str, object] = {
        "dischargeDisposition": _coded("https://www.nubc.org/CodeSystem/PatDischargeStatus", visit.disposition)
    }
    if visit.destination:
        hospitalization["destination"] = {"reference": urn["destination"]}
    return {
        "resourceType": "Encounter",
        "meta": {"profile": [PROFILE + "adt-notification-encounter"]},
        "identifier": [
            {
                "type": _coded("http://terminology.hl7.org/CodeSystem/v2-0203", "VN"),
                "system": VISIT_SYSTEM,
                "value": visit.number,
            }
        ],
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "type": [{"text": "Inpatient stay"}],
        "subject": {"reference": urn["patient"]},
        "participant": [
            {
                "type": [_coded("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "ATND")],
                "individual": {"reference": urn["attending"]},
            }
        ],
        "period": {"start": visit.admitted_at.isoformat(), "end": visit.discharged_at.isoformat()},
        "hospitalization": hospitalization,
        "location": [{"location": {"reference": urn["unit"]}}],
        "serviceProvider": {"reference": urn["hospital"]},
    }


def _patient(visit: Visit, urn: dict[str, str]) -> dict[str, object]:
    person = visit.person
    patient: dict[str, object] = {
        "resourceType": "Patient",
        "identifier": [
            {
                "type": _coded("http://terminology.hl7.org/CodeSystem/v2-0203", "MR"),
                "system": MRN_SYSTEM,
                "value": person.mrn,
            }
        ],
        "name": [{"use": "official", "family": person.family, "given": [person.given]}],
        "gender": {"F": "female", "M": "male"}.get(person.sex, "unknown"),
        "birthDate": person.birth_date.isoformat(),
    }
    if person.pcp:
        patient["generalPractitioner"] = [{"reference": urn["pcp"]}]
    return patient


def _practitioner(who: Clinician) -> dict[str, object]:
    return {
        "resourceType": "Practitioner",
        "identifier": [{"system": NPI_SYSTEM, "value": who.npi}],
        "name": [{"family": who.family, "given": [who.given]}],
    }


def _coded(system: str, code: str) -> dict[str, object]:
    return {"coding": [{"system": system, "code": code}]}
