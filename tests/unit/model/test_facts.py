"""Later statements overlay earlier ones: a value replaces, None deletes, UNSET keeps (HL7 v2.5.1 section 2.5.3)."""

from msgspec import UNSET

from tocengine.model.facts import PatientFacts, known, overlay


def test_overlay() -> None:
    before = PatientFacts(birth_date="1940-01-02", sex="female", phones=("1",))
    after = overlay(before, PatientFacts(sex="male", phones=None))
    assert (after.birth_date, after.sex, after.phones) == ("1940-01-02", "male", None)
    assert overlay(before, PatientFacts()) is before


def test_known() -> None:
    assert known(UNSET) is None
    assert known(None) is None
    assert known("x") == "x"
