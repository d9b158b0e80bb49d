"""What is made of a message is looked at before it leaves: nothing that FHIR would not take gets onto the log."""

from collections.abc import Mapping
from typing import TypeVar, cast

import orjson
import pytest

from tests.fixtures.adt import movement, normalized, received, source
from tocengine.errors import SetAsideError
from tocengine.normalize.codes import Trigger
from tocengine.normalize.normalizer import HL7v2Normalizer

RowT = TypeVar("RowT")


def _wrong_status(table: str, rows: Mapping[str, RowT]) -> Mapping[str, RowT]:
    """A defect of a table: a status that Encounter does not have."""
    if table != "trigger":
        return rows
    return {**rows, "A03": cast(RowT, Trigger(kind="movement", status="discharged"))}


def test_what_is_not_valid_is_set_aside_with_its_place_and_rule() -> None:
    normalizer = HL7v2Normalizer(source(), _wrong_status)
    assert normalizer.normalize(received(movement("A01")))
    with pytest.raises(SetAsideError) as caught:
        normalizer.normalize(received(movement("A03", {36: "03"})))
    problem = caught.value.problem
    assert (problem.reason, problem.location) == ("bundle_invalid", "Bundle.entry[0].resource.status")
    assert problem.text == "What was made of it is not valid FHIR: not one of the codes"


def test_control_characters_and_stray_nulls_are_left_out() -> None:
    record = normalized(movement("A01", {10: "\\X22\\\\X22\\", 37: "SUNNY\\X01\\SIDE"}))
    bundle = orjson.loads(bytes(record.fhir))
    names = [each["resource"].get("name") for each in bundle["entry"]]
    assert "SUNNYSIDE" in names
    assert b'\\"\\"' not in bytes(record.fhir)
