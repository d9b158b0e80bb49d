"""What the engine says of itself is valid FHIR R4, to the R4B models and to the HL7 instance validator."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from tocengine.adapters.fhir.metadata import capability_statement
from tocengine.config import HttpSettings

STATEMENT = capability_statement(
    HttpSettings(), "https://toc.example.org/fhir", datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
)


def test_the_capability_statement_says_what_is_there() -> None:
    from fhir.resources.R4B import get_fhir_model_class

    get_fhir_model_class("CapabilityStatement").model_validate_json(STATEMENT)
    found = orjson.loads(STATEMENT)
    (rest,) = found["rest"]
    assert (found["fhirVersion"], rest["mode"], rest["operation"][0]["name"]) == ("4.0.1", "server", "process-message")
    assert {each["code"] for each in rest["interaction"]} == {"transaction", "batch"}


@pytest.mark.java
def test_the_hl7_validator_finds_no_error(fhir_validate: Callable[[Path], list[str]], tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_bytes(STATEMENT)
    assert fhir_validate(tmp_path) == []
