"""Every notice and every event the public corpus leads to is valid FHIR: by our checks, the schema, R4B and HL7."""

import importlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import orjson
import pytest

from tests.corpus.files import hl7v2_files
from tests.corpus.notices import adt_messages, corpus_events, corpus_notices, records_of, representative
from tests.fixtures.sources import unfounded
from tests.services.validator import write_bundles
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.schema import validator

pytestmark = pytest.mark.skipif(not hl7v2_files(), reason="the message corpus is not beside this checkout")


@lru_cache(maxsize=1)
def _notices() -> dict[str, bytes]:
    return corpus_notices()


@lru_cache(maxsize=1)
def _chosen() -> dict[str, bytes]:
    """Of all bundles those that differ in what they show: the outside judge needs long for each."""
    return {**representative(_notices()), **representative(corpus_events())}


def test_every_notice_passes_our_own_checks_and_schema() -> None:
    schema = validator()
    wrong = {}
    for name, body in _notices().items():
        bundle = orjson.loads(body)
        found = [*check_bundle(bundle), *(error.message for error in schema.iter_errors(bundle))]
        if found:
            wrong[name] = found
    assert wrong == {}
    kinds = {name.split(" ")[3] for name in _notices()}
    assert kinds >= {"ED_REGISTRATION", "INPATIENT_ADMIT", "INPATIENT_DISCHARGE", "PATIENT_EXPIRED", "ADMIT_CANCELLED"}


def test_every_resource_is_a_valid_r4b_model() -> None:
    for name, body in _chosen().items():
        for entry in orjson.loads(body).get("entry", ()):
            kind = entry["resource"]["resourceType"]
            model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
            assert model.model_validate(entry["resource"]), (name, kind)


def test_nothing_is_invented_about_any_message() -> None:
    made_up = {
        name: found
        for name, body in adt_messages()
        for record in records_of(body)
        if (found := unfounded(orjson.loads(bytes(record.fhir)), body))
    }
    assert made_up == {}


@pytest.mark.java
@pytest.mark.timeout(600)
def test_the_hl7_validator_finds_no_error(fhir_validate: Callable[[Path], list[str]], tmp_path: Path) -> None:
    write_bundles(_chosen(), tmp_path)
    assert fhir_validate(tmp_path) == []
