"""Every must-support element of the profiles that notices claim is in one, or listed with the reason why it is not."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson
import pytest

from tests.conformance.test_notices_validate import notices
from tests.fixtures.adt import ROOT, SHARED

PROFILES = SHARED / "corpus" / "profiles"
ABSENT = ROOT / "docs" / "notices.md"
_ROW = re.compile(r"^\| `([A-Z]\w+(?:\.[\w:\[\]]+)+)` \| ([^|]+) \|$", re.MULTILINE)

pytestmark = pytest.mark.skipif(not PROFILES.is_dir(), reason="the profiles lie beside the repository")


@lru_cache(maxsize=1)
def _profiles() -> Mapping[str, Mapping[str, Any]]:
    found = {}
    for folder in ("davinci-alerts", "us-core"):
        for file in sorted((PROFILES / folder).glob("*tructure*efinition-*.json")):
            profile = json.loads(file.read_text("utf-8"))
            found[profile["url"]] = profile
    return found


def _demanded(url: str) -> Iterator[str]:
    """The must-support elements of a profile and of those it is made from; of a slice the slice."""
    profile = _profiles().get(url)
    if profile is not None:
        for element in profile["differential"]["element"]:
            if element.get("mustSupport"):
                yield str(element["id"])
        yield from _demanded(profile["baseDefinition"])


def _shown(resource: Mapping[str, Any], element: str) -> bool:
    """Whether a resource has the element; a choice by any of its types, a slice as the element it is one of."""
    found: list[Any] = [resource]
    for step in re.sub(r":[^.]+", "", element).split(".")[1:]:
        name = step.removesuffix("[x]")
        found = [
            inner
            for each in found
            if isinstance(each, dict)
            for key, value in each.items()
            if key.removeprefix("_") == name or (step != name and key.startswith(name))
            for inner in (value if isinstance(value, list) else [value])
        ]
    return bool(found)


def test_each_must_support_element_is_shown_or_absent_with_a_reason() -> None:
    demanded: set[str] = set()
    shown: set[str] = set()
    for body in notices().values():
        bundle = orjson.loads(body)
        for resource in (bundle, *(entry["resource"] for entry in bundle["entry"])):
            for url in resource.get("meta", {}).get("profile", ()):
                assert url in _profiles() or url.startswith("http://hl7.org/fhir/"), url
                elements = set(_demanded(url))
                demanded |= elements
                shown |= {each for each in elements if _shown(resource, each)}
    reasons = dict(_ROW.findall(ABSENT.read_text("utf-8")))
    assert demanded - shown == reasons.keys()
    assert all(reason.strip() for reason in reasons.values())
    assert len(shown) > 60
