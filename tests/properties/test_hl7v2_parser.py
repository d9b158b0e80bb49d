"""Properties of the HL7 v2 parser: lossless, and no bytes make it fail in another way than the documented one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.searching import examples
from tocengine.errors import SyntaxRefusedError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2 import ack
from tocengine.formats.hl7v2.datatypes import CWE, CX, DLD, EI, HD, PL, TS, XAD, XCN, XON, XPN, XTN
from tocengine.formats.hl7v2.encoding import Delimiters, escape, unescape
from tocengine.formats.hl7v2.time import read_stated

TYPES = (CWE, CX, DLD, EI, HD, PL, TS, XAD, XCN, XON, XPN, XTN)
SAMPLE = (
    "MSH|^~\\&|REG|NORTH|TOC|HUB|20260301120000||ADT^A01^ADT_A01|77|P|2.5.1||||||UNICODE UTF-8\r"
    "PID|1||00421^^^NORTH&1.2.3&ISO^MR~991^^^X||DÍAZ^JUNE\\S\\A||1950\r"
    'PV1|1|I|4W^2^A||||""|||MED\r'
    "ZPI|a~~b|c\\X0D\\d\r"
).encode()
MESSAGE_BYTES = st.lists(
    st.sampled_from(
        [
            b"|",
            b"^",
            b"~",
            b"\\",
            b"&",
            b"\r",
            b"\n",
            b"PID|",
            b"ZZZ",
            b'""',
            b"\\F\\",
            b"\\X",
            b"\xc3",
            b"\xe9",
            b"\x1b$B",
        ]
    )
    | st.binary(max_size=5),
    max_size=40,
).map(b"".join)


def _read_everything(body: bytes) -> None:
    try:
        message = hl7v2.parse(body)
    except SyntaxRefusedError:
        return
    assert message.to_bytes() == body
    for segment in message:
        for number in range(1, len(segment) + 2):
            field = segment[number]
            read = [segment.component(number, component) for component in range(1, len(field.components) + 2)]
            assert read == [field.component(component) for component in range(1, len(field.components) + 2)]
            assert isinstance(field.text, str)
            for repetition in field.repetitions:
                for component in range(1, len(repetition.components) + 2):
                    repetition.subcomponents(component)
                    assert isinstance(repetition.component(component), str)
                for each in TYPES:
                    each.read(repetition)


@settings(max_examples=examples(400))
@given(st.binary(max_size=200) | MESSAGE_BYTES)
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    _read_everything(body)
    _read_everything(b"MSH" + body)
    _read_everything(b"MSH|^~\\&" + body)
    ack.read_sent(body)
    ack.read_sent(b"MSH" + body)


@settings(max_examples=examples(400))
@given(st.integers(0, len(SAMPLE) * 8 - 1), st.integers(0, len(SAMPLE)), st.integers(0, len(SAMPLE)), MESSAGE_BYTES)
def test_flipped_cut_and_spliced_messages_never_crash(bit: int, first: int, last: int, splice: bytes) -> None:
    flipped = bytearray(SAMPLE)
    flipped[bit // 8] ^= 1 << (bit % 8)
    for body in (bytes(flipped), SAMPLE[:first], SAMPLE[:first] + splice + SAMPLE[last:]):
        _read_everything(body)
        sent = ack.read_sent(body)
        for verdict in ack.Verdict:
            ack.code_for(sent, verdict)


NAMES = st.from_regex(r"[A-Z][A-Z0-9]{2}", fullmatch=True).filter(lambda name: name not in ("MSH", "FHS", "BHS"))
VALUES = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]), max_size=12)
DELIMITERS = st.permutations(list("|^~\\&#@$!*")).map(lambda each: Delimiters(*each[:5]))


@given(
    DELIMITERS,
    st.lists(st.tuples(NAMES, st.lists(st.lists(VALUES, max_size=4), max_size=4)), max_size=6),
    st.sampled_from(["\r", "\n", "\r\n"]),
)
def test_what_is_written_is_read(d: Delimiters, segments: list[tuple[str, list[list[str]]]], line_end: str) -> None:
    header = f"MSH{d.field}{d.characters}" + d.field * 16 + "UNICODE UTF-8"
    lines = [header]
    for name, fields in segments:
        encoded = (d.component.join(escape(value, d) for value in field) for field in fields)
        lines.append(d.field.join([name, *encoded]))
    body = (line_end.join(lines) + line_end).encode()
    message = hl7v2.parse(body)
    assert message.to_bytes() == body
    assert message.delimiters == d
    read = list(message)[1:]
    assert [segment.name for segment in read] == [name for name, _ in segments]
    for segment, (_, fields) in zip(read, segments, strict=True):
        for number, values in enumerate(fields, 1):
            for component, value in enumerate(values, 1):
                expected = "" if value == '""' else value
                assert segment[number].component(component) == expected


@given(st.text(max_size=30), DELIMITERS)
def test_escaping_is_undone(text: str, delimiters: Delimiters) -> None:
    written = escape(text, delimiters)
    for delimiter in (
        delimiters.field,
        delimiters.component,
        delimiters.repetition,
        delimiters.subcomponent,
        "\r",
        "\n",
    ):
        assert delimiter not in written
    assert unescape(written, delimiters) == text


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{0,17}(\.[0-9]{0,5})?([+-][0-9]{4})?", fullmatch=True))
def test_a_time_is_read_or_a_value_error(text: str) -> None:
    try:
        stated = read_stated(text)
    except ValueError as error:
        told = str(error)
    else:
        told = "" if stated.wall.year >= 1 else "no year"
    assert told in ("", "not an HL7 time", "not a time of the calendar")
