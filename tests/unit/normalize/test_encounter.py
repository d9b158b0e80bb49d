"""PV1 and PV2: keys, class, place, people, disposition, destination, times."""

import orjson
import pytest
from msgspec import UNSET

from tests.fixtures.adt import (
    EVN,
    PID,
    SHARED,
    adt,
    encounter_facts,
    event,
    movement,
    normalized,
    pv1,
    received,
    resources,
    source,
)
from tocengine.errors import ConfigurationError, ContentError
from tocengine.formats.hl7v2.parser import parse
from tocengine.model.facts import CareSetting, Disposition, PatientClass, known
from tocengine.model.identity import VisitKey
from tocengine.model.profile import SourceProfile, UnitTraits
from tocengine.normalize.normalizer import HL7v2Normalizer


def _encounter(body: bytes, profile: SourceProfile | None = None) -> dict[str, object]:
    entries = orjson.loads(bytes(normalized(body, profile).fhir))["entry"]
    found: dict[str, object] = next(
        each["resource"] for each in entries if each["resource"]["resourceType"] == "Encounter"
    )
    return found


@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="the golden files lie beside the repository")
def test_the_golden_message_has_its_fields_where_they_belong() -> None:
    visit = parse((SHARED / "golden" / "a03.hl7").read_bytes()).segment("PV1")
    assert (visit[36].text, visit[37].component(1)) == ("03", "SUNNYSIDE REHAB")
    assert (visit[44].text[:8], visit[45].text[:8]) == ("20260226", "20260301")


def test_the_visit_number_is_trimmed_and_its_authority_resolved() -> None:
    assert event(movement("A01", {19: " V500^^^STJ^VN"})).visit == VisitKey("STJ", "V500")
    assert event(movement("A01", {19: "00500"})).visit == VisitKey("STJ", "00500")
    assert event(movement("A01", {19: "V5^^^&2.16.840.1.113883.19.5&ISO"})).visit == VisitKey("STJ", "V5")


@pytest.mark.parametrize("sent", ["", '""', " ", "^^^STJ"])
def test_a_movement_without_a_visit_is_refused(sent: str) -> None:
    with pytest.raises(ContentError) as refused:
        event(movement("A03", {19: sent}))
    problem = refused.value.problem
    assert (problem.reason, problem.location, problem.code) == ("visit_key_missing", "PV1^1^19", "101")


def test_the_feed_says_which_field_is_the_visit() -> None:
    body = movement("A01", {50: "ALT1"}, pid=PID + "||||||||||HAR77^^^STJ")
    assert event(body, SourceProfile(visit_key="PV1-50")).visit == VisitKey("STJ", "ALT1")
    assert event(body, SourceProfile(visit_key="PID-18")).visit == VisitKey("STJ", "HAR77")
    with pytest.raises(ConfigurationError):
        event(body, SourceProfile(visit_key="PV1-5"))


@pytest.mark.parametrize(
    ("sent", "kind", "expected", "code"),
    [
        ("I", "", PatientClass.INPATIENT, "IMP"),
        ("E", "", PatientClass.EMERGENCY, "EMER"),
        ("O", "", PatientClass.OUTPATIENT, "AMB"),
        ("P", "", PatientClass.PREADMIT, "PRENC"),
        ("R", "", PatientClass.RECURRING, "R"),
        ("INO", "", PatientClass.INPATIENT, "IMP"),
        ("O", "OBS", PatientClass.OBSERVATION, "OBSENC"),  # PV1-18 wins where the feed maps it
        ("O", "XYZ", PatientClass.OUTPATIENT, "AMB"),
        ("HOV", "", PatientClass.UNKNOWN, "HOV"),
        ("U", "", PatientClass.UNKNOWN, "U"),
    ],
)
def test_class(sent: str, kind: str, expected: PatientClass, code: str) -> None:
    profile = SourceProfile(
        class_map={"INO": PatientClass.INPATIENT}, patient_type_map={"OBS": PatientClass.OBSERVATION}
    )
    body = movement("A01", {2: sent, 18: kind})
    assert encounter_facts(body, profile).patient_class is expected
    assert _encounter(body, profile)["class"]["code"] == code  # type: ignore[index]
    assert ("unmapped:PV1-2" in event(body, profile).flags) is (sent == "HOV")


