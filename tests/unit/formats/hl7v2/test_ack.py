"""Acknowledgments: who gets which code, and in what form."""

from datetime import UTC, datetime

import pytest

from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.ack import Verdict, build, code_for, read_ack, read_sent
from tocengine.model.message import Problem

NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
PROBLEM = Problem(reason="visit_missing", text="No visit number | none", location="PV1^1^19", code="101")


def body(accept: str = "", application: str = "", *, kind: str = "ADT^A03^ADT_A03", version: str = "2.5.1") -> bytes:
    sender = "MSH|^~\\&|REG|NORTH^1.2^ISO|TOC|HUB|20260301"
    return f"{sender}||{kind}|0 77\\F\\|P|{version}|||{accept}|{application}||8859/1\rPID|1".encode()


@pytest.mark.parametrize(
    ("accept", "application", "accepted", "refused"),
    [
        ("", "", "AA", "AE"),
        ("AL", "NE", "CA", "CE"),
        ("AL", "AL", "CA", "CE"),
        ("NE", "NE", "", ""),
        ("ER", "NE", "", "CE"),
        ("SU", "NE", "CA", ""),
        ("NE", "AL", "AA", "AE"),
        ("", "AL", "AA", "AE"),
        ("ER", "AL", "AA", "CE"),
        ("al", "", "CA", "CE"),
    ],
)
def test_codes_by_mode(accept: str, application: str, accepted: str, refused: str) -> None:
    sent = read_sent(body(accept, application))
    assert (code_for(sent, Verdict.ACCEPT), code_for(sent, Verdict.ERROR)) == (accepted, refused)


def test_an_acknowledgment_is_never_acknowledged() -> None:
    assert code_for(read_sent(body(kind="ACK^A03")), Verdict.REJECT) == ""


def test_the_answer_mirrors_the_sender() -> None:
    answer = build(read_sent(body("AL", "NE")), "CA", now=NOW, control_id="x1")
    assert answer == (
        b"MSH|^~\\&|TOC|HUB|REG|NORTH^1.2^ISO|20260301204105+0000||ACK^A03^ACK|x1|P|2.5.1|||NE|NE||8859/1\r"
        b"MSA|CA|0 77\\F\\\r"
    )


@pytest.mark.parametrize(
    ("version", "kind", "texts"),
    [
        (
            "2.3",
            "ACK^A03",
            ["MSA|AE|0 77\\F\\|No visit number \\F\\ none", "ERR|PV1^1^19^101&Required field missing&HL70357"],
        ),
        (
            "2.4",
            "ACK^A03^ACK",
            ["MSA|AE|0 77\\F\\|No visit number \\F\\ none", "ERR|PV1^1^19^101&Required field missing&HL70357"],
        ),
        (
            "2.5.1",
            "ACK^A03^ACK",
            [
                "MSA|AE|0 77\\F\\|No visit number \\F\\ none",
                "ERR||PV1^1^19|101^Required field missing^HL70357|E|||"
                "normalize: visit_missing|No visit number \\F\\ none",
            ],
        ),
        (
            "2.8",
            "ACK^A03^ACK",
            [
                "MSA|AE|0 77\\F\\",
                "ERR||PV1^1^19|101^Required field missing^HL70357|E|||"
                "normalize: visit_missing|No visit number \\F\\ none",
            ],
        ),
    ],
)
def test_errors_by_version(version: str, kind: str, texts: list[str]) -> None:
    answer = hl7v2.parse(build(read_sent(body(version=version)), "AE", now=NOW, control_id="x1", problem=PROBLEM))
    assert answer.segment("MSH")[9].raw == kind
    assert answer.lines[1:] == texts


def test_the_answer_is_in_the_delimiters_and_bytes_of_the_sender() -> None:
    sent = read_sent(b"MSH$%*!@$R\xe9G$NORTH$TOC$HUB$2026$$ADT%A01$\xe9-1$P$2.5")
    answer = build(sent, "AE", now=NOW, control_id="x1", problem=PROBLEM)
    assert answer.startswith(b"MSH$%*!@$TOC$HUB$R\xe9G$NORTH$20260301204105+0000$$ACK%A01%ACK$x1$P$2.5\rMSA$AE$\xe9-1$")
    assert b"\rERR$$PV1%1%19$101%Required field missing%HL70357$E$" in answer


@pytest.mark.parametrize(
    ("broken", "control_id"),
    [
        (b"\x00\x00garbage MSH|^~\\&|A|B|C|D|2026||ADT^A01|42|P", b"42"),
        (b"MSH|^^^^|A|B|C|D|2026||ADT^A01|42|P", b"42"),
        (b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|4", b"4"),
        (b"MSH|", b""),
        (b"", b""),
        (b"hello", b""),
    ],
)
def test_control_ids_are_recovered_from_broken_messages(broken: bytes, control_id: bytes) -> None:
    sent = read_sent(broken)
    assert sent.control_id == control_id
    answer = read_ack(build(sent, code_for(sent, Verdict.REJECT), now=NOW, control_id="x1", problem=PROBLEM))
    assert (answer.code, answer.control_id.encode(), answer.positive) == ("AR", control_id, False)
