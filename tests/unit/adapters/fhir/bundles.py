"""Builds Da Vinci notifications of invented people for tests, small enough to read."""

import copy
from typing import Any

import orjson

V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
NPI = "http://hl7.org/fhir/sid/us-npi"
EVENTS = "http://hl7.org/fhir/us/davinci-alerts/CodeSystem/notification-event"
NUBC = "https://www.nubc.org/CodeSystem/PatDischargeStatus"
MRN_SYSTEM = "urn:oid:2.16.840.1.113883.19.5"
VISIT_SYSTEM = "urn:oid:2.16.840.1.113883.19.5.1"
Bundle = dict[str, Any]


def coded(system: str, code: str) -> Bundle:
    """A CodeableConcept."""
    return {"coding": [{"system": system, "code": code}]}


def bundle(event: str = "discharge", status: str = "finished", kind: str = "IMP", **encounter: Any) -> Bundle:
    """A notification; `encounter` replaces elements of the Encounter, None removes one."""
    visit: Bundle = {
        "resourceType": "Encounter",
        "id": "e",
        "identifier": [{"type": coded(V2_0203, "VN"), "system": VISIT_SYSTEM, "value": "V500"}],
        "status": status,
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind},
        "subject": {"reference": "urn:uuid:p"},
        "participant": [
            {
                "type": [coded("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "ATND")],
                "individual": {"reference": "urn:uuid:dr"},
            }
        ],
        "period": {"start": "2026-02-26T10:15:00-05:00"},
        "location": [{"location": {"reference": "urn:uuid:loc"}}],
    }
    if event == "discharge" and status == "finished":
        visit["period"]["end"] = "2026-03-01T15:35:00-05:00"
        visit["hospitalization"] = {
            "dischargeDisposition": coded(NUBC, "03"),
            "destination": {"reference": "urn:uuid:dest"},
        }
    visit.update(encounter)
    resources = [
        {
            "resourceType": "MessageHeader",
            "id": "h",
            "eventCoding": {"system": EVENTS, "code": f"notification-{event}"},
            "source": {"endpoint": "https://valley.example.org/fhir"},
            "focus": [{"reference": "urn:uuid:e"}],
        },
        {name: value for name, value in visit.items() if value is not None},
        {
            "resourceType": "Patient",
            "id": "p",
            "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">MARY O\'NEIL</div>'},
            "identifier": [
                {"type": coded(V2_0203, "SS"), "system": "http://hl7.org/fhir/sid/us-ssn", "value": "000-00-4321"},
                {"type": coded(V2_0203, "MR"), "system": MRN_SYSTEM, "value": "0012345"},
            ],
            "name": [{"use": "official", "family": "O'NEIL", "given": ["MARY", "J"]}],
            "gender": "female",
            "birthDate": "1940-01-02",
            "generalPractitioner": [{"reference": "urn:uuid:pcp"}, {"reference": "urn:uuid:practice"}],
        },
        person("dr", "1999000031", "ROE", "ANN"),
        person("pcp", "1234567893", "PATEL", "RAVI"),
        {
            "resourceType": "Organization",
            "id": "practice",
            "identifier": [{"system": NPI, "value": "1999000049"}],
            "name": "UTICA FAMILY MED",
        },
        {"resourceType": "Location", "id": "loc", "name": "3N"},
        {"resourceType": "Location", "id": "dest", "name": "SUNNYSIDE REHAB"},
        {
            "resourceType": "Condition",
            "id": "dx",
            "code": {
                "coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}],
                "text": "Heart failure, unspecified",
            },
            "subject": {"reference": "urn:uuid:p"},
            "encounter": {"reference": "urn:uuid:e"},
        },
    ]
    return {
        "resourceType": "Bundle",
        "id": "b-1",
        "type": "message",
        "timestamp": "2026-03-01T15:41:00-05:00",
        "entry": [{"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources],
    }


def person(identity: str, npi: str, family: str, given: str) -> Bundle:
    """A Practitioner."""
    return {
        "resourceType": "Practitioner",
        "id": identity,
        "identifier": [{"system": NPI, "value": npi}],
        "name": [{"family": family, "given": [given]}],
    }


def resource(message: Bundle, kind: str) -> Bundle:
    """The first resource of a type."""
    return next(entry["resource"] for entry in message["entry"] if entry["resource"]["resourceType"] == kind)


def encoded(message: Bundle) -> bytes:
    """As sent."""
    return orjson.dumps(copy.deepcopy(message))
