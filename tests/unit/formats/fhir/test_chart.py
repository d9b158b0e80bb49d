"""The chart: what messages said, accumulated."""

import orjson
import pytest

from tests.fixtures.adt import movement, normalized
from tocengine.formats.fhir.chart import overlay, resources_of
from tocengine.formats.fhir.resources import Resource
from tocengine.model.profile import SNAPSHOT_SEGMENTS, SourceProfile


def _fhir(body: bytes) -> bytes:
    return bytes(normalized(body).fhir)


def _chart(profile: SourceProfile, *bodies: bytes) -> bytes:
    events = [normalized(body, profile) for body in bodies]
    return overlay([bytes(each.fhir) for each in events], [each.summary.cleared for each in events])


def _of(chart: bytes, kind: str) -> list[Resource]:
    return [each for each in resources_of(chart).values() if each["resourceType"] == kind]


def test_one_bundle_is_its_own_chart() -> None:
    one = _fhir(movement("A01"))
    assert overlay([one]) is one
    assert orjson.loads(overlay([]))["entry"] == []


def test_later_statements_overlay_and_silence_keeps() -> None:
    first = _fhir(
        movement("A01", {14: "5", 10: "MED", 17: "1234567893^PATEL^RAVI^^^^^^NPI"}, "DG1|1||R07.9^Pain^I10|||A")
    )
    second = _fhir(movement("A08", {36: "03"}, pid="PID|1||00777^^^STJ^MR||VOSS^LENA"))
    chart = overlay([first, second])
    (encounter,) = _of(chart, "Encounter")
    assert set(encounter["hospitalization"]) == {"admitSource", "dischargeDisposition"}  # type: ignore[arg-type]
    assert "serviceType" in encounter
    assert len(encounter["participant"]) == 2  # type: ignore[arg-type]
    assert len(_of(chart, "Condition")) == 1
    (patient,) = _of(chart, "Patient")
    assert patient["birthDate"] == "1951-03-04"
    assert patient["name"] == [{"family": "VOSS", "given": ["LENA"]}]


def test_repeating_segments_are_snapshots() -> None:
    first = _fhir(movement("A01", None, "DG1|1||R07.9^Pain^I10|||A", "AL1|1||NKA"))
    second = _fhir(movement("A08", None, "DG1|1||I50.9^Failure^I10|||F"))
    chart = overlay([first, second])
    (condition,) = _of(chart, "Condition")
    assert condition["code"]["text"] == "Failure"  # type: ignore[index,call-overload]
    assert len(_of(chart, "AllergyIntolerance")) == 1


FULL = (
    "DG1|1||R07.9^Pain^I10|||A",
    "AL1|1|DA|PCN^Penicillin^L",
    "NK1|1|VOSS^PAUL|SPO",
    "NK1|2||EMR||||E||||||MILL INC",
    "IN1|1|P1|77|EMPIRE||||||||||||VOSS^GRETA|PAR",
    "PR1|1||33533^Bypass^C4||20260301",
    "OBX|1|NM|29463-7^Weight^LN||80|kg|||||F",
)
ONE_EACH = (
    "DG1|1||I50.9^Failure^I10|||F",
    "AL1|1|FA|NUT^Nuts^L",
    "NK1|1|VOSS^ANNA|CHD",
    "NK1|2||EMR||||E||||||FARM INC",
    "IN1|1|P2|78|MOHAWK||||||||||||VOSS^OTTO|PAR",
    "PR1|1||99999^Stent^C4||20260302",
    "OBX|1|NM|8302-2^Height^LN||170|cm|||||F",
)
KINDS = ("Condition", "AllergyIntolerance", "Coverage", "Procedure", "Observation")


@pytest.mark.parametrize("said_again", [FULL, ()])
def test_segments_that_are_no_snapshot_take_nothing_away(said_again: tuple[str, ...]) -> None:
    first, second = movement("A01", None, *FULL), movement("A08", None, *ONE_EACH, *said_again)
    replaced = _chart(SourceProfile(), first, second)
    added = _chart(SourceProfile(snapshot_segments=()), first, second)
    for chart, count in ((replaced, 2 if said_again else 1), (added, 2)):
        assert [len(_of(chart, kind)) for kind in KINDS] == [count] * len(KINDS)
        (patient,) = _of(chart, "Patient")
        assert _listed(chart) == {f"urn:uuid:{each['id']}" for each in _of(chart, "Condition")}
        assert len(patient["contact"]) == 2 * count  # type: ignore[arg-type]
        assert len(_of(chart, "RelatedPerson")) == 2 * count


def _listed(chart: bytes) -> set[str]:
    """What Encounter.diagnosis refers to."""
    (encounter,) = _of(chart, "Encounter")
    return {str(item["condition"]["reference"]) for item in encounter.get("diagnosis", [])}  # type: ignore[index,call-overload,union-attr]


def test_a_message_without_them_keeps_all_either_way() -> None:
    for snapshots in ((), SNAPSHOT_SEGMENTS):
        chart = _chart(SourceProfile(snapshot_segments=snapshots), movement("A01", None, *FULL), movement("A08"))
        assert [len(_of(chart, kind)) for kind in (*KINDS, "RelatedPerson")] == [1, 1, 1, 1, 1, 2]


