"""The golden message in, the golden notice out: the same graph of resources with the same content."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from tests.fixtures.adt import SHARED, received, source
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.resources import Json
from tocengine.formats.fhir.schema import validator
from tocengine.normalize.normalizer import HL7v2Normalizer

GOLDEN = SHARED / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files lie beside the repository")
_FREE = frozenset({"display", "text", "id", "fullUrl"})
"""What the golden page leaves open; additional codings too."""


def rendered_golden() -> bytes:
    message = msgspec.structs.replace(received((GOLDEN / "a03.hl7").read_bytes()), control_id="9001")
    (record,) = HL7v2Normalizer(source()).normalize(message)
    event = record.summary
    return render_notification(notice(event), snapshot(event), bytes(record.fhir), SUNNYSIDE, URL, ENGINE)


@needs_golden
def test_the_golden_message_gives_the_golden_notice() -> None:
    golden = orjson.loads((GOLDEN / "a03.notice.json").read_bytes())
    ours = orjson.loads(rendered_golden())
    assert {name: value for name, value in ours.items() if name not in ("id", "entry")} == {
        name: value for name, value in golden.items() if name not in ("id", "entry")
    }
    assert graph(ours) == graph(golden)


@needs_golden
def test_the_golden_notice_passes_our_checks() -> None:
    golden = orjson.loads((GOLDEN / "a03.notice.json").read_bytes())
    ours = orjson.loads(rendered_golden())
    assert check_bundle(golden) == []
    assert check_bundle(ours) == []
    assert [error.message for error in validator().iter_errors(ours)] == []


@needs_golden
@pytest.mark.java
@pytest.mark.timeout(600)
def test_the_hl7_validator_finds_no_error(fhir_validate: Callable[[Path], list[str]], tmp_path: Path) -> None:
    (tmp_path / "ours.json").write_bytes(rendered_golden())
    assert fhir_validate(tmp_path) == []


def graph(bundle: dict[str, Any]) -> list[str]:
    """The resources in canonical order, each reference replaced by the whole resource it points to."""
    resources: dict[str, dict[str, Json]] = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}

    def canonical(value: Json, path: tuple[str, ...]) -> Json:
        if isinstance(value, dict):
            target = value.get("reference")
            if isinstance(target, str):
                if target in resources and target not in path:
                    return canonical(resources[target], (*path, target))
                return {"reference": f"back to {resources[target]['resourceType']}"}
            kept = {name: canonical(each, path) for name, each in value.items() if name not in _FREE}
            codings = kept.get("coding")
            if isinstance(codings, list):
                kept["coding"] = sorted((str(each) for each in codings), key=str)
            return kept
        return [canonical(each, path) for each in value] if isinstance(value, list) else value

    return sorted(
        orjson.dumps(canonical(resource, (url,)), option=orjson.OPT_SORT_KEYS).decode()
        for url, resource in resources.items()
    )
