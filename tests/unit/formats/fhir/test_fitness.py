"""What is taken of a FHIR sender can be told again: scrubbed where that helps, else refused by its place."""

import copy
from typing import Any

import orjson
import pytest

from tests.unit.adapters.fhir.bundles import Bundle, bundle, coded, encoded, resource
from tests.unit.adapters.fhir.written import transaction
from tocengine.adapters.fhir.request import check_message
from tocengine.errors import SyntaxRefusedError
from tocengine.formats.fhir.fitness import fit


def test_what_is_well_is_left_as_it_is_with_all_that_notices_do_not_repeat() -> None:
    sent = bundle()
    resource(sent, "Patient")["address"] = [{"city": "UTICA", "period": {"start": "2020"}, "extension": [{"url": "x"}]}]
    resource(sent, "Patient")["name"][0] |= {"given": ["MARY", None], "_given": [None, {"id": "g2"}]}
    before = copy.deepcopy(sent)
    assert resource(fit(sent), "Patient")["address"] == resource(before, "Patient")["address"]
    assert sent == before


@pytest.mark.parametrize(
    ("text", "becomes"), [(" ", None), ("\x00", None), ('""', None), ("Chest\x07 pain ", "Chest pain"), ("ok", "ok")]
)
def test_texts_that_no_fhir_may_hold_are_scrubbed(text: str, becomes: str | None) -> None:
    code = coded("http://snomed.info/sct", "29857009")
    sent = bundle(reasonCode=[{**code, "text": text}])
    (shown,) = resource(fit(sent), "Encounter")["reasonCode"]
    assert shown == (code if becomes is None else {**code, "text": becomes})
    assert check_message(encoded(sent)) is None


@pytest.mark.parametrize("name", ["DE\u00a0LA\u3000CRUZ", "AN\u200bN", "\u00a0LEE", "A\u200c\u200dB"])
def test_a_control_character_elsewhere_changes_no_name_and_no_number(name: str) -> None:
    sent = bundle(reasonCode=[{"text": "pain\x07"}])
    patient = resource(sent, "Patient")
    patient["name"][0]["family"] = patient["identifier"][0]["value"] = name
    shown = resource(fit(sent), "Patient")
    assert (shown["name"][0]["family"], shown["identifier"][0]["value"]) == (name, name)


@pytest.mark.parametrize(("kind", "position"), [("Patient", 2), ("Encounter", 1)])
@pytest.mark.parametrize("part", ["system", "value"])
def test_a_number_with_a_control_character_is_not_joined_around_it(kind: str, position: int, part: str) -> None:
    sent = bundle()
    resource(sent, kind)["identifier"][0][part] = "urn:12\x0734"
    error = check_message(encoded(sent))
    assert error is not None
    assert sent["entry"][position]["resource"]["resourceType"] == kind
    assert error.problem.location == f"Bundle.entry[{position}].resource.identifier[0].{part}"
    assert "34" not in str(error)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"priority": {"coding": [{"code": "two  blanks"}]}}, ".priority.coding[0].code"),
        ({"serviceType": {"coding": [{"system": "not a uri"}]}}, ".serviceType.coding[0].system"),
        ({"diagnosis": [{"rank": 1}]}, ".diagnosis[0].condition"),
    ],
)
def test_what_would_be_no_fhir_in_a_notice_is_refused_by_its_place(change: dict[str, Any], path: str) -> None:
    sent = bundle(**change)
    with pytest.raises(SyntaxRefusedError) as refused:
        fit(sent)
    assert refused.value.problem.location == "Bundle.entry[1].resource" + path
    error = check_message(encoded(sent))
    assert error is not None
    assert (error.http_status, error.problem.location) == (400, "Bundle.entry[1].resource" + path)


def test_a_document_within_is_left_as_its_author_signed_it() -> None:
    binary: Bundle = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": "aGVsbG8=", "x": " "}
    sent = transaction(bundle(reasonCode=[{"text": "pain\x07"}]), documents=(binary,))
    made = fit(orjson.loads(orjson.dumps(sent)))
    assert resource(made, "Binary") == binary
    assert resource(made, "Encounter")["reasonCode"] == [{"text": "pain"}]
