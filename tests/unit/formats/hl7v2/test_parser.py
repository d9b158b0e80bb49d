"""The parser on the cases that feeds really send."""

import pytest

from tocengine.errors import SyntaxRefusedError
from tocengine.formats import hl7v2

HEADER = "MSH|^~\\&|REG|NORTH|TOC|HUB|20260301154102-0500||ADT^A03^ADT_A03|77|P|2.5.1"


def parse(*lines: str, end: str = "\r", header: str = HEADER) -> hl7v2.HL7Message:
    return hl7v2.parse((end.join([header, *lines]) + end).encode())


def test_fields_are_numbered_as_in_the_standard() -> None:
    message = parse(
        "PV1|1|I|4W^212^A^NORTH&1.2.3&ISO|" + "|" * 15 + " V9^^^NORTH^VN|" + "|" * 16 + "03|SUNNY HOME^20260301"
    )
    header, visit = message.segment("MSH"), message.segment("PV1")
    assert (header[1].text, header[2].text, header[3].text, header[12].text) == ("|", "^~\\&", "REG", "2.5.1")
    assert visit[3].component(1) == "4W"
    assert visit[3].subcomponent(4, 2) == "1.2.3"
    assert visit[19].component(1) == " V9"
    assert visit[36].text == "03"
    assert visit[37].components == ["SUNNY HOME", "20260301"]
    assert message.get("PV1-3.4.1") == "NORTH"
    assert message.get("PV1-37.2") == "20260301"


def test_absent_things_read_as_empty() -> None:
    message = parse("PID|1")
    assert not message.segment("PV1")
    assert not message.segment("PV1")[19]
    assert message.segment("PID")[40].component(3) == ""
    assert message.segment("PID")[40].subcomponent(3, 2) == ""
    assert message.segment("PID")[5].repetitions == []
    assert "PV1" not in message
    with pytest.raises(IndexError):
        message.segment("PID")[0]


@pytest.mark.parametrize("path", ["", "PID", "PID-0", "PID-3.0", "PID-3.4.2.1", "pid-3", "PID.3", "PID-x", "PID-3.1 "])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        parse("PID|1").get(path)


def test_null_is_not_empty() -> None:
    visit = parse('PV1|""||x^""').segment("PV1")
    assert (visit[1].null, visit[1].empty, bool(visit[1]), visit[1].text) == (True, False, False, "")
    assert (visit[2].null, visit[2].empty, bool(visit[2])) == (False, True, False)
    assert visit[3].component(2) == ""


def test_repetitions_keep_their_order_and_blanks() -> None:
    field = parse("PID|1||11^^^A~~22^^^B").segment("PID")[3]
    assert [each.component(1) for each in field.repetitions] == ["11", "", "22"]
    assert [each.component(4) for each in field] == ["A", "B"]
    assert field.component(4) == "A"


def test_a_raw_ampersand_is_text_where_text_is_read() -> None:
    visit = parse("PV1|1|" + "|" * 34 + "|A & B CLINIC^20260301").segment("PV1")
    assert visit[37].component(1) == "A & B CLINIC"
    assert parse("ZZZ|A & B ^ C~D").segment("ZZZ")[1].text == "A & B ^ C~D"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_line_ends(end: str) -> None:
    message = parse("EVN||20260301", "PID|1", "", "PV1|1", end=end)
    assert [segment.name for segment in message] == ["MSH", "EVN", "PID", "PV1"]


def test_mixed_line_ends_and_line_feeds_that_are_data() -> None:
    message = hl7v2.parse(f"{HEADER}\nPID|1\r\nNTE|1||two\nlines\rPV1|1\n\rDG1|1\n".encode())
    assert [segment.name for segment in message] == ["MSH", "PID", "NTE", "PV1", "DG1"]
    assert message.get("NTE-3") == "two\nlines"


