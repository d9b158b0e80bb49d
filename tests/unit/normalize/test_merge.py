"""What messages say of keys: merges, new numbers, moves and links; every number in them is invented."""

from typing import Any

import orjson
import pytest
from msgspec import UNSET

from tests.fixtures.adt import EVN, adt, event, movement, normalized, pv1, received, source
from tocengine.errors import ContentError
from tocengine.model.event import AccountMerge, Link, Merge, Move, Rekeying, VisitMerge
from tocengine.model.identity import AccountKey, PatientKey, VisitKey
from tocengine.model.profile import SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer

RIGHT = "PID|1||22^^^STJ^MR||VOSS^HELENA||19510304|F||||||||||H22"
NUMBERS = {1: "11^^^STJ^MR", 3: "H11", 5: "V300", 6: "A300"}


def key(value: str) -> PatientKey:
    return PatientKey("STJ", value)


def visit(value: str) -> VisitKey:
    return VisitKey("STJ", value)


def account(value: str) -> AccountKey:
    return AccountKey("STJ", value)


def mrg(**changed: str) -> str:
    fields = NUMBERS | {int(name[1:]): value for name, value in changed.items()}
    return "|".join(["MRG", *(fields.get(number, "") for number in range(1, 7))])


def patients(body: bytes) -> dict[str, dict[str, Any]]:
    entries = orjson.loads(bytes(normalized(body).fhir))["entry"]
    found = [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == "Patient"]
    return {resource["identifier"][0]["value"]: resource for resource in found}


# --- patients


def test_a_merge_names_both_sides() -> None:
    body = adt("A40", EVN, "PID|1||7770^^^STJ^MR", "MRG|5551^^^STJ^MR~9^^^^SS")
    told = event(body)
    assert told.merges == (Merge(prior=key("5551"), surviving=key("7770")),)
    assert told.patient == key("7770")
    assert told.visit is None


@pytest.mark.parametrize("trigger", ["A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47"])
def test_the_older_merges_and_a_new_number_are_merges(trigger: str) -> None:
    assert event(adt(trigger, EVN, "PID|1||7770^^^STJ^MR", "MRG|5551^^^STJ^MR")).merges


@pytest.mark.parametrize(
    ("segments", "location"),
    [(("PID|1||7770^^^STJ^MR",), "MRG^1^1"), (("PID|1||7770^^^STJ^MR", "MRG|"), "MRG^1^1"), (("MRG|5551",), "PID^1^3")],
)
def test_a_merge_with_one_side_is_refused(segments: tuple[str, ...], location: str) -> None:
    with pytest.raises(ContentError) as refused:
        event(adt("A40", EVN, *segments))
    assert refused.value.problem.location == location


def test_a_merge_into_itself_says_nothing() -> None:
    assert event(adt("A40", EVN, "PID|1||7770^^^STJ^MR", "MRG|7770^^^STJ^MR")).merges == ()


def test_a_merge_message_may_repeat_its_groups() -> None:
    body = adt("A40", EVN, "PID|1||1^^^STJ^MR", "MRG|2^^^STJ^MR", "PID|2||3^^^STJ^MR", "MRG|4^^^STJ^MR")
    records = HL7v2Normalizer(source()).normalize(received(body))
    assert [(each.summary.part, each.summary.merges[0].prior.value) for each in records] == [(0, "2"), (1, "4")]


def test_every_record_number_of_the_prior_list_becomes_an_alias() -> None:
    body = adt("A40", EVN, "PID|1||1^^^STJ^MR", "MRG|2^^^STJ^MR~3^^^STJ^MR~77^^^EMPI^PI~1^^^STJ^MR")
    assert [merge.prior.value for merge in event(body).merges] == ["2", "3"]


def test_a_merge_that_shows_a_visit_moves_no_visit() -> None:
    assert event(adt("A40", EVN, "PID|1||1^^^STJ^MR", "MRG|2^^^STJ^MR", pv1())).visit is None


def test_fhir_says_who_replaces_whom() -> None:
    found = patients(adt("A40", EVN, "PID|1||7770^^^STJ^MR", "MRG|5551^^^STJ^MR"))
    survivor, prior = found["7770"], found["5551"]
    assert survivor["link"] == [{"other": {"reference": f"urn:uuid:{prior['id']}"}, "type": "replaces"}]
    assert prior["link"] == [{"other": {"reference": f"urn:uuid:{survivor['id']}"}, "type": "replaced-by"}]
    assert prior["active"] is False


# --- accounts and visits


@pytest.mark.parametrize("trigger", ["A35", "A41", "A49"])
def test_an_account_goes_on_under_another_number(trigger: str) -> None:
    told = event(adt(trigger, EVN, RIGHT, mrg()))
    assert told.merges == ()
    assert told.rekeying == Rekeying(accounts=(AccountMerge(prior=account("H11"), surviving=account("H22")),))


def test_a36_merges_patient_and_account() -> None:
    told = event(adt("A36", EVN, RIGHT, mrg()))
    assert told.merges == (Merge(prior=key("11"), surviving=key("22")),)
    assert told.rekeying == Rekeying(accounts=(AccountMerge(prior=account("H11"), surviving=account("H22")),))


@pytest.mark.parametrize("trigger", ["A42", "A50"])
def test_a_visit_goes_on_under_another_number(trigger: str) -> None:
    told = event(adt(trigger, EVN, RIGHT, mrg(), pv1({19: "V301"})))
    assert told.rekeying == Rekeying(visits=(VisitMerge(prior=visit("V300"), surviving=visit("V301")),))
    assert (told.visit, told.patient) == (None, key("22"))


