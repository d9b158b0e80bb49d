"""Keys with signs that nobody sees: two numbers never become one because of what was left out of them."""

import pytest

from tests.fixtures.adt import PID, encounter_facts, event, movement
from tocengine.normalize.reading import clean


@pytest.mark.parametrize("hidden", ["\u00a0", "\u2003", "\u200b", "\x01", "\ufeff", "\u00ad"])
def test_a_number_with_a_hidden_sign_inside_is_another_number(hidden: str) -> None:
    plain = event(movement("A01", {19: "V9"}, pid=PID.replace("00777", "1234")))
    odd = event(movement("A01", {19: f"V{hidden}9"}, pid=PID.replace("00777", f"12{hidden}34")))
    assert plain.patient is not None
    assert odd.patient is not None
    assert odd.patient != plain.patient
    assert odd.visit != plain.visit
    assert odd.patient.value.isprintable()
    assert {"unprintable:PID-3", "unprintable:visit"} <= set(odd.flags)


@pytest.mark.parametrize("around", ["\u00a0", " ", "\t", "\x01", "\ufeff"])
def test_signs_around_a_number_are_no_part_of_it(around: str) -> None:
    found = event(movement("A01", pid=PID.replace("00777", f"{around}1234{around}")))
    assert found.patient is not None
    assert found.patient.value == "1234"
    assert not [flag for flag in found.flags if flag.startswith("unprintable")]


def test_any_blank_is_a_blank_and_what_is_no_sign_at_all_is_nothing() -> None:
    assert clean("12\u00a034") == clean("12\u200334") == "12 34"
    assert clean("12\u200b34") == "12\ufffd34"
    assert clean("\u200b") == clean(" ") == clean('""') == ""


def test_a_merge_and_an_account_keep_them_apart_too() -> None:
    body = movement("A40", None, "MRG|5\u00a055^^^STJ^MR")
    assert [merge.prior.value for merge in event(body).merges] == ["5 55"]
    assert "unprintable:MRG-1" in event(body).flags
    account = encounter_facts(movement("A01", pid=PID + "|" * 10 + "H\u00a01")).account_number
    assert account == "H 1"
