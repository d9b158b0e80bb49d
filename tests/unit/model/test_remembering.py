"""What is remembered of senders' texts: the short ones, and only so many."""

from tests.fixtures.adt import received, source
from tocengine.model.identity import VisitKey
from tocengine.model.remembering import LONGEST, remembered
from tocengine.normalize.normalizer import HL7v2Normalizer


def test_short_texts_are_remembered_and_long_ones_are_not() -> None:
    asked: list[object] = []

    @remembered(2)
    def size(said: str | VisitKey) -> int:
        asked.append(said)
        return len(str(said))

    short, long = VisitKey("STJ", "1"), "x" * (LONGEST + 1)
    for said in (short, short, long, long, VisitKey("STJ", long), VisitKey("STJ", long)):
        size(said)
    assert asked == [short, long, long, VisitKey("STJ", long), VisitKey("STJ", long)]


def test_only_so_many_are_remembered() -> None:
    asked: list[str] = []

    @remembered(2)
    def size(said: str) -> int:
        asked.append(said)
        return len(said)

    for said in ("a", "b", "a", "b", "c", "c", "a"):
        size(said)
    assert asked == ["a", "b", "c", "a"]


def test_a_message_with_a_huge_code_leaves_nothing_in_the_memory_of_its_feed() -> None:
    normalizer = HL7v2Normalizer(source())
    body = "MSH|^~\\&|A|STJ|||||ADT^A01|1|P|2.5.1\rPID|||7^^^STJ^MR\rPV1||I|||||||||||||||||V1^^^STJ\rDG1|1||{}\r"
    normalizer.normalize(received(body.format("I10^Hypertension^I10").encode()))
    kept = len(normalizer._known or {})
    normalizer.normalize(received(body.format("I10^" + "x" * 100_000 + "^I10").encode()))
    assert kept
    assert len(normalizer._known or {}) == kept
