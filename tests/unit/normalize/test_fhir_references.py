"""What a reference of a FHIR Bundle leads to: what is contained, one version, who left; and what is not understood."""

from typing import Any

import pytest

from tests.unit.adapters.fhir.bundles import NPI, Bundle, bundle, encoded, person, resource
from tests.unit.adapters.fhir.written import document, notification, transaction
from tests.unit.normalize.test_fhir import normalized, visit
from tests.unit.normalize.test_what_stands import patient
from tocengine.adapters.fhir.request import check_message
from tocengine.model.facts import Destination
from tocengine.model.identity import Organization

ATTENDING = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "ATND"}]}
PERFORMING = {"coding": [ATTENDING["coding"][0] | {"code": "PPRF"}]}
SUNNYSIDE = {
    "resourceType": "Location",
    "id": "lo",
    "identifier": [{"system": NPI, "value": "1999000015"}],
    "name": "SUNNYSIDE",
}


def without(sent: Bundle, *kinds: str) -> Bundle:
    sent["entry"] = [each for each in sent["entry"] if each["resource"]["resourceType"] not in kinds]
    return sent


def contained() -> Bundle:
    """A discharge whose people and places are contained in the resources that name them."""
    sent = without(bundle(), "Practitioner", "Location", "Organization", "Condition")
    role = {"resourceType": "PractitionerRole", "id": "pr", "practitioner": {"reference": "#dr"}}
    failure = {"resourceType": "Condition", "id": "dx", "code": {"text": "Heart failure"}}
    failure |= {"subject": {"reference": "urn:uuid:p"}, "encounter": {"reference": "#"}}
    visit_ = resource(sent, "Encounter")
    visit_["contained"] = [person("dr", "1999000031", "ROE", "ANN"), role, SUNNYSIDE, failure]
    visit_["participant"] = [{"type": [ATTENDING], "individual": {"reference": "#pr"}}]
    visit_["hospitalization"]["destination"] = {"reference": "#lo"}
    visit_["diagnosis"] = [{"condition": {"reference": "#dx"}}]
    visit_["location"] = [{"location": {"display": "3N"}}]
    practice = {"resourceType": "Organization", "id": "lo", "name": "UTICA FAMILY MED"}
    resource(sent, "Patient").update(contained=[practice], generalPractitioner=[{"reference": "#lo"}])
    return sent


@pytest.mark.parametrize(
    "make",
    [
        lambda sent: sent,
        transaction,
        lambda sent: document(sent, author=[{"display": "ROE"}], section=[{"title": "Problems"}]),
        lambda sent: notification(sent, method="POST"),
    ],
)
def test_what_is_contained_is_found_in_the_resource_that_contains_it_alone(make: Any) -> None:
    sent = make(contained())
    assert check_message(encoded(sent)) is None
    event, content = normalized(sent)
    treating = visit(event).treating
    assert treating
    assert treating.npi == "1999000031"
    assert visit(event).destination == Destination(text="SUNNYSIDE", npi="1999000015")
    assert patient(event).pcp_practices == (Organization("UTICA FAMILY MED"),)
    assert not event.flags
    kinds = {each["resource"]["resourceType"] for each in content["entry"]}
    assert {"Practitioner", "Location", "Organization", "Condition"} <= kinds
    assert "#" not in str([each for each in content["entry"] if each["resource"]["resourceType"] != "Bundle"])
    diagnoses = visit(event).diagnoses
    assert diagnoses
    assert diagnoses[0].text == "Heart failure"


def test_a_contained_patient_is_none() -> None:
    sent = bundle()
    visit_ = resource(sent, "Encounter")
    visit_.update(contained=[resource(sent, "Patient")], subject={"reference": "#p"})
    error = check_message(encoded(without(sent, "Patient")))
    assert error is not None
    assert error.problem.reason == "patient_not_found"


NOWHERE = {"reference": "https://ehr.example.org/Any/9"}


@pytest.mark.parametrize(
    ("kind", "change", "flag"),
    [
        ("Encounter", {"hospitalization": {"destination": NOWHERE}}, "Encounter.hospitalization.destination"),
        ("Encounter", {"participant": [{"type": [ATTENDING], "individual": NOWHERE}]}, "Encounter.participant"),
        ("Encounter", {"location": [{"location": NOWHERE}]}, "Encounter.location"),
        ("Patient", {"generalPractitioner": [NOWHERE]}, "Patient.generalPractitioner"),
    ],
)
def test_a_reference_that_leads_nowhere_is_flagged(kind: str, change: Bundle, flag: str) -> None:
    sent = bundle()
    resource(sent, kind).update(change)
    assert normalized(sent)[0].flags == (f"unresolved:{flag}",)


