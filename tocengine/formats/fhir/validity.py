"""Owns the last look at a Bundle before it leaves: what is not valid is not sent.

The schema, compiled, sees structure, types and patterns; the checks see what it cannot. Both together cost less than
the POST that follows.
"""

import orjson

from tocengine.errors import InvalidBundleError
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.schema import validator

_SHOWN = 5


def assert_valid(body: bytes) -> None:
    """Raises InvalidBundleError for a Bundle in JSON with anything wrong; it names places and rules, never values."""
    bundle = orjson.loads(body)
    findings = [f"{finding.path}: {finding.rule}" for finding in check_bundle(bundle)]
    if not validator().is_valid(bundle):
        findings.append("Bundle: outside the schema")
    if findings:
        raise InvalidBundleError(findings[:_SHOWN])
