"""Owns what R4 demands of received content and the R4B models do not see: R5 shapes, bindings, booleans, references.

Each finding is a Problem with the FHIRPath of what is wrong; no value of the message is repeated.
"""

from collections.abc import Callable, Iterator, Set
from functools import partial

from tocengine.formats.fhir.contained import contained_in
from tocengine.formats.fhir.elements import RESOURCES
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
_READ = frozenset({*RESOURCES, "PractitionerRole", "Composition"})
"""What the engine understands itself; other resources go into a document, or nowhere."""
_BOOLEANS = frozenset({"active", "deceasedBoolean", "multipleBirthBoolean", "preferred", "userSelected", "inactive"})


def incoming_problems(notification: Notification) -> Iterator[Problem]:
    """Everything found, in the order of the entries."""
    yield from _rules_problems(notification.bundle, "Bundle")
    for position, item in enumerate(_items(notification.bundle)):
        resource = item.get("resource") if isinstance(item, dict) else None
        if not isinstance(resource, dict):
            continue
        path = f"Bundle.entry[{position}].resource"
        if resource.get("resourceType") == "Encounter":
            yield from _encounter_problems(resource, path)
        yield from _binding_problems(resource, path)
        if resource["resourceType"] in _READ:
            yield from _rules_problems(resource, path)
            yield from _modifier_problems(resource, path, ())
        local = {f"#{each['id']}" for each in contained_in(resource)} | {"#"}
        yield from _element_problems(resource, path, (), partial(_dangles, notification, local))


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
    value: Json, root: str, where: tuple[str | int, ...], dangles: Callable[[str], bool]
) -> Iterator[Problem]:
    if isinstance(value, list):
        for position, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from _element_problems(inner, root, (*where, position), dangles)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                yield from _element_problems(inner, root, (*where, name), dangles)
            elif name in _BOOLEANS and not isinstance(inner, bool):
                path = path_text(root, (*where, name))
                yield Problem(reason="not_a_boolean", text="Not true or false.", location=path, code="value")
            elif name == "reference" and isinstance(inner, str) and dangles(inner):
                path = path_text(root, (*where, name))
                text = "What is referred to is not in the bundle."
                yield Problem(reason="reference_not_found", text=text, location=path, code="not-found")


def _dangles(notification: Notification, local: Set[str], target: str) -> bool:
    """A URN can lead nowhere but into its Bundle, a ``#id`` into its resource; an address may be of the sender's
    server."""
    if target.startswith("#"):
        return target not in local
    if notification.kind is BundleKind.HISTORY or not target.startswith(("urn:uuid:", "urn:oid:")):
        return False
    return notification.find(target) is None


def _rules_problems(resource: Resource, path: str) -> Iterator[Problem]:
    """Rules that change what the content means, of which the engine knows none (FHIR R4, implicitRules)."""
    if "implicitRules" in resource:
        text = "What the content means depends on rules that are not known here."
        yield Problem(reason="implicit_rules", text=text, location=path + ".implicitRules", code="not-supported")


def _modifier_problems(value: Json, root: str, where: tuple[str | int, ...]) -> Iterator[Problem]:
    """Extensions that change the meaning of what they stand in, of which the engine knows none (FHIR R4, 2.4.2)."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in parts:
        if name == "modifierExtension":
            text = "What it modifies means something else than it says: the extension is not known here."
            location = path_text(root, (*where, name))
            yield Problem(reason="modifier_extension", text=text, location=location, code="not-supported")
        elif isinstance(inner, dict | list):
            yield from _modifier_problems(inner, root, (*where, name))
