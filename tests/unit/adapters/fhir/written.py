"""Turns a Da Vinci notification into the other kinds of Bundle that say the same of its encounter."""

import copy
from typing import Any

from tests.unit.adapters.fhir.bundles import Bundle

TOC = "18761-7"


def transaction(message: Bundle, method: str = "POST", documents: tuple[Bundle, ...] = ()) -> Bundle:
    """The same resources written by a transaction, with DocumentReferences."""
    resources = [
        entry["resource"] for entry in message["entry"] if entry["resource"]["resourceType"] != "MessageHeader"
    ]
    return {
        "resourceType": "Bundle",
        "id": message["id"],
        "type": "transaction",
        "timestamp": message["timestamp"],
        "entry": [
            {
                "fullUrl": f"urn:uuid:{each['id']}",
                "resource": copy.deepcopy(each),
                "request": {
                    "method": method,
                    "url": each["resourceType"] + (f"/{each['id']}" if method == "PUT" else ""),
                },
            }
            for each in (*resources, *documents)
        ],
    }


def document(message: Bundle, **composition: Any) -> Bundle:
    """A transitions-of-care document about the same encounter."""
    made = transaction(message)
    first: Bundle = {
        "resourceType": "Composition",
        "id": "c",
        "status": "final",
        "type": {"coding": [{"system": "http://loinc.org", "code": TOC, "display": "Transfer summary note"}]},
        "subject": {"reference": "urn:uuid:p"},
        "encounter": {"reference": "urn:uuid:e"},
        "date": "2026-03-01T15:38:00-05:00",
        "author": [{"reference": "urn:uuid:dr"}],
        "title": "Transfer of O'NEIL",
        "section": [{"title": "Problems", "entry": [{"reference": "urn:uuid:dx"}]}],
    }
    first.update(composition)
    entries = [{"fullUrl": "urn:uuid:c", "resource": first}]
    entries += [{"fullUrl": entry["fullUrl"], "resource": entry["resource"]} for entry in made["entry"]]
    return {
        "resourceType": "Bundle",
        "id": "d-1",
        "type": "document",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:0a5b3c1e-0000-4000-8000-000000000001"},
        "timestamp": message["timestamp"],
        "entry": entries,
    }


def notification(
    message: Bundle,
    *,
    kind: str = "event-notification",
    numbers: tuple[int, ...] = (1,),
    total: int | None = None,
    method: str = "PUT",
    resources: bool = True,
    focus: str = "https://ehr.example.org/fhir/Encounter/e",
) -> Bundle:
    """A subscription notification (R4 backport) about the same encounter."""
    base = "https://ehr.example.org/fhir"
    subscription = f"{base}/Subscription/admissions"
    parameters: list[Bundle] = [
        {"name": "subscription", "valueReference": {"reference": subscription}},
        {"name": "status", "valueCode": "requested" if kind == "handshake" else "active"},
        {"name": "type", "valueCode": kind},
        {
            "name": "events-since-subscription-start",
            "valueString": str(max(numbers, default=0) if total is None else total),
        },
    ]
    if kind in ("event-notification", "query-event"):
        parameters += [
            {
                "name": "notification-event",
                "part": [
                    {"name": "event-number", "valueString": str(number)},
                    {"name": "focus", "valueReference": {"reference": focus}},
                ],
            }
            for number in numbers
        ]
    entries: list[Bundle] = [
        {
            "fullUrl": "urn:uuid:s",
            "resource": {"resourceType": "Parameters", "parameter": parameters},
            "request": {"method": "GET", "url": f"{subscription}/$status"},
            "response": {"status": "200"},
        }
    ]
    if resources and kind != "handshake":
        for entry in message["entry"][1:]:
            each = copy.deepcopy(entry["resource"])
            _point(each, message, base)
            entries.append(
                {
                    "fullUrl": f"{base}/{each['resourceType']}/{each['id']}",
                    "resource": each,
                    "request": {"method": method, "url": f"{each['resourceType']}/{each['id']}"},
                    "response": {"status": "200"},
                }
            )
    return {
        "resourceType": "Bundle",
        "id": f"n-{message['id']}-{kind}-{'-'.join(map(str, numbers))}",
        "type": "history",
        "timestamp": message["timestamp"],
        "entry": entries,
    }


def _point(value: Any, message: Bundle, base: str) -> None:
    kinds = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in message["entry"]}
    if isinstance(value, dict):
        target = value.get("reference")
        if isinstance(target, str) and target in kinds:
            value["reference"] = f"{base}/{kinds[target]}/{target.removeprefix('urn:uuid:')}"
        for inner in value.values():
            _point(inner, message, base)
    elif isinstance(value, list):
        for inner in value:
            _point(inner, message, base)


def document_reference(**elements: Any) -> Bundle:
    """A DocumentReference with its bytes in it."""
    made: Bundle = {
        "resourceType": "DocumentReference",
        "id": "doc",
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": "18842-5", "display": "Discharge summary"}]},
        "date": "2026-03-01T15:30:00-05:00",
        "subject": {"reference": "urn:uuid:p"},
        "content": [{"attachment": {"contentType": "text/plain", "title": "Summary", "data": "U3VtbWFyeQ=="}}],
    }
    return made | elements
