"""What a notice shows at each level and status."""

import msgspec
import orjson
import pytest
from msgspec import UNSET

from tests.fixtures.adt import movement, normalized, segment
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tests.unit.adapters.fhir.bundles import Bundle, bundle, encoded
from tests.unit.normalize.test_fhir import message, source
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.resources import Resource
from tocengine.model.directory import Level
from tocengine.model.encounter import EncounterState, TransitionKind, TransitionStatus
from tocengine.model.facts import EncounterFacts, Mark, MarkEffect
from tocengine.model.ids import NoticeId, derive
from tocengine.model.notice import Basis
from tocengine.normalize.fhir import FhirNormalizer

RECORD = normalized(
    movement(
        "A03",
        {10: "MED", 14: "5", 36: "03", 37: "MEADOW HOUSE", 44: "20260226101500-0500", 45: "20260301153500-0500"},
        "DG1|1||I50.9^Heart failure^I10|||F",
        "AL1|1|DA|PCN^Penicillin^L|SV",
        "IN1|1|MCR|0001|EVERGREEN HEALTH",
    )
)


def _rendered(state: EncounterState = EncounterState.DISCHARGED, **changed: object) -> dict[str, Resource]:
    told = notice(RECORD.summary, **changed)
    bundle = orjson.loads(
        render_notification(told, snapshot(RECORD.summary, state), bytes(RECORD.fhir), SUNNYSIDE, URL, ENGINE)
    )
    shown: dict[str, Resource] = {}
    for each in bundle["entry"]:  # of two places the first is the destination
        shown.setdefault(each["resource"]["resourceType"], each["resource"])
    shown["everything"] = bundle
    return shown


def test_the_least_level_shows_three_names_the_event_and_its_time() -> None:
    shown = _rendered(level=Level.COP_MIN)
    assert set(shown) - {"everything"} == {
        "MessageHeader",
        "Encounter",
        "Patient",
        "Organization",
        "Practitioner",
        "Provenance",
    }
    assert set(shown["Patient"]) == {"resourceType", "id", "meta", "identifier", "name"}
    assert shown["Encounter"]["period"] == {"end": "2026-03-01T15:35:00-05:00"}
    text = str(shown)
    for hidden in ("1951-03-04", "00777", "4W", "MEADOW", "I50", "snf", "EVERGREEN", "V900", "Penicillin"):
        assert hidden not in text


def test_the_standard_level_shows_no_diagnosis() -> None:
    shown = _rendered(level=Level.STANDARD)
    assert not {"Condition", "AllergyIntolerance"} & set(shown)
    assert "EVERGREEN HEALTH" in str(shown)
    assert {"birthDate", "gender", "identifier"} <= set(shown["Patient"])
    assert {"dischargeDisposition", "destination"} == set(shown["Encounter"]["hospitalization"])  # type: ignore[arg-type]
    assert "serviceType" not in shown["Encounter"]


@pytest.mark.parametrize("certainty", ["entered-in-error", "refuted"])
def test_what_was_taken_back_is_in_no_notice(certainty: str) -> None:
    sent = bundle(diagnosis=[{"condition": {"reference": f"urn:uuid:{name}"}} for name in ("dx", "hiv")])
    for kind, text in (("Condition", "HIV disease"), ("AllergyIntolerance", "SULFA")):
        taken_back: Bundle = {"resourceType": kind, "id": "hiv" if kind == "Condition" else "a", "code": {"text": text}}
        taken_back["verificationStatus"] = {"coding": [{"code": certainty}]}
        owner = "subject" if kind == "Condition" else "patient"
        taken_back[owner] = {"reference": "urn:uuid:p"}
        sent["entry"].append({"fullUrl": f"urn:uuid:{taken_back['id']}", "resource": taken_back})
    (record,) = FhirNormalizer(source()).normalize(message(encoded(sent)))
    chart = bytes(record.fhir)
    assert b"HIV" in chart
    told = notice(record.summary, level=Level.FULL)
    body = render_notification(told, snapshot(record.summary), chart, SUNNYSIDE, URL, ENGINE)
    shown = {each["resource"]["resourceType"]: each["resource"] for each in orjson.loads(body)["entry"]}
    assert b"HIV" not in body
    assert b"SULFA" not in body
    assert len(shown["Encounter"]["diagnosis"]) == 1
    assert b"Heart failure" in body


def test_the_name_to_be_told_stands_first() -> None:
    pid = "PID|1||00777^^^STJ^MR||SMITH^HELENA^^^^^M~VOSS^HELENA^T^^^^L||19510304|F"
    record = normalized(movement("A03", pid=pid))
    told = notice(record.summary, level=Level.COP_MIN)
    body = render_notification(told, snapshot(record.summary), bytes(record.fhir), SUNNYSIDE, URL, ENGINE)
    (shown,) = (e["resource"] for e in orjson.loads(body)["entry"] if e["resource"]["resourceType"] == "Patient")
    assert [name["family"] for name in shown["name"]] == ["VOSS", "SMITH"]


