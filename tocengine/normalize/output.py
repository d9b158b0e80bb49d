"""Owns the way out: the resources of a reading as one collection Bundle that is valid FHIR, or a refusal."""

import orjson

from tocengine.errors import InvalidBundleError, SetAsideError
from tocengine.formats.fhir.resources import Json, Resource, collection
from tocengine.formats.fhir.validity import assert_valid
from tocengine.formats.hl7v2.parser import NULL
from tocengine.model.message import Problem
from tocengine.normalize.reading import Reading


def bundle(reading: Reading) -> bytes:
    """The collection Bundle: Encounter and Patient first, then what they refer to.

    Control characters and stray ``""`` hide in few messages: what is not valid is looked at again without them.
    Raises SetAsideError for what is not valid even so, a defect of the rules: it waits for their repair.
    """
    roots = [resource for resource in (reading.encounter, reading.patient) if resource]
    built = collection(roots + reading.resources)
    try:
        return _valid(built)
    except InvalidBundleError:
        scrubbed = _scrubbed(built)
        assert isinstance(scrubbed, dict)
    try:
        return _valid(scrubbed)
    except InvalidBundleError as error:
        place, _, rule = error.findings[0].partition(": ")
        text = f"What was made of it is not valid FHIR: {rule}"
        raise SetAsideError(Problem(reason="bundle_invalid", text=text, location=place, code="207")) from error


def _valid(built: Resource) -> bytes:
    body = orjson.dumps(built)
    assert_valid(body, built)
    return body


def _scrubbed(value: Json) -> Json:
    if isinstance(value, str):
        if not value.isprintable():
            value = "".join(each for each in value if each.isprintable() or each in "\t\r\n")
        value = value.strip()
        return value if value and value != NULL else None
    if isinstance(value, dict):
        return {name: kept for name, inner in value.items() if (kept := _scrubbed(inner)) is not None} or None
    if isinstance(value, list):
        return [kept for inner in value if (kept := _scrubbed(inner)) is not None] or None
    return value
