"""Owns whether the resources that came in can be told again: whatever is taken of a sender, no notice of it is invalid.

Notices repeat elements of what was received. What is in them must be as R4 wants it, or the notice would fail long
after the message was accepted. Control characters and blanks are taken out; anything else is refused, by its place. So
is a control character in the number of a patient or visit: without it, it would be another's number.
"""

from collections.abc import Iterator

from tocengine.errors import SyntaxRefusedError
from tocengine.formats.fhir.checks import found_in
from tocengine.formats.fhir.contained import contained_in
from tocengine.formats.fhir.elements import RESOURCES, declared
from tocengine.formats.fhir.resources import Json, Resource
from tocengine.formats.fhir.schema import received_validator
from tocengine.formats.fhir.scrubbing import CONTROL, scrubbed
from tocengine.model.message import Problem

_REPEATED = tuple(name for name in RESOURCES if name not in ("MessageHeader", "Provenance"))
_KEYED = ("Patient", "Encounter")


def fit(bundle: Resource) -> Resource:
    """`bundle`, or where it needs it a copy whose resources are scrubbed. Raises SyntaxRefusedError, up to 20 problems.

    Resources of documents within (Bundle, Binary) are left as they are: they may be signed.
    """
    resources = [resource for _, resource in _repeated(bundle)]
    if received_validator().is_valid(resources):
        return bundle
    problems = list(unfit(bundle))
    if problems:
        raise SyntaxRefusedError(*problems[:20])
    listed = bundle["entry"]
    assert isinstance(listed, list)
    return {**bundle, "entry": [_scrubbed_entry(item) for item in listed]}


def unfit(bundle: Resource) -> Iterator[Problem]:
    """What is wrong with the resources of `bundle` even when scrubbed, of what is repeated alone."""
    for path, resource in _repeated(bundle):
        if received_validator().is_valid([resource]):
            continue
        kind = str(resource["resourceType"])
        yield from _unsafe_keys(path, kind, resource)
        kept = scrubbed(resource)
        shown = declared(kept, kind) if isinstance(kept, dict) else {}
        shown.pop("meta", None)
        for error in received_validator().iter_errors([shown]):
            finding = found_in(path, error, error.instance_path[1:])
            text = f"Not valid FHIR R4: {finding.rule}."
            yield Problem(reason="not_r4", text=text, location=finding.path, code="structure")


def _unsafe_keys(path: str, kind: str, resource: Resource) -> Iterator[Problem]:
    """Control characters in the identifiers that keys of patients and visits are made of."""
    listed = resource.get("identifier") if kind in _KEYED else None
    for position, item in enumerate(listed if isinstance(listed, list) else ()):
        for name in ("system", "value"):
            said = item.get(name) if isinstance(item, dict) else None
            if isinstance(said, str) and CONTROL.search(said):
                place = f"{path}.identifier[{position}].{name}"
                text = "Not valid FHIR R4: an identifier holds a control character."
                yield Problem(reason="not_r4", text=text, location=place, code="structure")


def _repeated(bundle: Resource) -> Iterator[tuple[str, Resource]]:
    """The resources that notices repeat elements of, with their paths; contained ones too."""
    listed = bundle.get("entry")
    for position, item in enumerate(listed if isinstance(listed, list) else ()):
        resource = item.get("resource") if isinstance(item, dict) else None
        if isinstance(resource, dict) and resource.get("resourceType") in _REPEATED:
            path = f"Bundle.entry[{position}].resource"
            yield path, resource
            for place, inner in enumerate(contained_in(resource)):
                if inner["resourceType"] in _REPEATED:
                    yield f"{path}.contained[{place}]", inner


def _scrubbed_entry(item: Json) -> Json:
    resource = item.get("resource") if isinstance(item, dict) else None
    if isinstance(item, dict) and isinstance(resource, dict) and resource.get("resourceType") in _REPEATED:
        return {**item, "resource": scrubbed(resource)}
    return item
