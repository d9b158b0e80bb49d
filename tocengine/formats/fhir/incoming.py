"""Owns how a FHIR notification that came in is read: bytes to a message whose references are resolved, or a refusal.

Takes Da Vinci Unsolicited Notifications 1.1.0 (R4): a Bundle of type message, MessageHeader first, one Encounter in
focus, one patient. Refusals name the path and the rule, never a value.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

import msgspec
import orjson

from tocengine.errors import SyntaxRefusedError
from tocengine.formats.fhir.resources import Json, Resource
from tocengine.model.message import Problem

MAX_DEPTH = 64
"""Objects and lists within each other. FHIR content rarely reaches 15."""
NOTIFICATION_EVENT = "http://hl7.org/fhir/us/davinci-alerts/CodeSystem/notification-event"
ENCOUNTER_STATUS = frozenset(
    "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown".split()
)
"""The required binding of Encounter.status (https://hl7.org/fhir/R4/valueset-encounter-status.html)."""
_R5_ENCOUNTER = ("actualPeriod", "admission", "plannedStartDate", "plannedEndDate", "subjectStatus", "virtualService")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A notification message as read. `by_url` finds resources by fullUrl and by ``Type/id``."""

    bundle: Resource
    header: Resource
    event: str  # code of the Da Vinci notification-event code system
    encounter: Resource
    encounter_path: str  # "Bundle.entry[1].resource"
    patient: Resource
    patient_path: str
    entries: tuple[tuple[str, Resource], ...]  # (fullUrl, resource), as sent
    by_url: Mapping[str, Resource]

    def resolve(self, reference: Json) -> Resource | None:
        """The resource a Reference names, if it is in the bundle."""
        target = reference.get("reference") if isinstance(reference, dict) else None
        return self.by_url.get(target) if isinstance(target, str) else None


def read_json(body: bytes) -> Resource:
    """The JSON object in `body`. Raises SyntaxRefusedError."""
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        refuse("not_json", "The body is not valid JSON in UTF-8.", "", "structure")
    if not isinstance(value, dict):
        refuse("not_an_object", "The body is not a JSON object.", "", "structure")
    if _too_deep(value):
        refuse("too_deep", f"The body nests deeper than {MAX_DEPTH} levels.", "", "too-costly")
    return value


def read_notification(bundle: Resource) -> Notification:
    """The message in `bundle`, checked against the rules of messages. Raises SyntaxRefusedError."""
    entries = _entries(bundle)
    header = entries[0][1]
    by_url = _index(entries)
    encounter = _focus(header, by_url)
    encounter_path = _path_of(encounter, entries)
    for position, (_, resource) in enumerate(entries):
        if resource["resourceType"] == "Encounter":
            _check_encounter(resource, f"Bundle.entry[{position}].resource")
    patient = _resolve(encounter.get("subject"), by_url)
    if patient is None or patient["resourceType"] != "Patient":
        refuse("patient_not_found", "The encounter's subject is no Patient in the bundle.", encounter_path + ".subject")
    if sum(resource["resourceType"] == "Patient" for _, resource in entries) > 1:
        refuse("several_patients", "A notification is about one patient.", "Bundle.entry", "business-rule")
    return Notification(
        bundle=bundle,
        header=header,
        event=_event(header),
        encounter=encounter,
        encounter_path=encounter_path,
        patient=patient,
        patient_path=_path_of(patient, entries),
        entries=tuple(entries),
        by_url=by_url,
    )


def refuse(reason: str, text: str, location: str, code: str = "invalid") -> NoReturn:
    """Raises SyntaxRefusedError; `code` is an OperationOutcome issue type."""
    raise SyntaxRefusedError(Problem(reason=reason, text=text, location=location, code=code))


def safe_name(name: object) -> str:
    """`name` if it can be an element's name; anything else a sender put there is not repeated."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "?"


def _too_deep(value: Json) -> bool:
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _contained(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _contained(outer: Json) -> "Iterator[Json] | list[Json]":
    if isinstance(outer, dict):
        return iter(outer.values())
    return outer if isinstance(outer, list) else []


def _entries(bundle: Resource) -> list[tuple[str, Resource]]:
    if bundle.get("resourceType") != "Bundle":
        refuse("not_a_bundle", "The body is not a Bundle.", "Bundle.resourceType")
    if bundle.get("type") != "message":
        refuse("not_a_message", "Only a Bundle of type message is taken here.", "Bundle.type")
    if not isinstance(bundle.get("timestamp"), str):
        refuse("timestamp_missing", "A message says when it was assembled.", "Bundle.timestamp", "required")
    listed = bundle.get("entry")
    if not isinstance(listed, list) or not listed:
        refuse("no_entries", "The Bundle has no entries.", "Bundle.entry", "required")
    entries = [_entry(item, f"Bundle.entry[{position}]") for position, item in enumerate(listed)]
    kinds = [resource["resourceType"] for _, resource in entries]
    if kinds[0] != "MessageHeader":
        refuse("header_not_first", "The first entry is not the MessageHeader.", "Bundle.entry[0]", "structure")
    if kinds.count("MessageHeader") > 1:
        refuse("several_headers", "There is more than one MessageHeader.", "Bundle.entry", "structure")
    urls = [url for url, _ in entries if url]
    if len(set(urls)) < len(urls):
        refuse("urls_not_unique", "Two entries have the same fullUrl.", "Bundle.entry.fullUrl", "structure")
    return entries


def _entry(item: Json, path: str) -> tuple[str, Resource]:
    url = item.get("fullUrl") if isinstance(item, dict) else None
    resource = item.get("resource") if isinstance(item, dict) else None
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        refuse("no_resource", "The entry holds no resource.", path + ".resource", "required")
    return (url if isinstance(url, str) else ""), resource


def _index(entries: list[tuple[str, Resource]]) -> dict[str, Resource]:
    by_url: dict[str, Resource] = {}
    for url, resource in entries:
        if isinstance(identity := resource.get("id"), str):
            by_url.setdefault(f"{resource['resourceType']}/{identity}", resource)
        if url:
            by_url[url] = resource
    return by_url


def _resolve(reference: Json, by_url: Mapping[str, Resource]) -> Resource | None:
    target = reference.get("reference") if isinstance(reference, dict) else None
    return by_url.get(target) if isinstance(target, str) else None


def _focus(header: Resource, by_url: Mapping[str, Resource]) -> Resource:
    path = "Bundle.entry[0].resource.focus"
    if "response" in header:
        refuse("is_a_response", "A notification is no response.", "Bundle.entry[0].resource.response", "business-rule")
    focus = header.get("focus")
    if not isinstance(focus, list) or not focus:
        refuse("focus_missing", "The MessageHeader names no focus.", path, "required")
    found = [_resolve(item, by_url) for item in focus]
    if any(resource is None for resource in found):
        refuse("focus_not_found", "The focus is not in the bundle.", path, "not-found")
    encounters = [resource for resource in found if resource and resource["resourceType"] == "Encounter"]
    if len(encounters) != 1:
        refuse("focus_not_an_encounter", "The focus is not one Encounter.", path, "business-rule")
    return encounters[0]


def _path_of(wanted: Resource, entries: list[tuple[str, Resource]]) -> str:
    position = next(index for index, (_, resource) in enumerate(entries) if resource is wanted)
    return f"Bundle.entry[{position}].resource"


def _event(header: Resource) -> str:
    path = "Bundle.entry[0].resource.eventCoding"
    match header.get("eventCoding"):
        case {"system": str(system), "code": str(code)}:
            if system == NOTIFICATION_EVENT:
                return code
            refuse("event_unknown", "The event is not of the Da Vinci notification events.", path + ".system")
    refuse("event_missing", "The MessageHeader has no eventCoding with system and code.", path, "required")


def _check_encounter(encounter: Resource, path: str) -> None:
    """R5 moved most of what a notice needs; read as R4 it would look like an encounter that says nothing."""
    moved = next((name for name in _R5_ENCOUNTER if name in encounter), "")
    if isinstance(encounter.get("class"), list):
        moved = "class"
    elif encounter.get("status") in ("completed", "discharged", "on-hold", "discontinued"):
        moved = "status"
    if moved:
        refuse("fhir_r5", f"Encounter.{moved} is FHIR R5; this endpoint takes FHIR R4.", f"{path}.{moved}", "structure")
    match encounter.get("class"):
        case {"code": str()}:
            pass
        case _:
            refuse("class_missing", "Encounter.class has no code.", path + ".class", "required")
    if encounter.get("status") not in ENCOUNTER_STATUS:
        refuse("status_unknown", "Encounter.status is not a code of FHIR R4.", path + ".status", "code-invalid")