def test_no_class_says_nothing() -> None:
    assert encounter_facts(movement("A08", {2: ""})).patient_class is UNSET


def test_the_unit_has_the_traits_of_the_profile() -> None:
    profile = SourceProfile(
        location_map={"DETOX-2": UnitTraits(part2=True, sensitivity=("SUD",), level_of_care="rehab")}
    )
    place = known(encounter_facts(movement("A02", {3: "DETOX-2^4^A^STJ"}), profile).location)
    assert place is not None
    assert (place.unit, place.room, place.bed, place.facility) == ("DETOX-2", "4", "A", "STJ")
    assert (place.part2, place.sensitivity, place.level_of_care) == (True, ("SUD",), "rehab")
    plain = known(encounter_facts(movement("A02", {3: "4W^1^B"})).location)
    assert plain is not None
    assert not plain.part2


@pytest.mark.parametrize(
    ("fields", "family", "found_in"),
    [
        ({7: "1999000031^ROE^ANN^^^^^^NPI", 17: "1234567893^PATEL^RAVI^^^^^^NPI"}, "ROE", "PV1-7"),
        ({7: "", 17: "1999000031^ROE^ANN^^^^^^NPI"}, "ROE", "PV1-17"),
        ({7: "", 9: "55^BLACK^JO"}, "BLACK", "PV1-9"),
        ({7: "9999999999^UNKNOWN^PROVIDER^^^^^^NPI", 17: "1999000031^ROE^ANN^^^^^^NPI"}, "ROE", "PV1-17"),
        ({7: "~1999000031^ROE^ANN^^^^^^NPI"}, "ROE", "PV1-7"),
    ],
)
def test_who_treats(fields: dict[int, str], family: str, found_in: str) -> None:
    facts = encounter_facts(movement("A01", fields))
    person = known(facts.treating)
    assert person is not None
    assert (person.family, facts.treating_source) == (family, found_in)


def test_rol_at_comes_first() -> None:
    facts = encounter_facts(movement("A01", None, "ROL|1|AD|AT|1234567893^PATEL^RAVI^^^^^^NPI"))
    person = known(facts.treating)
    assert person is not None
    assert (person.npi, facts.treating_source) == ("1234567893", "ROL")


def test_a_placeholder_is_no_practitioner_and_gets_no_id() -> None:
    body = movement("A01", {7: "9999999999^UNKNOWN^PROVIDER^^^^^^NPI"})
    assert encounter_facts(body).treating is UNSET
    assert "placeholder:PV1-7" in event(body).flags
    assert b"Practitioner" not in bytes(normalized(body).fhir)


def test_a_wrong_check_digit_is_no_npi_but_the_person_stays() -> None:
    body = movement("A01", {7: "1999000032^ROE^ANN^^^^^^NPI"})
    person = known(encounter_facts(body).treating)
    assert person is not None
    assert (person.family, person.npi, person.local) == ("ROE", None, None)
    assert "invalid_npi:PV1-7" in event(body).flags
    assert b"1999000032" not in bytes(normalized(body).fhir)


def test_null_practitioner_is_cleared() -> None:
    body = movement("A08", {7: '""'})
    assert encounter_facts(body).treating is None
    assert "Encounter.participant:ATND" in event(body).cleared


_TABLE = {
    "HOME": "01 81",
    "ACUTE_HOSPITAL": "02 82",
    "SNF": "03 83",
    "ICF_ALF": "04 84",
    "SPECIALTY_HOSPITAL": "05 85",
    "HOME_HEALTH": "06 86",
    "AMA": "07",
    "ADMITTED_SAME": "09",
    "EXPIRED": "20 40 41 42",
    "LAW_ENFORCEMENT": "21 87",
    "STILL_PATIENT": "30",
    "FEDERAL": "43 88",
    "HOSPICE_HOME": "50",
    "HOSPICE_FACILITY": "51",
    "SWING_BED": "61 89",
    "IRF": "62 90",
    "LTACH": "63 91",
    "NURSING_FACILITY": "64 92",
    "PSYCH": "65 93",
    "CAH": "66 94",
    "DISASTER_SITE": "69",
    "OTHER_FACILITY": "70 95",
}
_PLANNED = {str(code) for code in range(81, 96)}


