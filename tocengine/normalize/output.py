"""Owns the way out: the resources of a reading as one collection Bundle that is valid FHIR, or a refusal."""

from decimal import Decimal

import orjson

from tocengine.errors import InvalidBundleError, SetAsideError
from tocengine.formats.fhir.resources import Resource, collection
from tocengine.formats.fhir.scrubbing import scrubbed
from tocengine.formats.fhir.validity import assert_valid
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
        clean = scrubbed(built)
        assert isinstance(clean, dict)
    try:
        return _valid(clean)
    except InvalidBundleError as error:
        place, _, rule = error.findings[0].partition(": ")
        text = f"What was made of it is not valid FHIR: {rule}"
        raise SetAsideError(Problem(reason="bundle_invalid", text=text, location=place, code="207")) from error


def _digits(number: object) -> orjson.Fragment:
    """A Decimal as it was written: 80.50 is not 80.5."""
    if isinstance(number, Decimal):
        return orjson.Fragment(format(number, "f"))
    raise TypeError(type(number).__name__)


def _valid(built: Resource) -> bytes:
    body = orjson.dumps(built, default=_digits)
    assert_valid(body, built)
    return body
