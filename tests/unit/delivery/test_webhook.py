"""What a webhook notice says at each level, whole, and how its secrets are read."""

from uuid import UUID

import orjson
import pytest
from msgspec.structs import replace

from tests.delivery_setting import AT, IDENTITY, SECRET, SECRET_TEXT, make_notice, make_recipient, make_snapshot
from tocengine.delivery.channels.webhook import render_notice, secret_bytes
from tocengine.model.directory import Level
from tocengine.model.encounter import Snapshot, TransitionStatus
from tocengine.model.facts import EncounterFacts, PatientFacts, PersonName
from tocengine.model.notice import Notice

SNAPSHOT = make_snapshot(UUID(int=1), UUID(int=2))
NOTICE = make_notice(SNAPSHOT, notice_id=UUID(int=99))

ENVELOPE = {
    "notice_id": "00000000-0000-0000-0000-000000000063",
    "status": "NEW",
    "kind": "INPATIENT_DISCHARGE",
    "supersedes": None,
    "basis": ["DESTINATION"],
    "late": False,
    "effective_at": "2026-03-01T15:35:00-05:00",
    "recorded_at": "2026-03-01T15:41:00-05:00",
    "received_at": "2026-03-01T20:41:05Z",
    "from": {"facility": "stj", "name": "STJ Hospital", "npi": "1999000023"},
    "to": {"facility": "sunnyside", "name": "Sunnyside Rehab"},
    "source": {
        "feed": "stj-adt",
        "control_id": "9001",
        "message_id": "00000000-0000-0000-0000-000000002329",
    },
}
NAME = {"family": "O'NEIL", "given": ["MARY", "J"]}
TREATING = {"name": "ROE, ANN", "npi": "1999000031"}
PATIENT = {
    "identifiers": [{"domain": "STJ", "value": "0012345"}],
    "name": NAME,
    "birth_date": "1940-01-02",
    "sex": "female",
    "phones": ["+1 315 5550142"],
    "postal_code": None,
    "pcp": [{"name": "PATEL, RAVI", "npi": "1234567893"}],
}
ENCOUNTER = {
    "treating": TREATING,
    "visit_number": "V500",
    "class": "INPATIENT",
    "admitted_at": "2026-02-26T10:15:00-05:00",
    "discharged_at": "2026-03-01T15:35:00-05:00",
    "expected_discharge_at": None,
    "location": {"unit": "3N", "room": "312", "bed": "A"},
    "disposition": "03",
    "care_setting": "SNF",
    "destination": {"name": "SUNNYSIDE REHAB", "npi": None},
}
CLINICAL = {
    "reason": None,
    "diagnoses": [
        {
            "system": "http://hl7.org/fhir/sid/icd-10-cm",
            "code": "I50.9",
            "text": "Heart failure, unspecified",
            "type": "F",
        }
    ],
}


def rendered(notice: Notice, snapshot: Snapshot = SNAPSHOT, chart: bytes = b"{}") -> dict[str, object]:
    document = orjson.loads(render_notice(notice, snapshot, chart, make_recipient(), IDENTITY.facilities))
    assert document["type"] == "notice.inpatient_discharge"
    assert document["timestamp"] == AT.isoformat().replace("+00:00", "Z")
    data: dict[str, object] = document["data"]
    return data


@pytest.mark.parametrize(
    ("level", "content"),
    [
        (
            Level.COP_MIN,
            {"patient": {"name": NAME}, "encounter": {"treating": TREATING}, "not_supplied": [], "flags": []},
        ),
        (
            Level.STANDARD,
            {"patient": PATIENT, "encounter": ENCOUNTER, "not_supplied": [], "flags": ["tz_assumed"]},
        ),
        (
            Level.FULL,
            {
                "patient": PATIENT | {"allergies": []},
                "encounter": ENCOUNTER | CLINICAL | {"documents": []},
                "not_supplied": ["allergies", "documents"],
                "flags": ["tz_assumed"],
            },
        ),
    ],
)
def test_each_level_to_the_field(level: Level, content: dict[str, object]) -> None:
    assert rendered(replace(NOTICE, level=level)) == ENVELOPE | {"level": level} | content