def test_how_a_practitioner_is_reached_is_in_no_notice() -> None:
    role = "ROL|1|AD|CP|1234567893^PATEL^RAVI^^^^^^NPI|20260227||||||9 MILL LN^^UTICA^^^^H|^PRN^PH^^1^315^5550142"
    record = normalized(movement("A03", {}, role))
    told = notice(record.summary, level=Level.FULL)
    body = render_notification(told, snapshot(record.summary), bytes(record.fhir), SUNNYSIDE, URL, ENGINE)
    assert b"PATEL" in body
    assert b"MILL LN" in bytes(record.fhir)
    assert not any(kept in body for kept in (b"MILL LN", b"5550142", b"PractitionerRole"))


def test_a_recipient_who_is_not_the_destination_sees_it_in_the_senders_words() -> None:
    assert "MEADOW HOUSE" in str(_rendered(basis=(Basis.PANEL,)))
    assert "Sunnyside Rehab" in str(_rendered()["Location"])


def test_a_cancelled_discharge_is_an_open_encounter_that_names_what_it_replaces() -> None:
    earlier = NoticeId(derive("n", "earlier"))
    shown = _rendered(
        EncounterState.INPATIENT,
        kind=TransitionKind.DISCHARGE_CANCELLED,
        status=TransitionStatus.CANCELLED,
        supersedes=earlier,
    )
    encounter = shown["Encounter"]
    assert encounter["status"] == "in-progress"
    assert "end" not in encounter["period"]  # type: ignore[operator]
    assert set(encounter["hospitalization"]) == {"admitSource"}  # type: ignore[arg-type]
    assert shown["MessageHeader"]["eventCoding"]["code"] == "notification-discharge"  # type: ignore[index,call-overload]
    assert str(earlier) in str(shown["MessageHeader"]["extension"])


@pytest.mark.parametrize(
    ("state", "status"), [(EncounterState.CANCELLED, "cancelled"), (EncounterState.ED, "in-progress")]
)
def test_a_cancelled_admission_shows_what_is_left(state: EncounterState, status: str) -> None:
    shown = _rendered(
        state,
        kind=TransitionKind.ADMIT_CANCELLED,
        fact_kind=TransitionKind.INPATIENT_ADMIT,
        status=TransitionStatus.CANCELLED,
    )
    assert shown["Encounter"]["status"] == status


def test_a_retraction_shows_the_least_and_says_error() -> None:
    shown = _rendered(status=TransitionStatus.RETRACTED, level=Level.FULL)
    assert shown["Encounter"]["status"] == "entered-in-error"
    assert "MEADOW" not in str(shown)
    assert "1951" not in str(shown)


def test_the_same_arguments_give_the_same_bytes() -> None:
    arguments = (notice(RECORD.summary), snapshot(RECORD.summary), bytes(RECORD.fhir), SUNNYSIDE, URL, ENGINE)
    assert render_notification(*arguments) == render_notification(*arguments)


@pytest.mark.parametrize(
    ("died", "end"),
    [("2026-02-01T10:00:00-05:00", None), ("2026-02-26", "2026-02-26"), ("2026-02-25", None)],
)
def test_an_end_before_the_stated_start_is_left_out(died: str, end: str | None) -> None:
    known = RECORD.summary.encounter_facts
    assert isinstance(known, EncounterFacts)
    tracked = snapshot(
        RECORD.summary, EncounterState.INPATIENT, encounter=msgspec.structs.replace(known, discharged=UNSET)
    )
    expired = TransitionKind.PATIENT_EXPIRED
    told = notice(RECORD.summary, kind=expired, fact_kind=expired, effective=died)
    bundle = orjson.loads(render_notification(told, tracked, bytes(RECORD.fhir), SUNNYSIDE, URL, ENGINE))
    (visit,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Encounter"]
    assert visit["period"] == {"start": "2026-02-26T10:15:00-05:00", **({"end": end} if end else {})}


@pytest.mark.parametrize(("effect", "labels"), [(MarkEffect.LEAST, ["R"]), (MarkEffect.NOTE, [])])
def test_a_marked_visit_that_is_told_has_a_security_label(effect: MarkEffect, labels: list[str]) -> None:
    known = RECORD.summary.encounter_facts
    assert isinstance(known, EncounterFacts)
    tracked = snapshot(RECORD.summary, encounter=msgspec.structs.replace(known, marks={Mark.VIP: effect}))
    told = notice(RECORD.summary, level=Level.COP_MIN)
    bundle = orjson.loads(render_notification(told, tracked, bytes(RECORD.fhir), SUNNYSIDE, URL, ENGINE))
    (visit,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Encounter"]
    assert [each["code"] for each in visit["meta"].get("security", [])] == labels


@pytest.mark.parametrize(("fields", "claims"), [("49", False), ("17 49", True), ("17", False)])
def test_a_coverage_claims_its_profile_where_it_has_what_that_demands(fields: str, claims: bool) -> None:
    said = {17: "SEL", 49: "M7"}
    line = {1: "1", 2: "MCR", 3: "1", 4: "EVERGREEN", **{int(each): said[int(each)] for each in fields.split()}}
    record = normalized(movement("A03", None, segment("IN1", line)))
    body = render_notification(
        notice(record.summary, level=Level.FULL), snapshot(record.summary), bytes(record.fhir), SUNNYSIDE, URL, ENGINE
    )
    (coverage,) = [each["resource"] for each in orjson.loads(body)["entry"] if "payor" in each["resource"]]
    assert ("meta" in coverage) is claims
