"""Of what a sender gives several of, or takes back, that is told which stands: in ADT and in FHIR alike."""

from typing import Any

import pytest
from msgspec import UNSET

from tests.unit.adapters.fhir.bundles import MRN_SYSTEM, V2_0203, VISIT_SYSTEM, Bundle, bundle, coded, resource
from tests.unit.normalize.test_fhir import ADT, message, normalized, source, visit
from tocengine.model.event import Event
from tocengine.model.facts import Diagnosis, PatientFacts, overlay, told_name
from tocengine.model.message import ContentType
from tocengine.normalize.normalizer import HL7v2Normalizer

PID = "O'NEIL^MARY^J^^^^L||19400102|F"


def patient(event: Event) -> PatientFacts:
    assert isinstance(event.patient_facts, PatientFacts)
    return event.patient_facts


def from_adt(pid: str) -> PatientFacts:
    """The facts of an ADT message whose PID-5 and what follows are `pid`."""
    assert PID in ADT
    (record,) = HL7v2Normalizer(source()).normalize(message(ADT.replace(PID, pid).encode(), ContentType.HL7V2))
    return patient(record.summary)


def from_fhir(**changed: Any) -> PatientFacts:
    sent = bundle()
    resource(sent, "Patient").update(changed)
    return patient(normalized(sent)[0])


def told(facts: PatientFacts) -> str:
    assert facts.names
    name = told_name(facts.names)
    assert name is not None
    return " ".join((name.family, *name.given))


@pytest.mark.parametrize(
    ("sent", "who"),
    [
        ("SMITH^MOLLY^^^^^M~DOE^JANE^^^^^L", "DOE JANE"),
        ("ALIASNAME^MOLLY^^^^^A~DOE^JANE^^^^^L", "DOE JANE"),
        ("ALIASNAME^MOLLY^^^^^A~DOE^JANE", "DOE JANE"),
        ("SMITH^MOLLY^^^^^B~DOE^JANE^^^^^D", "DOE JANE"),
        ("DOE^JANIE^^^^^D~DOE^JANE^^^^^L", "DOE JANE"),
        ("MOLLY^^^^^^N~DOE^JANE^^^^^BAD", "MOLLY"),
        ("DOE^JANE~DOE^JANIE^^^^^D", "DOE JANE"),
        ("ALIASNAME^MOLLY^^^^^A", "ALIASNAME MOLLY"),
    ],
)
def test_an_alias_or_a_former_name_is_told_only_where_there_is_no_other(sent: str, who: str) -> None:
    assert told(from_adt(f"{sent}||19400102|F")) == who


@pytest.mark.parametrize(
    ("uses", "who"),
    [
        (("old", "official"), "1"),
        (("maiden", None), "1"),
        (("nickname", "usual"), "1"),
        (("usual", "official"), "1"),
        ((None, "usual"), "0"),
        (("old", "maiden"), "1"),
        (("old",), "0"),
    ],
)
def test_a_former_name_of_a_fhir_patient_is_told_only_where_there_is_no_other(
    uses: tuple[str | None, ...], who: str
) -> None:
    names: list[Bundle] = [{"family": str(place)} | ({"use": use} if use else {}) for place, use in enumerate(uses)]
    assert told(from_fhir(name=names)) == who


def test_a_practitioner_too_goes_by_the_present_name() -> None:
    sent = bundle()
    resource(sent, "Practitioner")["name"] = [{"use": "old", "family": "FORMER"}, {"family": "ROE"}]
    treating = visit(normalized(sent)[0]).treating
    assert treating
    assert treating.family == "ROE"


def fhir_address(city: str, use: str) -> Bundle:
    return {"city": city} | ({"use": use} if use else {})