def test_other_delimiters_and_truncation() -> None:
    message = hl7v2.parse(b"MSH$%*!@#$REG\rPID$1$$7%%%N@1.2*8$A!F!B!P!!E!$$")
    assert message.delimiters == hl7v2.Delimiters("$", "%", "*", "!", "@", "#")
    assert message.segment("PID")[3].subcomponent(4, 2) == "1.2"
    assert [each.component(1) for each in message.segment("PID")[3]] == ["7", "8"]
    assert message.get("PID-4") == "A$B#!"


def test_missing_encoding_characters() -> None:
    message = hl7v2.parse(b"MSH|^~|REG\rPID|a\\F\\&b^c")
    assert message.flags == ("delimiters_missing",)
    assert message.segment("PID")[1].component(1) == "a\\F\\&b"
    assert hl7v2.parse(b"MSH||REG").delimiters == hl7v2.STANDARD


def test_byte_order_mark_and_blank_lines() -> None:
    for start in (b"\xef\xbb\xbf", b"\r\n\r\n", b"  \t"):
        body = start + HEADER.encode()
        message = hl7v2.parse(body)
        assert message.get("MSH-10") == "77"
        assert message.to_bytes() == body


def test_locations() -> None:
    message = parse("DG1|1", "DG1|2||x")
    assert message.segments("DG1")[1].location(3) == "DG1^2^3"
    assert message.segment("PID").location(3, 1) == "PID^1^3^1^1"


def test_segments_out_of_order_and_unknown_ones_stay() -> None:
    message = parse("ZPI|a|b", "PV1|1", "PID|1", "ZPI|c")
    assert [segment.name for segment in message] == ["MSH", "ZPI", "PV1", "PID", "ZPI"]
    assert [(each.occurrence, each[1].text) for each in message.segments("ZPI")] == [(1, "a"), (2, "c")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no_header"),
        (b"PID|1", "no_header"),
        (b"MSH", "no_header"),
        (b"FHS|^~\\&|\rMSH|^~\\&|", "no_header"),
        (b"MSHA^~\\&A", "delimiters"),
        (b"MSH|^^^^|x", "delimiters"),
        (b"MSH\rPID|1", "delimiters"),
        ("MSH|^~\\&|x".encode("utf-16"), "charset_unframeable"),
        ("MSH|^~\\&|x".encode("utf-16-le"), "charset_unframeable"),
        (HEADER.encode() + b"||||||UNICODE UTF-16", "charset_unframeable"),
    ],
)
def test_what_is_no_message(body: bytes, reason: str) -> None:
    with pytest.raises(SyntaxRefusedError) as refused:
        hl7v2.parse(body)
    assert refused.value.problem.reason == reason
    assert refused.value.ack_code == "AR"


def test_segments_of_a_name_are_found_wherever_they_stand() -> None:
    message = hl7v2.parse(b"MSH|^~\\&|A\rOBX|1\rOBX|2\rNTE|x\rOBX|3\rOBXX|5\r OBX |4\rOBX\r")
    assert [segment[1].text for segment in message.segments("OBX")] == ["1", "2", "3", "4", ""]
    assert [segment.name for segment in message] == ["MSH", "OBX", "OBX", "NTE", "OBX", "OBXX", "OBX", "OBX"]
    assert message.segments("ZZZ") == ()
    assert not message.segment("ZZZ")


def test_a_field_as_it_was_sent_is_the_same_before_and_after_its_segment_was_split() -> None:
    message = hl7v2.parse(b"MSH|^~\\&|A\\T\\B~C\rPID|1||7^^^STJ~8\\T\\9|x\r")
    for segment in (message.segment("PID"), message.segment("MSH")):
        before = [segment.sent_as(number) for number in range(1, 9)]
        assert [segment[number].raw for number in range(1, 9)] == before
        assert [segment.sent_as(number) for number in range(1, 9)] == before
    assert message.segment("PID").sent_as(3) == "7^^^STJ~8\\T\\9"
    assert message.segment("MSH").sent_as(3) == "A\\T\\B~C"
