"""Owns the last look at what partners got in an acceptance test: each kind of FHIR notice is valid R4."""

import importlib
from collections.abc import Mapping

import orjson

from tests.corpus.notices import representative
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.schema import validator

_BUNDLE = b'{"resourceType":"Bundle"'


def assert_valid(bodies: Mapping[str, bytes]) -> None:
    """Raises AssertionError for a FHIR notice that our checks, our schema or the R4B models refuse; others are left.

    Of notices that show the same elements and codes one is looked at: a soak test's partners get thousands.
    """
    notices = {name: body for name, body in bodies.items() if body.startswith(_BUNDLE)}
    for name, body in representative(notices).items():
        bundle = orjson.loads(body)
        assert check_bundle(bundle) == [], name
        assert [error.message for error in validator().iter_errors(bundle)] == [], name
        for entry in bundle["entry"]:
            kind = entry["resource"]["resourceType"]
            model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
            assert model.model_validate(entry["resource"]), (name, kind)
