"""PID and PD1: identifiers, names, dates, null and empty."""

from typing import Literal

import msgspec
import pytest
from msgspec import UNSET

from tests.fixtures.adt import adt, event, movement, normalized, patient_facts, received, resources, source
from tocengine.errors import ContentError
from tocengine.formats.fhir.resources import IDENTIFIER_TYPE as TYPES
from tocengine.model.event import UnmappedCode
from tocengine.model.identity import PatientKey
from tocengine.model.profile import SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer


def _pid(**fields: str) -> str:
    numbers = {int(name[1:]): value for name, value in fields.items()}
    numbers.setdefault(3, "00777^^^STJ^MR")
    return "|".join(["PID", *(numbers.get(number, "") for number in range(1, 31))])


@pytest.mark.parametrize(
    ("identifiers", "domain", "value"),
    [
        ("00777^^^STJ^MR", "STJ", "00777"),  # leading zeros are part of it
        (" 00777 ^^^STJ^MR", "STJ", "00777"),
        ("00777^^^STJ&2.16.840.1.113883.19.5&ISO^MR", "STJ", "00777"),
        ("00777^^^&2.16.840.1.113883.19.5&ISO^MR", "STJ", "00777"),  # the OID is an alias
        ("00777", "STJ", "00777"),  # neither authority nor type: the sender's medical record number
        ("123456789^^^USSSA^SS~00777^^^STJ^MR", "STJ", "00777"),
        ("E5^^^HUB^PI~00777^^^STJ^MR", "STJ", "00777"),
        ("E5^^^HUB^PI~A1^^^STJ^AN", "HUB", "E5"),
        ("9^^^OTHER^MR~00777^^^STJ^MR", "OTHER", "9"),
    ],
)
def test_the_key_of_the_patient(identifiers: str, domain: str, value: str) -> None:
    assert event(movement("A01", pid=_pid(f3=identifiers))).patient == PatientKey(domain, value)


def test_an_old_feed_has_the_number_in_pid_2() -> None:
    assert event(movement("A01", pid=_pid(f3="", f2="555^^^STJ"))).patient == PatientKey("STJ", "555")


def test_a_social_security_number_is_kept_nowhere() -> None:
    record = normalized(movement("A01", pid=_pid(f3="00777^^^STJ^MR~987654321^^^^SS", f19="987654321")))
    assert b"987654321" not in bytes(record.fhir)
    assert "987654321" not in str(record.summary)


@pytest.mark.parametrize(
    ("sent", "shown", "open_"),
    [
        ("MR", {"coding": [{"system": TYPES, "code": "MR"}]}, False),
        ("MRN", {"coding": [{"system": TYPES, "code": "MR"}]}, False),
        ("RI", {"coding": [{"system": TYPES, "code": "RI"}]}, False),
        ("CHARTNO", {"text": "CHARTNO"}, True),
    ],
)
def test_an_identifier_type_is_a_code_of_table_0203_or_words(sent: str, shown: dict[str, object], open_: bool) -> None:
    body = movement("A01", pid=_pid(f3=f"00777^^^STJ^{sent}"))
    (patient,) = resources(body, "Patient")
    assert [each["type"] for each in patient["identifier"]] == [shown]
    assert (UnmappedCode("identifier_type", sent) in event(body).unmapped) is open_


def test_a_mapped_identifier_type_is_shown_as_what_it_means() -> None:
    mapped = msgspec.structs.replace(source(), local_codes={"identifier_type": {"CHARTNO": "MR"}})
    message = received(movement("A01", pid=_pid(f3="9^^^STJ^PI~00777^^^STJ^CHARTNO")))
    (record,) = HL7v2Normalizer(mapped).normalize(message)
    assert (record.summary.patient, record.summary.unmapped) == (PatientKey("STJ", "00777"), ())
    assert b"CHARTNO" not in bytes(record.fhir)


@pytest.mark.parametrize(("oid", "is_one"), [("2.16.840.1.113883.19.5", True), ("2.16.0840.1", False), ("2.", False)])
def test_only_a_well_formed_oid_becomes_a_uri_of_one(oid: str, is_one: bool) -> None:
    body = bytes(normalized(movement("A01", pid=_pid(f3=f"00777^^^&{oid}&ISO^MR"))).fhir)
    assert (b"urn:oid:%b" % oid.encode() in body) is is_one


@pytest.mark.parametrize("identifiers", ["", '""', "987654321^^^^SS", "D1^^^NY^DL"])
def test_a_movement_without_a_patient_is_refused(identifiers: str) -> None:
    with pytest.raises(ContentError) as refused:
        event(movement("A01", pid=_pid(f3=identifiers)))
    problem = refused.value.problem
    assert (problem.reason, problem.location, problem.code) == ("patient_id_missing", "PID^1^3", "101")


def test_names_keep_their_order_and_an_alias_has_no_use() -> None:
    facts = patient_facts(movement("A01", pid=_pid(f5="O'NEIL^MARY^J^JR^^MD^L~NEIL^MOLLY^^^^^A~^^^^")))
    assert facts.names is not UNSET
    assert facts.names is not None
    assert [(name.family, name.given, name.suffix, name.use) for name in facts.names] == [
        ("O'NEIL", ("MARY", "J"), "JR MD", "official"),
        ("NEIL", ("MOLLY",), "", None),
    ]


