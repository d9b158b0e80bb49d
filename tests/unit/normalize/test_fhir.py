"""What a Da Vinci notification means: triggers, facts, content; and that it says what the equivalent ADT says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from tests.unit.adapters.fhir.bundles import Bundle, bundle, coded, encoded, resource
from tocengine.errors import ContentError, SetAsideError
from tocengine.formats.fhir.resources import references_in
from tocengine.model.event import Event, Processing
from tocengine.model.facts import (
    CareSetting,
    Destination,
    Diagnosis,
    Disposition,
    EncounterFacts,
    PatientClass,
    PatientFacts,
)
from tocengine.model.identity import Organization, PatientKey, Practitioner, VisitKey
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import IdentifierDomain, SendingFacility, Source, SourceProfile, UnitTraits
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.normalize.normalizer import HL7v2Normalizer

STJ = IdentifierDomain(
    name="STJ",
    aliases=("2.16.840.1.113883.19.5", "urn:oid:2.16.840.1.113883.19.5.1"),
    system="urn:oid:2.16.840.1.113883.19.5",
)
RECEIVED = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden"


def source(**profile: Any) -> Source:
    return Source(
        feed=FeedName("stj"),
        facility=SendingFacility(id=FacilityId("stj"), name="STJ Hospital", npi="1999000023"),
        profile=SourceProfile(**profile),
        domains=dict.fromkeys(("STJ", *STJ.aliases), STJ),
    )


def message(body: bytes, kind: ContentType = ContentType.FHIR) -> Message:
    return Message(
        message_id=MessageId(derive("test", body)),
        feed=FeedName("stj"),
        facility=FacilityId("stj"),
        content_type=kind,
        control_id="b-1",
        received_at=RECEIVED,
        body=body,
    )


def normalized(sent: Bundle, **profile: Any) -> tuple[Event, Bundle]:
    (record,) = FhirNormalizer(source(**profile)).normalize(message(encoded(sent)))
    return record.summary, orjson.loads(bytes(record.fhir))


def visit(event: Event) -> EncounterFacts:
    assert isinstance(event.encounter_facts, EncounterFacts)
    return event.encounter_facts


@pytest.mark.parametrize(
    ("event", "status", "kind", "encounter", "trigger"),
    [
        ("admit", "in-progress", "EMER", {}, "A04"),
        ("admit", "arrived", "EMER", {}, "A04"),
        ("admit", "in-progress", "AMB", {}, "A04"),
        ("admit", "in-progress", "IMP", {}, "A01"),
        ("admit", "in-progress", "ACUTE", {}, "A01"),
        ("admit", "in-progress", "OBSENC", {}, "A01"),
        ("admit", "planned", "IMP", {}, "A05"),
        ("admit", "in-progress", "PRENC", {}, "A05"),
        ("admit", "cancelled", "IMP", {}, "A11"),
        ("admit", "entered-in-error", "EMER", {}, "A11"),
        ("discharge", "finished", "IMP", {}, "A03"),
        ("discharge", "unknown", "IMP", {}, "A03"),
        ("discharge", "in-progress", "IMP", {}, "A13"),
        ("discharge", "in-progress", "IMP", {"period": {"end": "2026-03-01T15:35:00-05:00"}}, "A03"),
        ("discharge", "cancelled", "IMP", {}, "A11"),
        ("transfer", "finished", "IMP", {}, "A03"),
        ("transfer", "in-progress", "IMP", {"hospitalization": {"destination": {"display": "X"}}}, "A03"),
        ("transfer", "in-progress", "IMP", {}, "A06"),
        ("transfer", "in-progress", "OBSENC", {}, "A06"),
        ("transfer", "in-progress", "EMER", {}, "A02"),
        ("transfer", "cancelled", "IMP", {}, "A11"),
    ],
)
def test_the_trigger_follows_from_event_status_and_class(
    event: str, status: str, kind: str, encounter: Bundle, trigger: str
) -> None:
    found, _ = normalized(bundle(event, status, kind, **encounter))
    assert (found.trigger, found.handled) == (trigger, True)


def test_another_notification_is_kept_and_marked_not_handled() -> None:
    found, content = normalized(bundle("death"))
    assert (found.trigger, found.handled) == ("notification-death", False)
    assert content["entry"]


def test_a_discharge_says_what_a_notice_needs() -> None:
    found, _ = normalized(bundle())
    facts = visit(found)
    assert found.patient == PatientKey("STJ", "0012345")
    assert found.visit == VisitKey("STJ", "V500")
    assert found.recorded.text == "2026-03-01T15:41:00-05:00"
    assert found.message_day == "2026-03-01"
    assert found.effective is not None
    assert found.effective.text == "2026-03-01T15:35:00-05:00"
    assert facts.patient_class is PatientClass.INPATIENT
    assert facts.treating == Practitioner("ROE", ("ANN",), npi="1999000031")
    assert facts.disposition == Disposition("03", "03", CareSetting.SNF)
    assert facts.destination == Destination("SUNNYSIDE REHAB")
    assert facts.diagnoses == (Diagnosis("I50.9", "http://hl7.org/fhir/sid/icd-10-cm", "Heart failure, unspecified"),)
    assert isinstance(found.patient_facts, PatientFacts)
    assert found.patient_facts.pcp == (Practitioner("PATEL", ("RAVI",), npi="1234567893"),)
    assert found.patient_facts.pcp_practices == (Organization("UTICA FAMILY MED", "1999000049"),)
    assert found.flags == ()


def test_what_is_not_said_is_not_stated() -> None:
    found, _ = normalized(bundle("admit", "in-progress", location=None, participant=None, period=None))
    assert set(msgspec.to_builtins(found.encounter_facts)) == {"patient_class", "class_code", "diagnoses"}
    assert found.effective is None


@pytest.mark.parametrize(
    ("concept", "code", "setting", "flagged"),
    [
        (coded("http://terminology.hl7.org/CodeSystem/nubc-UB92", "1"), "01", CareSetting.HOME, False),
        (coded("https://www.nubc.org/CodeSystem/PatDischargeStatus", "003"), "03", CareSetting.SNF, False),
        (coded("urn:local", "HHS"), "06", CareSetting.HOME_HEALTH, False),
        (coded("http://terminology.hl7.org/CodeSystem/discharge-disposition", "snf"), "03", CareSetting.SNF, False),
        (coded("http://terminology.hl7.org/CodeSystem/discharge-disposition", "oth"), None, CareSetting.UNKNOWN, True),
        (coded("urn:local", "ELSE"), None, CareSetting.UNKNOWN, True),
        ({"text": "went home"}, None, CareSetting.UNKNOWN, True),
    ],
)
def test_dispositions_are_mapped_and_never_guessed(
    concept: Bundle, code: str | None, setting: CareSetting, flagged: bool
) -> None:
    sent = bundle(hospitalization={"dischargeDisposition": concept})
    found, _ = normalized(sent, disposition_map={"HHS": "06"})
    disposition = visit(found).disposition
    assert isinstance(disposition, Disposition)
    assert (disposition.code, disposition.care_setting) == (code, setting)
    assert ("unmapped:Encounter.hospitalization.dischargeDisposition" in found.flags) is flagged


def test_a_destination_is_known_by_its_numbers() -> None:
    sent = bundle()
    destination = next(e["resource"] for e in sent["entry"] if e["resource"]["id"] == "dest")
    destination["identifier"] = [
        {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1999000015"},
        {"system": "urn:oid:2.16.840.1.113883.4.336", "value": "335123"},
    ]
    assert visit(normalized(sent)[0]).destination == Destination("SUNNYSIDE REHAB", "1999000015", "335123")
    destination["identifier"][0]["value"] = "1999000016"  # the check digit does not hold
    assert visit(normalized(sent)[0]).destination == Destination("SUNNYSIDE REHAB", None, "335123")


def test_a_local_class_is_mapped_per_feed_and_an_unknown_one_is_unknown() -> None:
    sent = bundle("admit", "in-progress")
    resource(sent, "Encounter")["class"] = {"system": "urn:local", "code": "INO"}
    found, _ = normalized(sent)
    assert (visit(found).patient_class, found.flags) == (PatientClass.UNKNOWN, ("unmapped:Encounter.class",))
    found, _ = normalized(sent, class_map={"INO": PatientClass.OBSERVATION})
    assert (visit(found).patient_class, found.trigger) == (PatientClass.OBSERVATION, "A01")


def test_an_end_that_is_no_discharge_is_a_plan() -> None:
    period = {"start": "2026-02-26T10:15:00-05:00", "end": "2026-03-01T15:35:00-05:00"}
    found, _ = normalized(bundle("admit", "in-progress", "EMER", period=period))
    assert visit(found).discharged is msgspec.UNSET
    assert visit(found).expected_discharge
    assert found.flags == ("end_without_discharge",)


def test_a_destination_by_the_name_the_sender_uses() -> None:
    aliases = {"Sunnyside  Rehab": "1999000015"}
    found = visit(normalized(bundle(), destination_aliases=aliases)[0]).destination
    assert found == Destination("SUNNYSIDE REHAB", "1999000015", None)
    found = visit(normalized(bundle(), destination_aliases={"SUNNYSIDE REHAB": "335123"})[0]).destination
    assert found == Destination("SUNNYSIDE REHAB", None, "335123")
    sent = bundle()  # what the message itself states is not overruled
    destination = next(e["resource"] for e in sent["entry"] if e["resource"]["id"] == "dest")
    destination["identifier"] = [{"system": "urn:oid:2.16.840.1.113883.4.336", "value": "335123"}]
    found = visit(normalized(sent, destination_aliases=aliases)[0]).destination
    assert found == Destination("SUNNYSIDE REHAB", None, "335123")


def test_what_took_effect_before_go_live_is_loaded_silently() -> None:
    before, after = "2026-03-01T15:36:00-05:00", "2026-03-01T15:34:00-05:00"  # the discharge is at 15:35
    assert normalized(bundle(), go_live_at=before)[0].processing is Processing.INITIAL_LOAD
    assert normalized(bundle(), go_live_at=after)[0].processing is Processing.PRODUCTION
    found, _ = normalized(bundle(), go_live_at=before, test_patient_patterns=("O'NEIL",))
    assert found.processing is Processing.TEST


def test_what_is_equivalent_to_a_trigger_that_is_not_enabled_is_stored() -> None:
    assert normalized(bundle(), enabled_events=("A03",))[0].handled
    assert not normalized(bundle("admit", "in-progress"), enabled_events=("A03",))[0].handled


@pytest.mark.parametrize(
    ("order", "who"),
    [
        (("ROL", "PV1-7", "PV1-17", "PV1-9"), "PPRF"),
        (("PV1-17", "PV1-7"), "ADM"),
        (("PV1-9", "PV1-17"), "CON"),
        (("PV1-8",), ""),
    ],
)
def test_the_treating_practitioner_is_looked_for_in_the_order_of_the_feed(order: tuple[str, ...], who: str) -> None:
    system = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
    listed = [
        {"type": [{"coding": [{"system": system, "code": code}]}], "individual": {"reference": "urn:uuid:dr"}}
        for code in ("CON", "ADM", "PPRF")
    ]
    facts = visit(normalized(bundle(participant=listed), treating_order=order)[0])
    assert facts.treating_source == (f"Encounter.participant:{who}" if who else msgspec.UNSET)


def test_the_only_participant_without_a_type_is_the_treating_one() -> None:
    found, _ = normalized(bundle(participant=[{"individual": {"reference": "urn:uuid:dr"}}]))
    assert visit(found).treating == Practitioner("ROE", ("ANN",), npi="1999000031")
    assert visit(found).treating_source == "Encounter.participant"


def test_a_placeholder_is_nobody() -> None:
    sent = bundle()
    resource(sent, "Practitioner")["identifier"][0]["value"] = "9999999999"
    found, _ = normalized(sent)
    assert visit(found).treating is msgspec.UNSET
    assert "placeholder_practitioner" in found.flags


@pytest.mark.parametrize("place", ["location", "earlier", "ward", "label"])
def test_what_a_place_is_counts_for_the_stay(place: str) -> None:
    sent = bundle()
    location = resource(sent, "Location")
    detox: Bundle = {"resourceType": "Location", "id": "detox", "name": "DETOX-2"}
    sent["entry"].append({"fullUrl": "urn:uuid:detox", "resource": detox})
    encounter = resource(sent, "Encounter")
    if place == "location":
        location["name"] = "DETOX-2"
    elif place == "earlier":
        encounter["location"].insert(0, {"location": {"reference": "urn:uuid:detox"}, "status": "completed"})
    elif place == "ward":
        location["partOf"] = {"reference": "urn:uuid:detox"}
        detox["partOf"] = {"reference": "urn:uuid:loc"}  # a circle
    else:
        resource(sent, "Condition")["meta"] = {
            "security": [
                {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": code}
                for code in ("42CFRPart2", "SUD")
            ]
        }
    found, _ = normalized(sent, location_map={"DETOX-2": UnitTraits(part2=True, sensitivity=("SUD",))})
    where = visit(found).location
    assert where
    assert (where.part2, where.sensitivity) == (True, ("SUD",))


@pytest.mark.parametrize("change", ["label", "name"])
def test_test_traffic_is_known_as_such(change: str) -> None:
    sent = bundle()
    if change == "label":
        label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
        resource(sent, "MessageHeader")["meta"] = {"security": [label]}
    else:
        resource(sent, "Patient")["name"][0]["family"] = "ZZTESTING"
    assert normalized(sent)[0].processing is Processing.TEST


def test_a_future_recording_counts_as_received() -> None:
    sent = bundle() | {"timestamp": "2026-03-03T15:41:00-05:00"}
    found, _ = normalized(sent)
    assert found.recorded.at == RECEIVED
    assert found.flags == ("recorded_in_future",)


@pytest.mark.parametrize(
    ("kind", "reason"), [("Patient", "patient_identifier_missing"), ("Encounter", "visit_identifier_missing")]
)
def test_without_an_identifier_it_is_refused_with_its_place(kind: str, reason: str) -> None:
    sent = bundle()
    resource(sent, kind)["identifier"] = [{"value": "0012345"}]
    with pytest.raises(ContentError) as refusal:
        normalized(sent)
    assert refusal.value.problem.reason == reason
    assert refusal.value.problem.location.endswith(".identifier")


def test_the_content_is_what_was_received_under_stable_ids() -> None:
    event, content = normalized(bundle())
    assert event.patient is not None
    assert event.visit is not None
    kinds = [entry["resource"]["resourceType"] for entry in content["entry"]]
    assert (content["type"], "MessageHeader" in kinds, kinds.count("Location")) == ("collection", False, 2)
    urls = {entry["fullUrl"] for entry in content["entry"]}
    assert {f"urn:uuid:{event.patient.patient_id}", f"urn:uuid:{event.visit.encounter_id}"} < urls
    assert all(entry["fullUrl"] == f"urn:uuid:{entry['resource']['id']}" for entry in content["entry"])
    assert set(references_in(content)) <= urls
    text = orjson.dumps(content)
    assert b"4321" not in text  # the social security number
    assert b"<div" not in text  # nobody redacts narrative


def test_the_same_things_have_the_same_ids_in_another_message() -> None:
    first = normalized(bundle("admit", "in-progress"))[1]
    renamed = encoded(bundle())
    for name in (b"p", b"e", b"dr", b"pcp", b"practice"):
        renamed = renamed.replace(b'"urn:uuid:%s"' % name, b'"urn:uuid:other-%s"' % name)
    second = normalized(orjson.loads(renamed))[1]
    shared = {e["fullUrl"] for e in first["entry"]} & {e["fullUrl"] for e in second["entry"]}
    assert len(shared) == 8


def test_a_reference_that_leads_nowhere_keeps_its_words() -> None:
    sent = bundle(
        serviceProvider={"reference": "Organization/77", "display": "STJ"}, partOf={"reference": "urn:uuid:x"}
    )
    _, content = normalized(sent)
    encounter = next(e["resource"] for e in content["entry"] if e["resource"]["resourceType"] == "Encounter")
    assert encounter["serviceProvider"] == {"display": "STJ"}
    assert "reference" not in encounter["partOf"]


def test_two_things_of_one_name_stay_two() -> None:
    sent = bundle()
    for number in (1, 2):
        beneficiary = {"reference": "urn:uuid:p"}
        coverage: Bundle = {"resourceType": "Coverage", "id": f"c{number}", "status": "active", "order": number}
        coverage |= {"beneficiary": beneficiary, "payor": [{"display": "EVERGREEN HEALTH"}]}
        sent["entry"].append({"fullUrl": f"urn:uuid:c{number}", "resource": coverage})
    _, content = normalized(sent)
    urls = [e["fullUrl"] for e in content["entry"] if e["resource"]["resourceType"] == "Coverage"]
    assert len(set(urls)) == 2


ADT = (
    r"MSH|^~\&|EPICADT|STJ|TOCENGINE|HIE|20260301154100-0500||ADT^A03^ADT_A03|b-1|P|2.5.1"
    "\r"
    "EVN||20260301154100-0500\r"
    "PID|1||0012345^^^STJ^MR||O'NEIL^MARY^J^^^^L||19400102|F\r"
    "PD1|||UTICA FAMILY MED^^^^^NPI^^^^1999000049|1234567893^PATEL^RAVI^^^^^^NPI\r"
    "PV1|1|I|3N^^^||||1999000031^ROE^ANN^^^^^^NPI||||||||||||V500^^^STJ^VN|||||||||||||||||03|SUNNYSIDE REHAB"
    "|||||||20260226101500-0500|20260301153500-0500\r"
    "DG1|1||I50.9^Heart failure, unspecified^I10\r"
)


def test_the_equivalent_adt_gives_the_same_summary() -> None:
    """Facts, keys and times; not what names the format: class code as sent, where the treating one was found."""
    fhir, _ = normalized(bundle())
    (record,) = HL7v2Normalizer(source()).normalize(message(ADT.encode(), ContentType.HL7V2))
    assert comparable(fhir) == comparable(record.summary)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not beside this checkout")
def test_the_golden_notice_read_back_says_what_the_golden_message_says() -> None:
    (sent,) = HL7v2Normalizer(source()).normalize(message((GOLDEN / "a03.hl7").read_bytes(), ContentType.HL7V2))
    (read,) = FhirNormalizer(source()).normalize(message((GOLDEN / "a03.notice.json").read_bytes()))
    before, after = comparable(sent.summary), comparable(read.summary)
    for name in ("patient", "visit", "trigger", "effective", "processing"):
        assert after.get(name) == before.get(name), name
    for name in ("identifiers", "names", "birth_date", "sex", "address", "pcp", "pcp_practices"):
        assert after["patient_facts"].get(name) == before["patient_facts"].get(name), name
    for name in ("patient_class", "treating", "admit_source", "disposition", "admitted", "discharged", "diagnoses"):
        assert after["encounter_facts"].get(name) == before["encounter_facts"].get(name), name


def comparable(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(event)
    for name in ("message_id", "content_type"):
        found.pop(name)
    for name in ("class_code", "treating_source"):
        found["encounter_facts"].pop(name)
    return found


def test_what_was_made_of_a_bundle_is_looked_at_before_it_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    made = orjson.dumps(
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Encounter", "status": "gone"}}]}
    )
    monkeypatch.setattr("tocengine.normalize.fhir.collection_of", lambda *_: made)
    with pytest.raises(SetAsideError) as error:
        normalized(bundle())
    assert error.value.problem.reason == "bundle_invalid"