@pytest.mark.parametrize(
    ("setting", "code"), [(name, code) for name, codes in _TABLE.items() for code in codes.split()]
)
def test_every_nubc_disposition(setting: str, code: str) -> None:
    body = movement("A03", {36: code})
    assert encounter_facts(body).disposition == Disposition(code, code, CareSetting(setting), code in _PLANNED)
    assert not [flag for flag in event(body).flags if flag.endswith("PV1-36")]


@pytest.mark.parametrize("sent", ["3", "03", "003"])
def test_a_number_has_two_digits(sent: str) -> None:
    found = known(encounter_facts(movement("A03", {36: sent})).disposition)
    assert found is not None
    assert (found.code, found.care_setting) == ("03", CareSetting.SNF)
    hospitalization = _encounter(movement("A03", {36: sent}))["hospitalization"]
    assert hospitalization == {
        "dischargeDisposition": {
            "coding": [
                {"system": "https://www.nubc.org/CodeSystem/PatDischargeStatus", "code": "03"},
                {"system": "http://terminology.hl7.org/CodeSystem/discharge-disposition", "code": "snf"},
            ]
        }
    }


def test_a_local_code_is_mapped_by_its_own_feed_alone() -> None:
    body = movement("A03", {36: "HHS"})
    mapped = known(encounter_facts(body, SourceProfile(disposition_map={"HHS": "06"})).disposition)
    assert mapped == Disposition("HHS", "06", CareSetting.HOME_HEALTH)
    assert encounter_facts(body).disposition == Disposition("HHS")
    assert "unmapped:PV1-36" in event(body).flags


def test_digits_are_not_nubc_where_the_feed_does_not_say_so() -> None:
    body = movement("A03", {36: "03"})
    profile = SourceProfile(nubc_dispositions=False)
    assert encounter_facts(body, profile).disposition == Disposition("03")
    assert "unmapped:PV1-36" in event(body, profile).flags


@pytest.mark.parametrize("code", ["08", "71", "72"])
def test_retired_codes_are_kept_and_flagged(code: str) -> None:
    found = known(encounter_facts(movement("A03", {36: code})).disposition)
    assert found == Disposition(code, code, CareSetting.UNKNOWN)
    assert "retired:PV1-36" in event(movement("A03", {36: code})).flags


def test_still_a_patient_is_flagged() -> None:
    assert "still_patient" in event(movement("A03", {36: "30"})).flags


@pytest.mark.parametrize(
    ("sent", "text", "npi", "ccn", "date"),
    [
        ("SUNNYSIDE REHAB^20260301", "SUNNYSIDE REHAB", None, None, "2026-03-01"),
        ("1999000015", "1999000015", "1999000015", None, None),
        ("335123", "335123", None, "335123", None),
        ("A & B CLINIC", "A & B CLINIC", None, None, None),  # an ampersand does not cut it off
        ("SMITH \\T\\ SON", "SMITH & SON", None, None, None),
    ],
)
def test_destination(sent: str, text: str, npi: str | None, ccn: str | None, date: str | None) -> None:
    found = known(encounter_facts(movement("A03", {37: sent})).destination)
    assert found is not None
    assert (found.text, found.npi, found.ccn, found.date) == (text, npi, ccn, date)


def test_null_disposition_and_destination_are_deleted_and_empty_ones_kept() -> None:
    null = movement("A08", {36: '""', 37: '""', 45: '""'})
    facts = encounter_facts(null)
    assert (facts.disposition, facts.destination, facts.discharged) == (None, None, None)
    assert set(event(null).cleared) == {
        "Encounter.hospitalization.dischargeDisposition",
        "Encounter.hospitalization.destination",
        "Encounter.period.end",
    }
    empty = encounter_facts(movement("A08"))
    assert (empty.disposition, empty.destination, empty.discharged) == (UNSET, UNSET, UNSET)


def test_a_date_stays_a_date() -> None:
    discharged = known(encounter_facts(movement("A03", {45: "20260301"})).discharged)
    assert discharged is not None
    assert discharged.text == "2026-03-01"


