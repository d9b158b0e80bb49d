"""What is packed is unpacked byte for byte, whatever it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocengine.formats.packing import pack, unpack
from tocengine.simulation.load.visits import Mix, Visits


@given(st.binary(max_size=20_000) | st.text(max_size=5_000).map(str.encode))
def test_any_body_comes_back(body: bytes) -> None:
    packed = pack(body)
    assert unpack(packed) == body
    assert len(packed) <= len(body) + 1


@given(st.binary(min_size=1, max_size=200))
def test_what_was_not_packed_is_refused_or_plain(stored: bytes) -> None:
    """Never anything but ValueError: the caller sets the record aside."""
    try:
        assert stored[1:] == unpack(stored) or stored[:1] == b"\x01"
    except ValueError:
        assert stored[:1] != b"\x00"


def test_messages_become_small() -> None:
    body = Visits(Mix(size=9_000)).discharge(3)
    assert len(pack(body)) < len(body) / 2


@pytest.mark.parametrize("stored", [b"", b"\x02abc", b"\x01not zstandard"])
def test_an_unknown_form_is_an_error(stored: bytes) -> None:
    with pytest.raises(ValueError, match="stored body"):
        unpack(stored)


def test_what_an_earlier_program_packed_can_still_be_read() -> None:
    """The dictionary must never change: bodies in databases hang on it."""
    packed = bytes.fromhex(PACKED)
    assert unpack(packed) == BODY


BODY = (
    b'{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:1","resource":'
    b'{"resourceType":"Patient"}}]}'
)
PACKED = "0128b52ffd2076f500006050617469656e74227d7d5d7d0540004280c90670e49187238f3ae9671a"
