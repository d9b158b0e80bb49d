"""Batches over MLLP: taken whole or refused whole, and answered by a batch."""

import pytest

from tests.integration.mllp.setting import Site, Start, adt
from tocengine.formats.hl7v2.batch import read_batch
from tocengine.formats.hl7v2.parser import parse
from tocengine.formats.mllp import Frame, FrameReader, frame
from tocengine.model.profile import SourceProfile

BHS = b"BHS|^~\\&|REG|NORTH|TOC|HUB|20260301||adt||B1\r"


async def _answer(site: Site, payload: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """The codes and control ids in the answering batch, and its last line."""
    reader, writer = await site.connect()
    writer.write(frame(payload))
    frames, found = FrameReader(1_000_000), b""
    while not found:
        for item in frames.receive(await reader.read(65_536)):
            assert isinstance(item, Frame)
            found = item.payload
    writer.close()
    messages = [parse(each) for each in read_batch(found).messages]
    return [(each.get("MSA-1"), each.get("MSA-2")) for each in messages], found.rstrip(b"\r").rpartition(b"\r")[2]


async def test_a_batch_is_taken_whole_in_one_append(start: Start) -> None:
    site = await start()
    appends = site.log.appends
    wanted = [adt("1"), adt("2", accept="AL", application="NE"), adt("3", accept="NE", application="NE")]
    answers, last = await _answer(site, BHS + b"".join(wanted) + b"BTS|3\r")
    assert answers == [("AA", "1"), ("CA", "2")]
    assert last == b"BTS|2"
    assert site.log.bodies("messages") == wanted
    assert site.log.appends == appends + 1


async def test_a_wrong_count_refuses_and_keeps_all_of_it(start: Start) -> None:
    site = await start()
    payload = BHS + adt("1") + adt("2") + b"BTS|10\r"
    answers, last = await _answer(site, payload)
    assert answers == [("AR", "1"), ("AR", "2")]
    assert last == b"BTS|2|The trailer's count is not the 2 that came"
    [kept] = site.log.records
    assert (kept.topic, kept.key, kept.value) == ("quarantine", b"batch_count", payload)


@pytest.mark.parametrize(
    ("policy", "bad", "codes"),
    [
        ("strict", adt("2", more="ZBAD|x\r"), [("AR", "1"), ("AE", "2"), ("AR", "3")]),
        ("accept_and_quarantine", adt("2", kind="ORU^R01"), [("AR", "1"), ("AR", "2"), ("AR", "3")]),
    ],
)
async def test_one_message_that_is_refused_refuses_all(
    start: Start, policy: str, bad: bytes, codes: list[tuple[str, str]]
) -> None:
    site = await start(SourceProfile(ack_policy=policy))
    answers, _ = await _answer(site, BHS + adt("1") + bad + adt("3") + b"BTS|3\r")
    assert answers == codes
    assert site.log.bodies("messages") == []
    assert len(site.log.bodies("quarantine")) == 1


async def test_one_that_is_set_aside_or_ignored_does_not(start: Start) -> None:
    site = await start(SourceProfile(unsupported_types="ignore"))
    bodies = [adt("1"), adt("2", more="ZBAD|x\r"), adt("3", kind="ORU^R01")]
    answers, _ = await _answer(site, BHS + b"".join(bodies) + b"BTS|3\r")
    assert answers == [("AA", "1"), ("AA", "2"), ("AA", "3")]
    assert site.log.bodies("messages") == bodies
    assert site.log.bodies("quarantine") == bodies[1:2]
    assert len(site.log.bodies("events")) == 1


async def test_more_messages_than_allowed_are_refused(start: Start) -> None:
    site = await start(max_batch_messages=2)
    answers, _ = await _answer(site, BHS + adt("1") + adt("2") + adt("3"))
    assert answers == [("AR", "1"), ("AR", "2"), ("AR", "3")]
    assert site.log.records[0].key == b"batch_too_long"


async def test_an_empty_batch_is_answered_by_an_empty_one(start: Start) -> None:
    site = await start()
    assert await _answer(site, BHS + b"BTS|0\r") == ([], b"BTS|0")


async def test_storage_down_means_no_answer_to_a_batch(start: Start) -> None:
    site = await start()
    site.log.down = True
    reader, writer = await site.connect()
    writer.write(frame(BHS + adt("1") + b"BTS|1\r"))
    assert await reader.read() == b""
    writer.close()