def test_relatives_and_holders_of_policies_do_not_replace_each_other() -> None:
    """NK1 and IN1-16 both name related persons; a message with one of them leaves those of the other."""
    chart = _chart(
        SourceProfile(),
        movement("A01", None, "NK1|1|VOSS^PAUL|SPO", "IN1|1|P1|77|EMPIRE||||||||||||VOSS^GRETA|PAR"),
        movement("A08", None, "IN1|1|P2|78|MOHAWK||||||||||||VOSS^OTTO|PAR"),
    )
    assert _relatives(chart) == ["GRETA", "OTTO", "PAUL"]
    chart = _chart(
        SourceProfile(),
        movement("A01", None, "NK1|1|VOSS^PAUL|SPO", "IN1|1|P1|77|EMPIRE||||||||||||VOSS^GRETA|PAR"),
        movement("A08", None, "NK1|1|VOSS^ANNA|CHD"),
    )
    (coverage,) = _of(chart, "Coverage")
    assert _relatives(chart) == ["ANNA", "GRETA"]
    assert str(coverage["subscriber"]["reference"]) in resources_of(chart)  # type: ignore[index,call-overload]


def _relatives(chart: bytes) -> list[str]:
    """Given names, sorted."""
    return sorted(str(each["name"][0]["given"][0]) for each in _of(chart, "RelatedPerson"))  # type: ignore[index,call-overload]


def test_a_withdrawn_diagnosis_is_named_nowhere() -> None:
    gone = "DG1|1||R07.9^Pain^I10|||A" + "|" * 15 + "D"
    chart = _chart(SourceProfile(), movement("A01", None, FULL[0], ONE_EACH[0]), movement("A08", None, gone))
    (condition,) = _of(chart, "Condition")
    assert _listed(chart) == {f"urn:uuid:{condition['id']}"}
    chart = _chart(SourceProfile(), movement("A01", None, FULL[0]), movement("A08", None, gone))
    assert (_of(chart, "Condition"), _listed(chart)) == ([], set())


@pytest.mark.parametrize("type_", ["A", "W", "F", "", "QQ"])
def test_a_diagnosis_is_withdrawn_whatever_its_type_was(type_: str) -> None:
    gone = "DG1|1||R07.9^Pain^I10" + "|" * 18 + "D"
    sent = (f"DG1|1||R07.9^Pain^I10|||{type_}", ONE_EACH[0])
    chart = _chart(SourceProfile(snapshot_segments=()), movement("A01", None, *sent), movement("A08", None, gone))
    (condition,) = _of(chart, "Condition")
    assert _listed(chart) == {f"urn:uuid:{condition['id']}"}


def test_what_was_deleted_is_gone() -> None:
    first = _fhir(movement("A01", {14: "5", 36: "03"}))
    second = _fhir(movement("A08"))
    cleared = ["Patient.birthDate", "Encounter.hospitalization.dischargeDisposition", "Encounter.participant:ATND"]
    chart = overlay([first, second], [[], cleared])
    (patient,) = _of(chart, "Patient")
    (encounter,) = _of(chart, "Encounter")
    assert set(encounter["hospitalization"]) == {"admitSource"}  # type: ignore[arg-type]
    assert patient["birthDate"] == "1951-03-04"  # said again by the second message itself


def test_beds_left_behind_do_not_pile_up() -> None:
    moves = [_fhir(movement("A02", {3: f"4W^{room}^A^STJ"})) for room in range(20)]
    assert len(_of(overlay(moves), "Location")) == 1


def test_the_fold_can_be_taken_in_steps() -> None:
    parts = [
        _fhir(movement("A01", {14: "5"})),
        _fhir(movement("A02", {3: "5E^1^A"})),
        _fhir(movement("A03", {36: "03"})),
    ]
    assert orjson.loads(overlay([overlay(parts[:2]), parts[2]])) == orjson.loads(overlay(parts))


def _bundle(*resources: Resource, spaced: bool = False) -> bytes:
    entries = [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in resources]
    option = orjson.OPT_INDENT_2 if spaced else 0
    return orjson.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, option=option)


def test_text_that_looks_like_a_reference_refers_to_nothing() -> None:
    """What is no longer referred to leaves the chart; the JSON text is searched, so that text must not count."""
    doctor: Resource = {"resourceType": "Practitioner", "id": "d"}
    before: Resource = {"resourceType": "Encounter", "id": "e", "serviceProvider": {"reference": "urn:uuid:d"}}
    after: Resource = {
        "resourceType": "Encounter",
        "id": "e",
        "serviceProvider": {"display": '"reference":"urn:uuid:d"', "reference": "urn:uuid:gone"},
    }
    assert len(_of(overlay([_bundle(before, doctor), _bundle(before)]), "Practitioner")) == 1
    assert _of(overlay([_bundle(before, doctor), _bundle(after)]), "Practitioner") == []


def test_bundles_written_otherwise_are_read_all_the_same() -> None:
    doctor: Resource = {"id": "d", "resourceType": "Practitioner"}
    visit: Resource = {"id": "e", "status": "planned", "resourceType": "Encounter"}
    visit |= {"participant": [{"individual": {"reference": "urn:uuid:d"}}]}
    chart = overlay([_bundle(visit, doctor, spaced=True), _bundle({**visit, "status": "finished"}, spaced=True)])
    assert [each["status"] for each in _of(chart, "Encounter")] == ["finished"]
    assert len(_of(chart, "Practitioner")) == 1
