"""The parser beside two others, hl7kit and medforge, over the public corpus: where they read differently, why.

A class of difference names what the other does and what is right here (HL7 v2.5.1 chapter 2, `domain` rules). The test
fails on a difference of no class, so that a change of ours that alters a single value of the corpus is seen.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import hl7kit
import medforge
import pytest

from tests.corpus.files import hl7v2_files
from tocengine.errors import SyntaxRefusedError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.files import messages_in
from tocengine.formats.hl7v2.parser import HL7Message
from tocengine.formats.hl7v2.segments import Segment

FILES = hl7v2_files()
pytestmark = pytest.mark.skipif(not FILES, reason="the message corpus is not beside this checkout")
Reader = Callable[[bytes, HL7Message], Iterator[tuple[Segment, int, str]] | None]


def _hl7kit(body: bytes, ours: HL7Message) -> Iterator[tuple[Segment, int, str]] | None:
    """What hl7kit reads in each field of ours; None where it finds other segments or none."""
    try:
        theirs = hl7kit.parse(body)
    except (ValueError, TypeError):
        return None
    if theirs.segments() != [segment.name for segment in ours]:
        return None
    return (
        (segment, number, theirs.get(f"{segment.name}[{segment.occurrence}]-{number}") or "")
        for segment in ours
        for number in range(1, len(segment) + 1)
    )


def _medforge(body: bytes, ours: HL7Message) -> Iterator[tuple[Segment, int, str]] | None:
    """What medforge reads in each field of ours; None where it finds other segments or none."""
    try:
        theirs = medforge.parse(body.decode(ours.codec, "replace"))
    except (ValueError, TypeError):
        return None
    if [segment.name for segment in theirs.segments] != [segment.name for segment in ours]:
        return None
    return (
        (mine, number, segment.field(number).value)
        for mine, segment in zip(ours, theirs.segments, strict=True)
        for number in range(1, min(len(mine), len(segment.fields)) + 1)
    )


def _difference(segment: Segment, number: int, read: str, message: HL7Message) -> str:
    """The class of a difference; "" where there is none, "unexplained" where it has none."""
    field = segment[number]
    mine = '""' if field.null else field.text
    if mine == read:
        return ""
    if (segment.name in ("MSH", "FHS", "BHS") and number <= 2) or segment.name in ("FHS", "BHS"):
        return "headers: the other numbers the fields of FHS and BHS without their separator"
    if message.delimiters.escape in field.raw or "\\" in field.raw:  # a message may name another escape character
        return "escapes: the other leaves or drops sequences that are read here, or the reverse"
    if len(field.repetitions) > 1 and read in (field.repetitions[0].text, field.raw):
        return "repetitions: the other gives the first"
    if mine.strip() == read.strip() or mine.strip("\x1c\x00\r\n ") == read.strip("\x1c\x00\r\n "):
        return "blanks: the other trims"
    if not field.raw.isascii():
        return "charset: the other knows no MSH-18, or not this one"
    return "unexplained"


@pytest.mark.parametrize("reader", [_hl7kit, _medforge])
def test_every_difference_has_its_reason(reader: Reader) -> None:
    counted: Counter[str] = Counter()
    unexplained = []
    for file in FILES:
        for body in _bodies(file.path):
            try:
                ours = hl7v2.parse(body)
            except SyntaxRefusedError:
                counted["refused here: no header, or delimiters that are no delimiters"] += 1
                continue
            fields = reader(body, ours)
            if fields is None:
                counted["message not comparable: the other refuses it, or splits it otherwise"] += 1
                continue
            for segment, number, read in fields:
                found = _difference(segment, number, read, ours)
                counted[found] += 1
                if found == "unexplained":
                    unexplained.append((file.path.name, segment.name, number, segment[number].text, read))
    assert unexplained == []
    assert counted[""] > 40_000  # the same value in both


def _bodies(path: Path) -> list[bytes]:
    return [body.strip(b"\x0b\x1c") for body in messages_in(path.read_bytes())]