def test_an_end_is_stated_by_a_discharge_alone() -> None:
    times = {44: "20260226101500-0500", 45: "20260301153500-0500"}
    assert "end" not in _encounter(movement("A08", times))["period"]  # type: ignore[operator]
    assert "end" in _encounter(movement("A03", times))["period"]  # type: ignore[operator]
    backwards = movement("A03", {44: "20260301153500-0500", 45: "20260226101500-0500"})
    assert "discharge_before_admit" in event(backwards).flags
    assert "end" not in _encounter(backwards)["period"]  # type: ignore[operator]


def test_the_account_and_the_alternate_visit_are_facts() -> None:
    facts = encounter_facts(movement("A01", {50: "V100^^^STJ"}, pid=PID + "||||||||||HAR77"))
    assert (facts.account_number, facts.alternate_visit) == ("HAR77", "V100")


def test_reason_and_expected_discharge() -> None:
    facts = encounter_facts(movement("A01", None, "PV2|||^Chest pain||||||20260305"))
    assert facts.reason == "Chest pain"
    expected = known(facts.expected_discharge)
    assert expected is not None
    assert expected.text == "2026-03-05"


@pytest.mark.parametrize(
    ("trigger", "status"),
    [
        ("A01", "in-progress"),
        ("A04", "in-progress"),
        ("A05", "planned"),
        ("A03", "finished"),
        ("A11", "cancelled"),
        ("A13", "in-progress"),
        ("A21", "onleave"),
        ("A08", "unknown"),
    ],
)
def test_status_of_each_trigger(trigger: str, status: str) -> None:
    assert _encounter(movement(trigger))["status"] == status


@pytest.mark.parametrize(
    ("sent", "text"),
    [('SUNNYSIDE&""', "SUNNYSIDE"), ('""&SUNNYSIDE', "SUNNYSIDE"), ("A & B CLINIC", "A & B CLINIC"), ('""&""', None)],
)
def test_a_null_is_no_part_of_where_the_patient_goes(sent: str, text: str | None) -> None:
    body = movement("A03", {37: sent})
    destination = known(encounter_facts(body).destination)
    assert (destination.text if destination else None) == text
    assert b'\\"\\"' not in bytes(normalized(body).fhir)


@pytest.mark.parametrize("code", ["C", "N", "U", "n"])
def test_a_class_that_says_nothing_keeps_the_code_of_hl7(code: str) -> None:
    (visit,) = resources(movement("A04", {2: code}), "Encounter")
    assert visit["class"] == {"system": "http://terminology.hl7.org/CodeSystem/v2-0004", "code": code.upper()}
    (visit,) = resources(movement("A04", {2: "XX"}), "Encounter")
    assert visit["class"] == {"system": "urn:tocengine:feed:stj-adt:PV1-2", "code": "XX"}


def test_a_practitioner_and_a_patient_with_one_number_are_two() -> None:
    body = movement("A01", {7: "123^ROE^ANN"}, "PD1|||CLINIC^^123", pid="PID|1||123^^^STJ^MR||VOSS^HELENA")
    found = [
        (number["system"], number["value"])
        for kind in ("Patient", "Practitioner", "Organization")
        for each in resources(body, kind)
        for number in each["identifier"]
        if number["value"] == "123"
    ]
    assert len(found) == len(set(found)) == 3


def test_a_patient_told_twice_is_one() -> None:
    for lines in ((PID, pv1(), PID), (PID, PID, pv1())):
        told = event(adt("A01", EVN, *lines))
        assert (told.part, told.visit) == (0, VisitKey("STJ", "V900"))
    two = adt("A17", EVN, PID, PID, pv1(), PID.replace("00777", "00778"), pv1({19: "V901"}))
    assert len(HL7v2Normalizer(source()).normalize(received(two))) == 2


def test_two_dispositions_are_flagged_and_the_first_is_taken() -> None:
    told = event(movement("A03", {36: "03~01"}))
    assert "repeated:PV1-36" in told.flags
    assert "repeated:PV1-36" not in event(movement("A03", {36: "03~03"})).flags
    disposition = known(encounter_facts(movement("A03", {36: "03~01"})).disposition)
    assert disposition is not None
    assert disposition.code == "03"