@pytest.mark.parametrize(
    ("sent", "uses", "city"),
    [
        ("^^ALBANY^^^^BA~^^UTICA^^^^H", (("ALBANY", "old"), ("UTICA", "home")), "UTICA"),
        ("^^ALBANY^^^^B~^^UTICA^^^^H", (("ALBANY", "work"), ("UTICA", "home")), "UTICA"),
        ("^^ALBANY^^^^C~^^UTICA", (("ALBANY", "temp"), ("UTICA", "")), "UTICA"),
        ("^^UTICA~^^ALBANY^^^^H", (("UTICA", ""), ("ALBANY", "home")), "UTICA"),
        ("^^UTICA^^^^C", (("UTICA", "temp"),), "UTICA"),
        ("^^ALBANY^^^^BA", (("ALBANY", "old"),), ""),
    ],
)
def test_the_address_told_is_where_somebody_lives(sent: str, uses: tuple[tuple[str, str], ...], city: str) -> None:
    adt = from_adt(f"{PID}|||{sent}").address
    fhir = from_fhir(address=[fhir_address(*each) for each in uses]).address
    assert adt == fhir
    assert (adt.city if adt else "") == city


@pytest.mark.parametrize("type_", ["N", "BDL", "BR", "F"])
def test_where_somebody_was_born_is_no_address(type_: str) -> None:
    address = from_adt(f"{PID}|||^^NAPOLI^^^ITA^{type_}~^^UTICA^^^^H").address
    assert address
    assert address.city == "UTICA"
    assert from_adt(f"{PID}|||^^NAPOLI^^^ITA^{type_}").address is UNSET


def test_a_former_telephone_number_is_not_told() -> None:
    numbers: list[Bundle] = [{"system": "phone", "value": "111", "use": "old"}, {"system": "phone", "value": "222"}]
    assert from_fhir(telecom=numbers).phones == ("222",)


def number(kind: str, system: str, value: str, use: str) -> Bundle:
    return {"type": coded(V2_0203, kind), "system": system, "value": value, "use": use}


@pytest.mark.parametrize(
    ("numbers", "value"),
    [
        ((("MR", "OLD1", "old"), ("MR", "0012345", "usual")), "0012345"),
        ((("MR", "OLD1", "old"), ("PI", "0012345", "usual")), "0012345"),
        ((("MR", "OLD1", "old"),), "OLD1"),
    ],
)
def test_a_number_that_no_longer_counts_is_no_key(numbers: tuple[tuple[str, str, str], ...], value: str) -> None:
    sent = bundle(identifier=[number("VN", VISIT_SYSTEM, "V1", "old"), number("XX", VISIT_SYSTEM, "V500", "official")])
    resource(sent, "Patient")["identifier"] = [number(kind, MRN_SYSTEM, it, use) for kind, it, use in numbers]
    event, _ = normalized(sent)
    assert event.patient
    assert event.patient.value == value
    assert event.visit
    assert event.visit.value == "V500"


def condition(identity: str, code: str, certainty: str) -> Bundle:
    return {
        "fullUrl": f"urn:uuid:{identity}",
        "resource": {
            "resourceType": "Condition",
            "id": identity,
            "verificationStatus": coded("http://terminology.hl7.org/CodeSystem/condition-ver-status", certainty),
            "code": coded("http://hl7.org/fhir/sid/icd-10-cm", code),
            "subject": {"reference": "urn:uuid:p"},
            "encounter": {"reference": "urn:uuid:e"},
        },
    }


@pytest.mark.parametrize("certainty", ["entered-in-error", "refuted"])
def test_a_diagnosis_taken_back_is_none(certainty: str) -> None:
    sent = bundle(diagnosis=[{"condition": {"reference": "urn:uuid:hiv"}}])
    sent["entry"].append(condition("hiv", "B20", certainty))
    event, content = normalized(sent)
    assert visit(event).diagnoses == (
        Diagnosis("I50.9", "http://hl7.org/fhir/sid/icd-10-cm", "Heart failure, unspecified"),
    )
    assert certainty in str(content)  # so that it takes the place of what was known
    sent["entry"] = [each for each in sent["entry"] if each["resource"]["id"] != "dx"]
    assert visit(normalized(sent)[0]).diagnoses is None


def test_a_diagnosis_taken_back_ends_what_was_known() -> None:
    before = bundle()
    after = bundle()
    resource(after, "Condition")["verificationStatus"] = condition("", "", "refuted")["resource"]["verificationStatus"]
    known = overlay(visit(normalized(before)[0]), visit(normalized(after)[0]))
    assert known.diagnoses is None
