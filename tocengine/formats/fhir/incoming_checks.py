"""Owns what R4 demands of received content and the R4B models do not see: R5 shapes, bindings, booleans, references.

Each finding is a Problem with the FHIRPath of what is wrong; no value of the message is repeated.
"""

from collections.abc import Iterator

from tocengine.formats.fhir.incoming import BundleKind, Notification
from tocengine.formats.fhir.json_body import path_text
from tocengine.formats.fhir.resources import Json, Resource
from tocengine.model.message import Problem

_R5_ENCOUNTER = ("actualPeriod", "admission", "plannedStartDate", "plannedEndDate", "subjectStatus", "virtualService")
_R5_STATUS = ("completed", "discharged", "on-hold", "discontinued")  # a tuple: what is looked up may be a list
_BINDINGS = {
    ("Encounter", "status"): (
        "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown".split()
    ),
    ("Patient", "gender"): ["male", "female", "other", "unknown"],
    ("Practitioner", "gender"): ["male", "female", "other", "unknown"],
    ("DocumentReference", "status"): ["current", "superseded", "entered-in-error"],
    ("Composition", "status"): ["preliminary", "final", "amended", "entered-in-error"],
    ("Location", "status"): ["active", "suspended", "inactive"],
    ("Coverage", "status"): ["active", "cancelled", "draft", "entered-in-error"],
}
"""Required bindings of what the engine reads (https://hl7.org/fhir/R4/terminologies.html#required)."""
_BOOLEANS = frozenset({"active", "deceasedBoolean", "multipleBirthBoolean", "preferred", "userSelected", "inactive"})


def incoming_problems(notification: Notification) -> Iterator[Problem]:
    """Everything found, in the order of the entries."""
    for position, item in enumerate(_items(notification.bundle)):
        resource = item.get("resource") if isinstance(item, dict) else None
        if not isinstance(resource, dict):
            continue
        path = f"Bundle.entry[{position}].resource"
        if resource.get("resourceType") == "Encounter":
            yield from _encounter_problems(resource, path)
        yield from _binding_problems(resource, path)
        yield from _element_problems(resource, path, (), notification)


def _items(bundle: Resource) -> list[Json]:
    listed = bundle.get("entry")
    return listed if isinstance(listed, list) else []


def _encounter_problems(encounter: Resource, path: str) -> Iterator[Problem]:
    """R5 moved most of what a notice needs; read as R4 it would look like an encounter that says nothing."""
    moved = [name for name in _R5_ENCOUNTER if name in encounter]
    if isinstance(encounter.get("class"), list):
        moved.append("class")
    if encounter.get("status") in _R5_STATUS:
        moved.append("status")
    for name in moved:
        text = f"Encounter.{name} is FHIR R5; this endpoint takes FHIR R4."
        yield Problem(reason="fhir_r5", text=text, location=f"{path}.{name}", code="structure")
    if "class" not in moved:
        match encounter.get("class"):
            case {"code": str()}:
                pass
            case _:
                text = "Encounter.class has no code."
                yield Problem(reason="class_missing", text=text, location=path + ".class", code="required")


def _binding_problems(resource: Resource, path: str) -> Iterator[Problem]:
    kind = str(resource["resourceType"])
    for (bound, name), codes in _BINDINGS.items():
        if bound != kind:
            continue
        code = resource.get(name)
        if code in codes or (kind == "Encounter" and code in _R5_STATUS):
            continue
        if code is None and name == "gender":
            continue
        if code is None and kind == "Location":
            continue
        text = f"{kind}.{name} is not a code of FHIR R4."
        yield Problem(reason=f"{name}_unknown", text=text, location=f"{path}.{name}", code="code-invalid")


def _element_problems(
    value: Json, root: str, where: tuple[str | int, ...], notification: Notification
) -> Iterator[Problem]:
    if isinstance(value, list):
        for position, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from _element_problems(inner, root, (*where, position), notification)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                if not (where == () and name == "contained"):
                    yield from _element_problems(inner, root, (*where, name), notification)
            elif name in _BOOLEANS and not isinstance(inner, bool):
                path = path_text(root, (*where, name))
                yield Problem(reason="not_a_boolean", text="Not true or false.", location=path, code="value")
            elif name == "reference" and isinstance(inner, str) and _dangles(inner, notification):
                path = path_text(root, (*where, name))
                text = "What is referred to is not in the bundle."
                yield Problem(reason="reference_not_found", text=text, location=path, code="not-found")


def _dangles(target: str, notification: Notification) -> bool:
    """A URN can lead nowhere but into its Bundle; an address may be one of the sender's own server."""
    if notification.kind is BundleKind.HISTORY or not target.startswith(("urn:uuid:", "urn:oid:")):
        return False
    return target not in notification.by_url
