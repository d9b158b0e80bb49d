"""Owns how a FHIR Bundle that came in is read: one `Notification` for each encounter it speaks of, or a refusal.

Four kinds are taken: a Da Vinci Unsolicited Notification 1.1.0 (type message), a transaction or batch that writes one
Encounter with what belongs to it, a document with an encounter (PACIO Transitions of Care), and a subscription
notification with resources (type history; `subscriptions` reads what it says of the subscription). References are
resolved inside the Bundle. Refusals name the path and the rule, never a value.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from tocengine.formats.fhir import subscriptions
from tocengine.formats.fhir.contained import with_contained
from tocengine.formats.fhir.json_body import refuse, refused
from tocengine.formats.fhir.resources import Json, Resource, references_in

NOTIFICATION_EVENT = "http://hl7.org/fhir/us/davinci-alerts/CodeSystem/notification-event"
Entries = list[tuple[str, Resource]]
"""(fullUrl, resource) of each entry, in order, then what they contain; an entry without a resource has an empty one."""


_OWNERS = ("subject", "patient", "beneficiary", "encounter")
_OWNED = frozenset({"Patient", "Encounter", "Condition", "AllergyIntolerance", "Coverage", "DocumentReference"})
"""Types that belong to one patient: what merely refers to one of another patient does not bring it along."""


class BundleKind(StrEnum):
    """The kinds of Bundle that are taken in, by Bundle.type; a batch is read as a transaction."""

    MESSAGE = "message"
    TRANSACTION = "transaction"
    DOCUMENT = "document"
    HISTORY = "history"


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What a Bundle says of one encounter. `by_url` finds resources by fullUrl, by ``Type/id`` and by condition."""

    kind: BundleKind
    bundle: Resource
    header: Resource  # MessageHeader, Composition or Parameters; empty for a transaction
    event: str  # code of the Da Vinci notification-event code system; "" for other kinds than message
    replaces: bool  # the Encounter was written over by its sender (PUT): it states how things are now
    encounter: Resource
    encounter_path: str  # "Bundle.entry[1].resource"
    encounter_url: str  # its fullUrl
    patient: Resource
    patient_path: str
    entries: tuple[tuple[str, Resource], ...]  # with what they contain; of several events those of this one
    by_url: Mapping[str, Resource]

    def resolve(self, reference: Json) -> Resource | None:
        """The resource a Reference names, if it is in the bundle."""
        return _resolve(reference, self.by_url)

    def find(self, target: str) -> Resource | None:
        """The resource that goes by `target` in a Reference of the bundle."""
        return _find(target, self.by_url)


def read_notifications(bundle: Resource) -> tuple[Notification, ...]:
    """What `bundle` says, one for each encounter. Raises SyntaxRefusedError.

    More than one only in a subscription notification; none where that one carries no event.
    """
    if bundle.get("resourceType") != "Bundle":
        refuse("not_a_bundle", "The body is not a Bundle.", "Bundle.resourceType")
    match bundle.get("type"):
        case "message":
            return (_message(bundle),)
        case "transaction" | "batch":
            return (_transaction(bundle),)
        case "document":
            return (_document(bundle),)
        case "history" | "subscription-notification":
            return tuple(_events(bundle))
        case _:
            text = "Taken here are Bundles of type message, transaction, batch, document and history."
            raise refused("type_not_taken", text, "Bundle.type", "not-supported")


def _message(bundle: Resource) -> Notification:
    if not isinstance(bundle.get("timestamp"), str):
        refuse("timestamp_missing", "A message says when it was assembled.", "Bundle.timestamp", "required")
    entries = _entries(bundle)
    kinds = [resource["resourceType"] for _, resource in entries]
    if kinds[0] != "MessageHeader":
        refuse("header_not_first", "The first entry is not the MessageHeader.", "Bundle.entry[0]", "structure")
    if kinds.count("MessageHeader") > 1:
        refuse("several_headers", "There is more than one MessageHeader.", "Bundle.entry", "structure")
    _refuse_doubled(entries)
    by_url = _index(entries)
    header = entries[0][1]
    encounter = _focus(header, by_url)
    return _notification(bundle, BundleKind.MESSAGE, entries, by_url, encounter, header=header, event=_event(header))


