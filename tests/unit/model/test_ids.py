"""Derived ids depend on their parts, and on where one part ends and the next begins."""

from hypothesis import given
from hypothesis import strategies as st

from tocengine.model.ids import derive, derive_text


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_parts_give_different_ids(left: list[str], right: list[str]) -> None:
    assert (derive("kind", *left) == derive("kind", *right)) == (left == right)


def test_ids_are_version_8_uuids() -> None:
    value = derive("message", "feed", b"bytes")
    assert (value.version, value.variant) == (8, "specified in RFC 4122")


def test_ids_are_those_that_were_ever_derived() -> None:
    assert str(derive("patient", "STJ", "00777")) == "0cf08a79-76fa-8f13-a59b-3aed1c4e38da"
    assert derive_text("message", "feed", b"bytes") == "a6e73163-8f7d-88fa-987e-96a06cd6149f"
