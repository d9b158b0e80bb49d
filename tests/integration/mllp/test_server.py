"""The MLLP server over real sockets: what is answered, in which order, and when nothing is."""

import asyncio

import pytest

from tests.integration.mllp.setting import Start, adt, codes, read_answers, until
from tocengine.formats import hl7v2
from tocengine.formats.mllp import Frame, FrameReader, frame
from tocengine.model.profile import SenderMatch, SourceProfile


async def test_a_message_is_durable_before_it_is_answered(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    body = adt("9001")
    writer.write(frame(body))
    await until(lambda: site.log.appending == 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    site.log.gate.set()
    [answer] = await read_answers(reader, 1)
    assert codes([answer]) == [("AA", "9001")]
    assert answer.get("MSH-9") == "ACK^A01^ACK"
    assert (answer.get("MSH-3"), answer.get("MSH-5")) == ("TOC", "REG")
    assert site.log.bodies("messages") == [body]
    assert site.log.bodies("events") == [b"AA"]
    writer.close()


async def test_modes_of_acknowledgment(start: Start) -> None:
    site = await start()
    async with site.client() as client:
        answer = await client.send(adt("1", accept="AL", application="NE"))
        assert answer is not None
        assert answer.code == "CA"
        assert await client.send(adt("2", accept="ER", application="NE")) is None
        assert await client.send(adt("3", accept="NE", application="NE")) is None
        answer = await client.send(adt("4", accept="NE", application="AL"))
        assert answer is not None
        assert (answer.code, answer.control_id) == ("AA", "4")  # 2 and 3 were taken without a byte
    assert len(site.log.bodies("messages")) == 4


async def test_pipelined_messages_are_answered_in_order_within_a_bound(start: Start) -> None:
    site = await start(max_in_flight=4)
    site.log.gate.clear()
    reader, writer = await site.connect()
    for number in range(20):
        writer.write(frame(adt(str(number))))
    await until(lambda: site.log.appending == 4)
    await until(lambda: site.metric("tocengine_mllp_messages_in_flight") == 4)
    site.log.gate.set()
    answers = await read_answers(reader, 20)
    await until(lambda: site.metric("tocengine_mllp_messages_in_flight") == 0)
    assert codes(answers) == [("AA", str(number)) for number in range(20)]
    assert site.log.bodies("messages") == [adt(str(number)) for number in range(20)]
    writer.close()


async def test_client_window(start: Start) -> None:
    site = await start()
    async with site.client() as client:
        replies = [reply async for reply in client.send_all([adt(str(n)) for n in range(50)], window=8)]
    assert [reply.number for reply in replies] == list(range(50))
    assert all(reply.acknowledgment and reply.acknowledgment.positive for reply in replies)


async def test_storage_down_means_no_answer_and_a_closed_connection(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + frame(adt("2")))
    await until(lambda: site.log.appending == 2)
    site.log.down = True
    site.log.gate.set()
    assert await read_answers(reader) == []
    site.log.down = False
    async with site.client() as client:  # it is not held against the sender
        answer = await client.send(adt("1"))
        assert answer is not None
        assert answer.positive
    writer.close()


async def test_a_repeated_message_is_answered_again(start: Start) -> None:
    site = await start()
    async with site.client() as client:
        first, second = await client.send(adt("7")), await client.send(adt("7"))
    assert first is not None
    assert second is not None
    assert (first.code, second.code) == ("AA", "AA")


@pytest.mark.parametrize(
    ("body", "code", "error", "reason"),
    [
        (adt("5", kind="ORU^R01"), "AR", "200", b"message_type"),
        (adt("5", version="3.0"), "AR", "203", b"version"),
        (adt("5", processing="X"), "AR", "202", b"processing_id"),
        (adt("5", sender="OTHER"), "AR", "207", b"unknown_sender"),
        (adt("5", accept="AL", kind="ORU^R01"), "CR", "200", b"message_type"),
        (adt("5") + adt("6"), "AR", "100", b"several_messages"),
    ],
)
async def test_unacceptable_messages_are_rejected_and_kept(
    start: Start, body: bytes, code: str, error: str, reason: bytes
) -> None:
    site = await start(SourceProfile(match=SenderMatch(msh3="REG", msh4="NORTH")))
    reader, writer = await site.connect()
    writer.write(frame(body))
    [answer] = await read_answers(reader, 1)
    assert codes([answer]) == [(code, "5")]
    assert answer.get("ERR-3.1") == error
    [kept] = site.log.records
    assert (kept.topic, kept.key, kept.value) == ("quarantine", reason, body)
    assert dict(kept.headers)["answered"] == code.encode()
    writer.close()


async def test_every_adt_trigger_and_test_traffic_is_taken(start: Start) -> None:
    site = await start()
    bodies = [adt("1", kind="ADT^A60"), adt("2", kind="ADT^Z99"), adt("3", processing="T"), adt("4", version="2.3")]
    async with site.client() as client:
        replies = [reply.acknowledgment async for reply in client.send_all(bodies)]
    assert [reply.code for reply in replies if reply] == ["AA"] * 4


@pytest.mark.parametrize(("policy", "code"), [("accept_and_quarantine", "AA"), ("strict", "AE")])
async def test_content_errors_by_policy(start: Start, policy: str, code: str) -> None:
    site = await start(SourceProfile(ack_policy=policy))
    async with site.client() as client:
        answer = await client.send(adt("1", more="ZBAD|x\r"))
    assert answer is not None
    assert answer.code == code
    assert site.log.bodies("quarantine") == [adt("1", more="ZBAD|x\r")]
    assert len(site.log.bodies("messages")) == (1 if code == "AA" else 0)


async def test_a_defect_of_ours_sets_the_message_aside(start: Start) -> None:
    site = await start(SourceProfile(ack_policy="strict"))
    async with site.client() as client:
        answer = await client.send(adt("1", more="ZBUG|x\r"))
    assert answer is not None
    assert answer.code == "AA"
    assert [record.key for record in site.log.records if record.topic == "quarantine"] == [b"internal"]


async def test_an_acknowledgment_is_never_answered(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1", kind="ACK")) + frame(adt("2")))
    assert codes(await read_answers(reader, 1)) == [("AA", "2")]
    assert len(site.log.bodies("quarantine")) == 1
    writer.close()


async def test_a_frame_without_end_is_rejected_and_the_next_one_taken(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(b"\x0b" + adt("1")[:90] + frame(adt("2")))
    assert codes(await read_answers(reader, 2)) == [("AR", "1"), ("AA", "2")]
    assert site.log.bodies("quarantine") == [adt("1")[:90]]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="end_missing") == 1
    writer.close()


async def test_a_missing_final_return_is_tolerated(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1"))[:-1])
    assert codes(await read_answers(reader, 1)) == [("AA", "1")]
    writer.close()


async def test_a_frame_that_goes_on_after_silence_ended_it_is_answered_once_and_all_of_it_kept(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    whole = adt("1", more="NTE|1||at 0x1C\x1c it pauses\r")
    first, rest = whole.split(b" it")
    writer.write(b"\x0b" + first)
    assert codes(await read_answers(reader, 1)) == [("AA", "1")]
    writer.write(b" it" + rest + b"\x1c\r" + frame(adt("2")))
    assert codes(await read_answers(reader, 1)) == [("AA", "2")]
    assert site.log.bodies("quarantine") == [b"it" + rest.rstrip()]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="after_end") == 1
    assert site.metric("tocengine_mllp_frames_broken_total", reason="junk") == 0
    writer.close()


async def test_three_unreadable_messages_end_the_connection(start: Start) -> None:
    site = await start(max_in_flight=1)
    reader, writer = await site.connect()
    for _ in range(5):
        writer.write(frame(b"not a message"))
    assert codes(await read_answers(reader)) == [("AR", "")] * 3
    writer.close()


async def test_junk_outside_of_frames_is_ignored(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(b"GET / HTTP/1.1\r\n\r\n" + frame(adt("1")))
    assert codes(await read_answers(reader, 1)) == [("AA", "1")]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="junk") == 1
    writer.close()


async def test_a_sender_that_closes_its_side_is_still_answered(start: Start) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + frame(adt("2")) + b"\x0b" + adt("3"))
    writer.write_eof()
    assert codes(await read_answers(reader)) == [("AA", "1"), ("AA", "2"), ("AR", "3")]
    writer.close()


async def test_draining_answers_what_is_under_way_and_nothing_else(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + b"\x0b" + adt("2"))
    await until(lambda: site.log.appending == 1)
    draining = asyncio.ensure_future(site.server.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await site.connect()
    site.log.gate.set()
    await draining
    assert codes(await read_answers(reader)) == [("AA", "1")]
    assert site.log.bodies("quarantine") == []
    writer.close()


async def test_draining_gives_up_in_time_without_an_answer(start: Start) -> None:
    site = await start()
    site.log.gate.clear()
    reader, writer = await site.connect()
    writer.write(frame(adt("1")))
    await until(lambda: site.log.appending == 1)
    await site.server.drain(0.05)
    assert await read_answers(reader) == []
    writer.close()


async def test_what_is_no_adt_can_be_ignored(start: Start) -> None:
    site = await start(SourceProfile(unsupported_types="ignore"))
    body = adt("5", kind="ORU^R01")
    async with site.client() as client:
        answer = await client.send(body)
    assert answer is not None
    assert answer.code == "AA"
    assert [(record.topic, record.value) for record in site.log.records] == [("messages", body)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
async def test_wide_characters_are_refused(start: Start, encoding: str) -> None:
    site = await start()
    reader, writer = await site.connect()
    writer.write(frame(adt("1").decode().encode(encoding)) + frame(adt("2")))
    assert codes(await read_answers(reader, 2)) == [("AR", ""), ("AA", "2")]
    assert [record.key for record in site.log.records if record.topic == "quarantine"] == [b"charset_unframeable"]
    writer.close()


async def test_release_2_commits_each_message_before_its_answer(start: Start) -> None:
    site = await start(commit_blocks=True)
    reader, writer = await site.connect()
    writer.write(frame(adt("1")) + frame(b"\x06"))
    frames = FrameReader(100_000)
    payloads: list[bytes] = []
    while len(payloads) < 2:
        payloads += [item.payload for item in frames.receive(await reader.read(65_536)) if isinstance(item, Frame)]
    assert payloads[0] == b"\x06"
    assert codes([hl7v2.parse(payloads[1])]) == [("AA", "1")]
    site.log.down = True
    writer.write(frame(adt("2")))
    assert await reader.read() == frame(b"\x15")  # and closed
    writer.close()
