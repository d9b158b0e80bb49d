"""A number that only fills a field is nobody's: no key, no visit, no alias, in either format."""

import pytest

from tests.fixtures.adt import EVN, adt, encounter_facts, event, movement, normalized, resources
from tests.unit.adapters.fhir.bundles import bundle, resource
from tests.unit.normalize.test_fhir import normalized as normalized_fhir
from tocengine.errors import ContentError
from tocengine.model.event import Merge
from tocengine.model.identity import PatientKey

FILLING = ["UNKNOWN", "unk", "N/A", "000000000", "0", "9999", "111111", "-", "???"]


def pid(number: str) -> str:
    return f"PID|1||{number}^^^STJ^MR||ALPHA^TRAUMA||1980|M"


@pytest.mark.parametrize("number", FILLING)
def test_a_placeholder_identifies_no_patient(number: str) -> None:
    with pytest.raises(ContentError) as refused:
        event(movement("A04", {2: "E"}, pid=pid(number)))
    assert (refused.value.problem.reason, refused.value.problem.location) == ("patient_id_missing", "PID^1^3")


@pytest.mark.parametrize("number", ["0012345", "11", "7777", "111112", "A000000"])
def test_a_number_that_may_be_somebodys_is_a_key(number: str) -> None:
    assert event(movement("A04", {2: "E"}, pid=pid(number))).patient == PatientKey("STJ", number)


def test_another_number_beside_a_placeholder_is_the_key_and_the_placeholder_is_kept_nowhere() -> None:
    body = movement("A04", {2: "E"}, pid="PID|1||UNKNOWN^^^STJ^MR~E77^^^STJ^PI||ALPHA^TRAUMA")
    assert event(body).patient == PatientKey("STJ", "E77")
    assert "placeholder:PID-3" in event(body).flags
    assert b"UNKNOWN" not in bytes(normalized(body).fhir)


@pytest.mark.parametrize("number", FILLING)
def test_a_placeholder_is_no_visit(number: str) -> None:
    with pytest.raises(ContentError) as refused:
        event(movement("A04", {19: f"{number}^^^STJ^VN"}))
    assert (refused.value.problem.reason, refused.value.problem.location) == ("visit_key_missing", "PV1^1^19")


def test_a_placeholder_links_no_visits_and_is_no_account() -> None:
    body = movement("A01", {50: "UNKNOWN"}, pid="PID|1||7^^^STJ^MR||ALPHA^TRAUMA||1980|M||||||||||0000000")
    assert (encounter_facts(body).alternate_visit or None, encounter_facts(body).account_number or None) == (None, None)
    assert len(resources(body, "Encounter")[0]["identifier"]) == 1


@pytest.mark.parametrize(
    ("now", "prior", "location"),
    [("0012345^^^STJ^MR", "UNKNOWN^^^STJ^MR", "MRG^1^1"), ("UNKNOWN^^^STJ^MR", "0012345^^^STJ^MR", "PID^1^3")],
)
@pytest.mark.parametrize("trigger", ["A40", "A47", "A43"])
def test_nothing_is_merged_or_moved_from_or_into_a_placeholder(
    trigger: str, now: str, prior: str, location: str
) -> None:
    with pytest.raises(ContentError) as refused:
        event(adt(trigger, EVN, f"PID|1||{now}||ALPHA^TRAUMA", f"MRG|{prior}"))
    assert refused.value.problem.location == location


def test_a_merge_names_the_real_numbers_alone() -> None:
    told = event(adt("A40", EVN, pid("0012345"), "MRG|UNKNOWN^^^STJ^MR~5551^^^STJ^MR"))
    assert told.merges == (Merge(prior=PatientKey("STJ", "5551"), surviving=PatientKey("STJ", "0012345")),)


@pytest.mark.parametrize("kind", ["Patient", "Encounter"])
@pytest.mark.parametrize("number", FILLING)
def test_a_placeholder_is_no_key_in_fhir(kind: str, number: str) -> None:
    sent = bundle()
    resource(sent, kind)["identifier"] = [{**resource(sent, kind)["identifier"][0], "value": number}]
    with pytest.raises(ContentError) as refused:
        normalized_fhir(sent)
    assert refused.value.problem.reason.endswith("_identifier_missing")


def test_another_number_beside_a_placeholder_is_the_key_in_fhir() -> None:
    sent = bundle()
    patient = resource(sent, "Patient")
    patient["identifier"].insert(0, {**patient["identifier"][0], "value": "UNKNOWN"})
    told, content = normalized_fhir(sent)
    assert told.patient == normalized_fhir(bundle())[0].patient
    assert all(each["value"] != "UNKNOWN" for each in resource(content, "Patient")["identifier"])