def test_a_retraction_says_nothing_of_patient_or_visit() -> None:
    told = UUID(int=7)
    data = rendered(replace(NOTICE, status=TransitionStatus.RETRACTED, supersedes=told))
    assert data == ENVELOPE | {"status": "RETRACTED", "supersedes": str(told), "level": "FULL"}


def test_allergies_come_from_the_chart_and_only_at_level_full() -> None:
    allergy = {
        "resourceType": "AllergyIntolerance",
        "code": {
            "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "70618"}],
            "text": "Penicillin",
        },
        "criticality": "high",
    }
    other = {"resourceType": "PractitionerRole", "code": [{"text": "not one concept but several"}]}
    chart = orjson.dumps({"entry": [{"resource": other}, {"resource": allergy}]})
    data = rendered(replace(NOTICE, level=Level.FULL), chart=chart)
    assert isinstance(data["patient"], dict)
    assert data["patient"]["allergies"] == [
        {
            "system": "http://www.nlm.nih.gov/research/umls/rxnorm",
            "code": "70618",
            "text": "Penicillin",
            "criticality": "high",
        }
    ]
    assert data["not_supplied"] == ["documents"]
    assert b"Penicillin" not in orjson.dumps(rendered(replace(NOTICE, level=Level.STANDARD), chart=chart))


@pytest.mark.parametrize(
    ("element", "code", "shown"),
    [
        ("verificationStatus", "entered-in-error", False),
        ("verificationStatus", "refuted", False),
        ("verificationStatus", "unconfirmed", True),
        ("clinicalStatus", "inactive", False),
        ("clinicalStatus", "resolved", False),
        ("clinicalStatus", "active", True),
    ],
)
def test_only_current_allergies_are_told(element: str, code: str, shown: bool) -> None:
    allergy = {
        "resourceType": "AllergyIntolerance",
        "code": {"text": "Penicillin"},
        element: {"coding": [{"code": code}]},
    }
    data = rendered(replace(NOTICE, level=Level.FULL), chart=orjson.dumps({"entry": [{"resource": allergy}]}))
    assert (b"Penicillin" in orjson.dumps(data)) is shown
    assert isinstance(data["not_supplied"], list)
    assert ("allergies" in data["not_supplied"]) is not shown


def test_the_present_name_is_told_and_not_the_first() -> None:
    names = (PersonName(family="FORMER", use="old"), PersonName(family="DOE", use="official"))
    data = rendered(NOTICE, replace(SNAPSHOT, patient=replace(SNAPSHOT.patient, names=names)))
    assert isinstance(data["patient"], dict)
    assert data["patient"]["name"]["family"] == "DOE"


def test_what_is_not_known_is_null_and_named() -> None:
    bare = replace(SNAPSHOT, patient=PatientFacts(), encounter=EncounterFacts())
    data = rendered(NOTICE, bare)
    assert data["not_supplied"] == [
        "name",
        "treating",
        "birth_date",
        "sex",
        "discharged_at",
        "disposition",
        "diagnoses",
        "allergies",
        "documents",
    ]
    assert isinstance(data["encounter"], dict)
    assert data["encounter"]["treating"] is None


def test_no_level_carries_a_social_security_number() -> None:
    for level in Level:
        text = render_notice(replace(NOTICE, level=level), SNAPSHOT, b"{}", make_recipient(), {})
        assert b"4321" not in text


def test_secrets() -> None:
    assert secret_bytes(SECRET_TEXT) == SECRET
    assert secret_bytes(SECRET_TEXT.rstrip("=") + "\n") == SECRET
    for wrong in ("", "abc", "whsec_", "whsec_***"):
        with pytest.raises(ValueError, match="secret"):
            secret_bytes(wrong)
