"""Owns the last look at a Bundle before it leaves: what is not valid is not sent.

The schema, compiled, sees the elements; references are looked up in the bytes. Nothing else is done for a Bundle that
is well; what is wrong with another is found by `checks`.
"""

import orjson

from tocengine.errors import InvalidBundleError
from tocengine.formats.fhir.checks import check_bundle, check_message, entries_of
from tocengine.formats.fhir.ids import URN
from tocengine.formats.fhir.resources import Resource
from tocengine.formats.fhir.schema import validator

_SHOWN = 5
_REFERENCE = b'"reference":"'
_LENGTH = len(URN) + len("00000000-0000-0000-0000-000000000000") + len('"')


def assert_valid(body: bytes, bundle: Resource | None = None) -> None:
    """Raises InvalidBundleError for a Bundle in compact JSON with anything wrong; `bundle` is what `body` was made of.

    The error names places and rules, never values.
    """
    if bundle is None:
        bundle = orjson.loads(body)
    amiss = any(check_message(bundle)) if bundle.get("type") == "message" else False
    if validator().is_valid(bundle) and _resolved(bundle, body) and not amiss:
        return
    findings = [f"{finding.path}: {finding.rule}" for finding in check_bundle(bundle)]
    if findings:
        raise InvalidBundleError(findings[:_SHOWN])


def _resolved(bundle: Resource, body: bytes) -> bool:
    """Whether each fullUrl is another, and each reference is to one of a UUID. Inside a string of JSON the quotation
    marks of what is searched would be escaped, so it is found nowhere else."""
    entries = entries_of(bundle)
    urls = {f'{item.get("fullUrl")}"'.encode() for item in entries}
    return len(urls) == len(entries) and urls.issuperset([rest[:_LENGTH] for rest in body.split(_REFERENCE)[1:]])
