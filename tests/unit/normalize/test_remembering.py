"""What a feed says again and again is read once, and yet every message means the same whatever came before it."""

import msgspec
import pytest

from tests.fixtures.adt import PID, adt, event, movement, pv1, received, source
from tocengine.normalize import reading
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.normalize.rules import diagnoses

DOCTOR = "1999000031^ROE^ANN^^^^MD^^NPI"
NOBODY = "9999999999^UNKNOWN^DOCTOR"
MESSAGES = [
    movement("A01"),
    movement("A03", {36: "03", 37: "SUNNYSIDE"}, "DG1|1||I50.9^Heart failure^I10|||F"),
    movement("A03", {36: "03", 37: "SUNNYSIDE"}, "DG1|1||I50.9^Heart failure^I10||20260301|F|||||||||2"),
    movement("A01", {7: NOBODY, 8: NOBODY}),  # one flag for two fields
    movement("A01", {7: NOBODY}),
    movement("A01", {8: NOBODY, 9: NOBODY, 17: DOCTOR}),
    movement("A08", {7: DOCTOR}, "PR1|1||X1^Done^L||20260301|||||||" + DOCTOR, "AL1|1|DA|70618^Penicillin|MO|HIVES"),
    movement(
        "A08", {3: "4W^410^B^STJ"}, "AL1|1|ZZ|70618^Penicillin|MO|HIVES", "DG1|1||X^Y^ZZ9|||Q", "DG1|2||X^Y^ZZ9|||Q"
    ),
    movement("A08", {7: DOCTOR}, "NK1|1|VOSS^IDA|SPO||||C", "IN1|1|P1|7|EMPIRE"),
    movement("A08", {7: DOCTOR}, "NK1|1|VOSS^PAUL|SPO||||C", "IN1|1|P1|7|EMPIRE", "IN1|2|P1|8|EMPIRE"),
    adt("A08", PID, pv1({7: "7^ROE"}), msh="MSH|^~\\&|A|OTHER|C|D|20260301||ADT^{trigger}|{control}|P|2.5.1"),
    adt("A08", PID, pv1({7: "7^ROE"}), msh="MSH|^~\\&|A|STJ|C|D|20260301||ADT^{trigger}|{control}|P|2.5.1"),
    movement("A08", {7: DOCTOR}).replace(b"^", b"@"),
]


def _said(normalizer: HL7v2Normalizer, body: bytes) -> bytes:
    return msgspec.json.encode(normalizer.normalize(received(body)))


@pytest.mark.parametrize(
    "order", [MESSAGES, MESSAGES[::-1], [*MESSAGES, *MESSAGES]], ids=["once", "backwards", "twice"]
)
def test_a_message_means_the_same_whatever_came_before(order: list[bytes]) -> None:
    warm = HL7v2Normalizer(source())
    for body in order:
        assert _said(warm, body) == _said(HL7v2Normalizer(source()), body)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT_FINDINGS", 5)
    known = HL7v2Normalizer(source())
    for number in range(40):
        body = movement("A01", {3: f"4W^{number}", 7: f"{number}^ROE^ANN"})
        assert _said(known, body) == _said(HL7v2Normalizer(source()), body)
        assert len(known._known or ()) <= 5


def test_what_is_said_again_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known, read = HL7v2Normalizer(source()), 0

    def counted(code: str) -> str:
        nonlocal read
        read += 1
        return code

    monkeypatch.setattr(diagnoses, "dotted", counted)
    for _ in range(3):
        known.normalize(received(movement("A01", {}, "DG1|1||I509^Heart failure^I10|||F")))
    assert read == 1


def test_a_rule_sees_the_fields_alone_that_it_is_remembered_by() -> None:
    deleted = movement("A01", {}, "DG1|1||I50.9^Heart failure^I10|||F" + "|" * 15 + "D")
    known = HL7v2Normalizer(source())
    known.normalize(received(movement("A01", {}, "DG1|1||I50.9^Heart failure^I10|||F")))
    assert _said(known, deleted) == _said(HL7v2Normalizer(source()), deleted)
    assert event(deleted).encounter_facts.diagnoses is msgspec.UNSET  # type: ignore[union-attr]