@pytest.mark.parametrize(
    ("sent", "sex"), [("F", "female"), ("m", "male"), ("A", "other"), ("X", "other"), ("U", "unknown")]
)
def test_sex(sent: str, sex: str) -> None:
    assert patient_facts(movement("A01", pid=_pid(f8=sent))).sex == sex


def test_an_unmapped_sex_is_flagged_and_not_guessed() -> None:
    body = movement("A01", pid=_pid(f8="W"))
    assert patient_facts(body).sex is UNSET
    assert "unmapped:PID-8" in event(body).flags


@pytest.mark.parametrize(
    ("sent", "date"),
    [("19400102", "1940-01-02"), ("1940", "1940"), ("194002", "1940-02"), ("19400102233000", "1940-01-02")],
)
def test_birth_dates_keep_their_precision(sent: str, date: str) -> None:
    assert patient_facts(movement("A01", pid=_pid(f7=sent))).birth_date == date


def test_empty_keeps_and_null_deletes() -> None:
    empty = patient_facts(movement("A08", pid=_pid()))
    assert (empty.names, empty.birth_date, empty.sex, empty.phones, empty.address) == (UNSET,) * 5
    body = movement("A08", pid=_pid(f5='""', f7='""', f8='""', f11='""', f13='""', f29='""'))
    null = patient_facts(body)
    assert (null.names, null.birth_date, null.sex, null.phones, null.address, null.deceased) == (None,) * 6
    assert set(event(body).cleared) >= {"Patient.name", "Patient.birthDate", "Patient.telecom", "Patient.address"}
    assert b'\\"\\"' not in bytes(normalized(body).fhir)


@pytest.mark.parametrize(
    ("f29", "f30", "deceased", "at"),
    [
        ("20260301150000-0500", "", True, "2026-03-01T15:00:00-05:00"),
        ("20260301", "N", True, "2026-03-01"),
        ("", "Y", True, None),
        ("", "N", False, None),
    ],
)
def test_death(f29: str, f30: str, deceased: bool, at: str | None) -> None:
    facts = patient_facts(movement("A08", pid=_pid(f29=f29, f30=f30)))
    assert facts.deceased is deceased
    assert (facts.deceased_at.text if facts.deceased_at else None) == at


@pytest.mark.parametrize(
    ("sent", "phone"),
    [
        ("^PRN^PH^^1^315^5550142", "+1 315 5550142"),
        ("(315)555-0142", "(315)555-0142"),
        ("^PRN^PH^^^315^5550142^7", "315 5550142 x7"),
        ("^PRN^PH^^^^^^^^^315-555-0142", "315-555-0142"),
    ],
)
def test_phones(sent: str, phone: str) -> None:
    assert patient_facts(movement("A01", pid=_pid(f13=sent))).phones == (phone,)


def test_an_email_address_is_no_phone() -> None:
    record = normalized(movement("A01", pid=_pid(f13="^NET^Internet^helena@example.org")))
    assert b'{"system":"email","value":"helena@example.org"}' in bytes(record.fhir)
    assert record.summary.patient_facts is not UNSET
    assert record.summary.patient_facts.phones is UNSET


def test_primary_care_from_pd1_and_rol() -> None:
    body = adt(
        "A31",
        "EVN||20260301154100-0500",
        _pid(),
        "PD1|||UTICA FAMILY MED^^^^^NPI^^^^1999000049|1234567893^PATEL^RAVI^^^^MD^^NPI",
        "ROL|1|AD|PP|77^OKORO^GRACE^^^^^^STJ",
    )
    facts = patient_facts(body)
    assert facts.pcp is not UNSET
    assert facts.pcp is not None
    assert [(each.family, each.npi, each.local and each.local.value) for each in facts.pcp] == [
        ("PATEL", "1234567893", None),
        ("OKORO", None, "77"),
    ]
    assert facts.pcp_practices
    assert facts.pcp_practices[0].npi == "1999000049"


def test_nobody_is_not_a_practitioner() -> None:
    body = adt("A31", "EVN||20260301154100-0500", _pid(), "PD1||||NONE^NOPCP")
    assert patient_facts(body).pcp is UNSET
    assert "placeholder:PD1-4" in event(body).flags


def test_person_messages_need_no_visit_and_carry_one_if_they_have_it() -> None:
    alone = adt("A31", "EVN||20260301154100-0500", _pid())
    assert event(alone).visit is None
    assert event(alone).encounter_facts is UNSET
    with_visit = movement("A31", pid=_pid())
    assert event(with_visit).visit is not None
    assert event(with_visit).encounter_facts is not UNSET


@pytest.mark.parametrize("policy", ["delete", "ignore"])
def test_nulls_in_every_repetition_are_no_code(policy: Literal["delete", "ignore"]) -> None:
    told = event(movement("A08", pid=_pid(f5="VOSS^HELENA", f8='""~""')), SourceProfile(null_policy=policy))
    assert told.patient_facts is not UNSET
    assert told.patient_facts.sex is UNSET
    assert (told.flags, told.unmapped) == ((), ())


@pytest.mark.parametrize(
    ("born", "flagged"),
    [("19000101", True), ("1899", True), ("2099", True), ("20260303", True), ("19000102", False), ("20260301", False)],
)
def test_a_date_of_birth_that_nobody_has_is_flagged(born: str, flagged: bool) -> None:
    assert ("implausible:PID-7" in event(movement("A01", pid=_pid(f7=born))).flags) is flagged