@pytest.mark.parametrize(
    ("visit_key", "trigger", "prior", "surviving"),
    [
        ("PV1-50", "A51", "A300", "A301"),
        ("PID-18", "A41", "H11", "H22"),
        ("PID-18", "A42", "H11", "H22"),
        ("PV1-50", "A42", "A300", "A301"),
    ],
)
def test_the_visit_key_of_the_feed_decides_which_number_is_the_visit(
    visit_key: str, trigger: str, prior: str, surviving: str
) -> None:
    body = adt(trigger, EVN, RIGHT, mrg(), pv1({19: "V301", 50: "A301"}))
    (told,) = HL7v2Normalizer(source(SourceProfile(visit_key=visit_key))).normalize(received(body))
    assert told.summary.rekeying == Rekeying(visits=(VisitMerge(prior=visit(prior), surviving=visit(surviving)),))


def test_a_number_that_is_no_key_is_noted_only() -> None:
    told = event(adt("A51", EVN, RIGHT, mrg(), pv1({50: "A301"})))
    assert told.rekeying is None
    assert "alternate_visit_not_key" in told.flags


@pytest.mark.parametrize(
    ("trigger", "segments", "location"),
    [
        ("A41", (RIGHT, mrg(f3="")), "MRG^1^3"),
        ("A41", (RIGHT,), "MRG^1^3"),
        ("A42", (RIGHT, mrg(f5=""), pv1()), "MRG^1^5"),
        ("A42", (RIGHT, mrg()), "MRG^1^5"),
        ("A45", (RIGHT, mrg(f5="")), "MRG^1^5"),
        ("A44", (RIGHT, mrg(f3="")), "MRG^1^3"),
        ("A43", (RIGHT, mrg(f1="")), "MRG^1^1"),
        ("A43", (RIGHT,), "MRG^1^1"),
        ("A24", (RIGHT,), "PID^2^3"),
    ],
)
def test_a_change_with_one_side_is_refused(trigger: str, segments: tuple[str, ...], location: str) -> None:
    with pytest.raises(ContentError) as refused:
        event(adt(trigger, EVN, *segments))
    assert refused.value.problem.location == location


def test_an_admission_may_go_on_under_a_new_visit_number() -> None:
    body = adt("A06", EVN, RIGHT, mrg(), pv1({19: "V301"}))
    told = event(body)
    assert told.visit == visit("V301")
    assert told.rekeying == Rekeying(visits=(VisitMerge(prior=visit("V300"), surviving=visit("V301")),))
    assert event(movement("A06")).rekeying is None


@pytest.mark.parametrize(("trigger", "named"), [("A01", "V300"), ("A04", "V300"), ("A11", "V300"), ("A08", UNSET)])
def test_an_arrival_may_name_the_visit_it_grew_out_of(trigger: str, named: object) -> None:
    said = event(adt(trigger, EVN, RIGHT, mrg(f3="", f6=""), pv1({19: "V301"})))
    assert (said.visit, said.rekeying) == (visit("V301"), None)
    assert said.encounter_facts is not UNSET
    assert said.encounter_facts.alternate_visit == named
    other = event(adt("A01", EVN, RIGHT, mrg(), pv1({19: "V301", 50: "V200"})))
    assert other.encounter_facts is not UNSET
    assert other.encounter_facts.alternate_visit == "V200"


# --- moves and links


def test_a_visit_moves_to_another_person() -> None:
    told = event(adt("A45", EVN, RIGHT, mrg()))
    move = Move(prior=key("11"), surviving=key("22"), visit=visit("V300"), account=account("H11"), into=account("H22"))
    assert told.rekeying == Rekeying(moves=(move,))
    assert (told.patient, told.visit) == (key("22"), None)


def test_several_visits_move_in_one_message() -> None:
    told = event(adt("A45", EVN, RIGHT, mrg(), pv1({19: "V300"}), mrg(f5="V400"), pv1({19: "V401"})))
    assert told.rekeying is not None
    assert [move.visit for move in told.rekeying.moves] == [visit("V300"), visit("V400")]
    assert told.rekeying.visits == (VisitMerge(prior=visit("V400"), surviving=visit("V401")),)


def test_an_account_moves_with_all_its_visits() -> None:
    told = event(adt("A44", EVN, RIGHT, mrg()))
    move = Move(prior=key("11"), surviving=key("22"), account=account("H11"), into=account("H22"))
    assert told.rekeying == Rekeying(moves=(move,))


def test_a_number_moves_with_everything_under_it() -> None:
    told = event(adt("A43", EVN, "PID|1||22^^^STJ^MR", mrg()))
    assert told.rekeying == Rekeying(moves=(Move(prior=key("11"), surviving=key("22")),))


@pytest.mark.parametrize(("trigger", "stands"), [("A24", True), ("A37", False)])
def test_a_link_names_two_records(trigger: str, stands: bool) -> None:
    body = adt(trigger, EVN, "PID|1||1^^^STJ^MR", "PID|2||2^^^STJ^MR")
    first, second = HL7v2Normalizer(source()).normalize(received(body))
    assert first.summary.rekeying is None
    assert second.summary.rekeying == Rekeying(links=(Link(one=key("1"), other=key("2"), stands=stands),))
    assert second.summary.merges == ()
