"""Properties of batches: any bytes are read or refused, and no message of a batch is lost or invented."""

from hypothesis import example, given
from hypothesis import strategies as st

from tocengine.errors import SyntaxRefusedError
from tocengine.formats.hl7v2.batch import comment_of, read_batch, read_remains

MESSAGES = st.lists(st.text("ABC|^&~12 ", max_size=20).map(lambda text: f"MSH|^~\\&|{text}\rPID|{text}\r".encode()))
PIECES = st.sampled_from(
    [b"FHS|^~\\&|\r", b"BHS|^~\\&|\r", b"MSH|^~\\&|\r", b"BTS|1\r", b"FTS|1\r", b"BTS", b"PID|\r", b"\n", b"BHS"]
)


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_every_message_arrives_once_in_order(groups: list[list[bytes]], counted: bool, in_file: bool) -> None:
    payload = b"FHS|^~\\&|X\r" if in_file else b""
    for group in groups:
        payload += b"BHS|^~\\&|X\r" + b"".join(group) + (b"BTS|%d\r" % len(group) if counted else b"")
    payload += b"FTS|%d\r" % len(groups) if in_file else b""
    assert [list(group.messages) for group in read_batch(payload).groups] == groups


@example(b"BHS|^~\\&\rBTS")
@given(st.lists(PIECES | st.binary(max_size=5), max_size=12).map(b"".join))
def test_anything_is_read_or_refused(payload: bytes) -> None:
    remains = read_remains(payload)
    assert sum(map(len, remains.messages)) <= len(payload)
    assert isinstance(comment_of(payload), str)
    try:
        batch = read_batch(payload)
    except SyntaxRefusedError:
        return
    assert [each.rstrip(b"\x1a") for each in remains.messages] == batch.messages