@pytest.mark.parametrize(
    ("reference", "version", "found"),
    [
        ("Patient/p/_history/3", "3", True),
        ("urn:uuid:p/_history/3", "3", True),
        ("Patient/p/_history/3", "2", False),
        ("Patient/p/_history/3", None, False),
    ],
)
def test_a_reference_to_one_version_leads_to_that(reference: str, version: str | None, found: bool) -> None:
    sent = bundle(subject={"reference": reference})
    if version:
        resource(sent, "Patient")["meta"] = {"versionId": version}
    error = check_message(encoded(sent))
    assert (error is None) is found
    if found:
        _, content = normalized(sent)
        assert "_history" not in str(content)
    else:
        assert error is not None
        assert error.problem.reason == "patient_not_found"


def staying(family: str, until: str | None, kind: Bundle | None = None) -> Bundle:
    found: Bundle = {"individual": {"display": family}, "type": [kind or ATTENDING]}
    return found | ({"period": {"end": until}} if until else {})


BEFORE, DURING, AT_THE_END = "2026-02-01T10:00:00-05:00", "2026-02-27T11:00:00-05:00", "2026-03-01T15:35:00-05:00"


@pytest.mark.parametrize(
    ("participants", "who"),
    [
        ([staying("FORMER", DURING), staying("ROE", None)], "ROE"),
        ([staying("FORMER", DURING), staying("ROE", AT_THE_END)], "ROE"),
        ([staying("FORMER", DURING), staying("ROE", "2026-03-01")], "ROE"),
        ([staying("FORMER", DURING), staying("ROE", None, PERFORMING)], "ROE"),
        ([staying("FORMER", DURING)], "FORMER"),
        ([staying("FORMER", BEFORE)], None),
    ],
)
def test_who_has_left_treats_no_longer(participants: list[Bundle], who: str | None) -> None:
    treating = visit(normalized(bundle(participant=participants))[0]).treating
    assert (treating.family if treating else None) == who


@pytest.mark.parametrize(
    ("change", "reason", "location"),
    [
        (lambda m: m.update(implicitRules="urn:rules"), "implicit_rules", "Bundle.implicitRules"),
        (
            lambda m: resource(m, "Patient").update(implicitRules="urn:rules"),
            "implicit_rules",
            "Bundle.entry[2].resource.implicitRules",
        ),
        (
            lambda m: resource(m, "Encounter").update(modifierExtension=[{"url": "urn:not", "valueBoolean": True}]),
            "modifier_extension",
            "Bundle.entry[1].resource.modifierExtension",
        ),
        (
            lambda m: resource(m, "Encounter")["participant"][0].update(
                modifierExtension=[{"url": "urn:not", "valueBoolean": True}]
            ),
            "modifier_extension",
            "Bundle.entry[1].resource.participant[0].modifierExtension",
        ),
        (
            lambda m: resource(m, "Encounter").update(partOf={"reference": "#none"}),
            "reference_not_found",
            "Bundle.entry[1].resource.partOf.reference",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(change: Any, reason: str, location: str) -> None:
    sent = bundle()
    change(sent)
    error = check_message(encoded(sent))
    assert error is not None
    assert (error.problem.reason, error.problem.location) == (reason, location)
    assert error.http_status == 400


def test_what_nobody_reads_may_have_modifiers() -> None:
    sent = document(bundle())
    plan: Bundle = {"resourceType": "CarePlan", "id": "cp", "status": "active", "intent": "plan"}
    plan["subject"] = {"reference": "urn:uuid:p"}
    plan["modifierExtension"] = [{"url": "urn:not", "valueBoolean": True}]
    sent["entry"].append({"fullUrl": "urn:uuid:cp", "resource": plan})
    assert check_message(encoded(sent)) is None


def test_what_is_contained_must_be_fit_for_a_notice_too() -> None:
    sent = contained()
    resource(sent, "Encounter")["contained"][2] = SUNNYSIDE | {"name": "SUNNY\x07SIDE"}
    event, _ = normalized(sent)
    destination = visit(event).destination
    assert destination
    assert destination.text == "SUNNYSIDE"


def test_a_number_that_is_no_npi_and_an_end_before_the_start_are_flagged() -> None:
    sent = bundle(period={"start": "2026-03-02T10:15:00-05:00", "end": "2026-03-01T15:35:00-05:00"})
    next(each["resource"] for each in sent["entry"] if each["resource"]["id"] == "dest")["identifier"] = [
        {"system": NPI, "value": "1234567890"}
    ]
    assert normalized(sent)[0].flags == ("discharge_before_admit", "npi_invalid:Encounter.hospitalization.destination")


@pytest.mark.parametrize(
    ("born", "flags"),
    [("1900-01-01", ("implausible:Patient.birthDate",)), ("2099", ("implausible:Patient.birthDate",)), ("1940", ())],
)
def test_a_date_of_birth_that_nobody_has_is_flagged(born: str, flags: tuple[str, ...]) -> None:
    sent = bundle()
    resource(sent, "Patient")["birthDate"] = born
    assert normalized(sent)[0].flags == flags