def _transaction(bundle: Resource) -> Notification:
    """One Encounter is written, and what belongs to it. Nothing can be deleted or read here."""
    entries = _entries(bundle)
    for position, item in enumerate(_items(bundle)):
        request = item.get("request") if isinstance(item, dict) else None
        method = request.get("method") if isinstance(request, dict) else None
        path = f"Bundle.entry[{position}].request"
        if not isinstance(method, str):
            refuse("request_missing", "An entry of a transaction says its request.", path + ".method", "required")
        if method not in ("POST", "PUT"):
            refuse("method_not_taken", "Only POST and PUT are taken here.", path + ".method", "not-supported")
    _refuse_doubled(entries)
    by_url = _index(entries)
    places = [position for position, (_, each) in enumerate(entries) if each["resourceType"] == "Encounter"]
    if not places:
        refuse("encounter_missing", "The transaction writes no Encounter.", "Bundle.entry", "required")
    if len(places) > 1:
        refuse("several_encounters", "A transaction is about one Encounter.", "Bundle.entry", "business-rule")
    replaces = _method(_items(bundle)[places[0]]) == "PUT"
    encounter = entries[places[0]][1]
    return _notification(bundle, BundleKind.TRANSACTION, entries, by_url, encounter, replaces=replaces)


def _document(bundle: Resource) -> Notification:
    """A document about an encounter: Composition first, which names encounter and subject (FHIR R4, documents)."""
    if not isinstance(bundle.get("timestamp"), str):
        refuse("timestamp_missing", "A document says when it was assembled.", "Bundle.timestamp", "required")
    match bundle.get("identifier"):
        case {"system": str(), "value": str()}:
            pass
        case _:
            refuse("identifier_missing", "A document has an identifier.", "Bundle.identifier", "required")
    entries = _entries(bundle)
    header = entries[0][1]
    if header["resourceType"] != "Composition":
        refuse("composition_not_first", "The first entry is not the Composition.", "Bundle.entry[0]", "structure")
    _refuse_doubled(entries)
    by_url = _index(entries)
    encounter = _resolve(header.get("encounter"), by_url)
    if encounter is None and "encounter" not in header:  # US senders leave it out and mean the one that is there
        present = [resource for _, resource in entries if resource["resourceType"] == "Encounter"]
        encounter = present[0] if len(present) == 1 else None
    if encounter is None or encounter["resourceType"] != "Encounter":
        path = "Bundle.entry[0].resource.encounter"
        refuse("encounter_missing", "The Composition's encounter is no Encounter in the bundle.", path, "required")
    return _notification(bundle, BundleKind.DOCUMENT, entries, by_url, encounter, header=header)


def _events(bundle: Resource) -> Iterator[Notification]:
    """One for each event whose focus is an Encounter in the Bundle, with its Patient."""
    status = subscriptions.read_status(bundle)
    if status.type != subscriptions.EVENTS:
        return
    entries = _entries(bundle)
    by_url = _index(entries)
    methods = dict(zip((url for url, _ in entries), map(_method, _items(bundle)), strict=False))
    seen: list[Resource] = []
    for event in status.events:
        encounter = _find(event.focus, by_url)
        if encounter is None or encounter["resourceType"] != "Encounter" or any(encounter is each for each in seen):
            continue
        subject = _resolve(encounter.get("subject"), by_url)
        if subject is None or subject["resourceType"] != "Patient":
            continue  # the subscription sends too little
        seen.append(encounter)
        replaces = methods.get(event.focus) in ("PUT", "PATCH")
        header = entries[0][1]
        yield _notification(bundle, BundleKind.HISTORY, entries, by_url, encounter, header=header, replaces=replaces)


def _notification(
    bundle: Resource,
    kind: BundleKind,
    entries: Entries,
    by_url: Mapping[str, Resource],
    encounter: Resource,
    *,
    header: Resource | None = None,
    event: str = "",
    replaces: bool = False,
) -> Notification:
    path = _path_of(encounter, entries)
    patient = _resolve(encounter.get("subject"), by_url)
    if patient is None and kind is BundleKind.DOCUMENT:
        patient = _resolve((header or {}).get("subject"), by_url)
    if patient is None or patient["resourceType"] != "Patient":
        refuse("patient_not_found", "The encounter's subject is no Patient in the bundle.", path + ".subject")
    patients = sum(resource.get("resourceType") == "Patient" for _, resource in entries)
    if patients > 1 and kind is not BundleKind.HISTORY:
        refuse("several_patients", "A notification is about one patient.", "Bundle.entry", "business-rule")
    return Notification(
        kind=kind,
        bundle=bundle,
        header=header or {},
        event=event,
        replaces=replaces,
        encounter=encounter,
        encounter_path=path,
        encounter_url=next(url for url, resource in entries if resource is encounter),
        patient=patient,
        patient_path=_path_of(patient, entries),
        entries=tuple(entries if kind is not BundleKind.HISTORY else _belonging(entries, encounter, patient, by_url)),
        by_url=by_url,
    )


def _belonging(
    entries: Entries, encounter: Resource, patient: Resource, by_url: Mapping[str, Resource]
) -> Iterator[tuple[str, Resource]]:
    """Of a Bundle with several events, what belongs to this one: nobody's chart may get what is another's."""
    mine = [encounter, patient]
    for _, resource in entries:
        owners = [_resolve(resource.get(name), by_url) for name in _OWNERS if name in resource]
        if owners and all(owner is encounter or owner is patient for owner in owners):
            mine.append(resource)
    reached: dict[int, Resource] = {}
    while mine:
        resource = mine.pop()
        if id(resource) in reached:
            continue
        reached[id(resource)] = resource
        targets = (_find(target, by_url) for target in references_in(resource))
        mine += [each for each in targets if each is not None and each["resourceType"] not in _OWNED]
    return ((url, resource) for url, resource in entries if id(resource) in reached)


def _items(bundle: Resource) -> list[Json]:
    listed = bundle.get("entry")
    return listed if isinstance(listed, list) else []


def _method(item: Json) -> str:
    request = item.get("request") if isinstance(item, dict) else None
    return str(request.get("method", "")) if isinstance(request, dict) else ""


def _entries(bundle: Resource) -> Entries:
    """Those of `bundle`; a history may have entries without a resource (what was deleted)."""
    listed = _items(bundle)
    if not listed:
        refuse("no_entries", "The Bundle has no entries.", "Bundle.entry", "required")
    history = bundle.get("type") in ("history", "subscription-notification")
    return with_contained([_entry(item, f"Bundle.entry[{at}]", history) for at, item in enumerate(listed)])


def _entry(item: Json, path: str, may_be_empty: bool) -> tuple[str, Resource]:
    url = item.get("fullUrl") if isinstance(item, dict) else None
    resource = item.get("resource") if isinstance(item, dict) else None
    if resource is None and may_be_empty:
        return (url if isinstance(url, str) else ""), {}
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        refuse("no_resource", "The entry holds no resource.", path + ".resource", "required")
    return (url if isinstance(url, str) else ""), resource


def _refuse_doubled(entries: Entries) -> None:
    urls = [url for url, _ in entries if url]
    if len(set(urls)) < len(urls):
        refuse("urls_not_unique", "Two entries have the same fullUrl.", "Bundle.entry.fullUrl", "structure")


def _index(entries: Entries) -> dict[str, Resource]:
    by_url: dict[str, Resource] = {}
    for url, resource in entries:
        if not resource:
            continue
        if isinstance(identity := resource.get("id"), str):
            by_url.setdefault(f"{resource['resourceType']}/{identity}", resource)
        for condition in _conditions(resource):
            by_url.setdefault(condition, resource)
        if url:
            by_url[url] = resource
    return by_url


def _conditions(resource: Resource) -> Iterator[str]:
    """How a conditional reference in a transaction names it: ``Patient?identifier=SYSTEM|VALUE``."""
    listed = resource.get("identifier")
    for number in listed if isinstance(listed, list) else ():
        match number:
            case {"system": str(system), "value": str(value)}:
                yield f"{resource['resourceType']}?identifier={system}|{value}"


def _resolve(reference: Json, by_url: Mapping[str, Resource]) -> Resource | None:
    target = reference.get("reference") if isinstance(reference, dict) else None
    return _find(target, by_url) if isinstance(target, str) else None


def _find(target: str, by_url: Mapping[str, Resource]) -> Resource | None:
    """By its address; of a reference to one version it must be that (FHIR R4, resolving references in Bundles)."""
    address, of_version, version = target.partition("/_history/")
    found = by_url.get(address)
    if found is None or not of_version:
        return found
    meta = found.get("meta")
    return found if isinstance(meta, dict) and meta.get("versionId") == version else None


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


def _path_of(wanted: Resource, entries: Entries) -> str:
    position = next(index for index, (_, resource) in enumerate(entries) if resource is wanted)
    return f"Bundle.entry[{position}].resource"


def _event(header: Resource) -> str:
    path = "Bundle.entry[0].resource.eventCoding"
    match header.get("eventCoding"):
        case {"system": str(system), "code": str(code)}:
            if system == NOTIFICATION_EVENT:
                return code
            refuse("event_unknown", "The event is not of the Da Vinci notification events.", path + ".system")
    raise refused("event_missing", "The MessageHeader has no eventCoding with system and code.", path, "required")
