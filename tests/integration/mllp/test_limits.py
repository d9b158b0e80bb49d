"""The limits of an MLLP feed: each with what its sender sees and the metric that counts it."""

import asyncio

import pytest

from tests.integration.mllp.setting import Start, adt, codes, read_answers, until
from tocengine.formats.mllp import frame


async def test_an_oversize_frame_is_rejected_and_the_connection_closed(start: Start) -> None:
    site = await start(max_frame_bytes=1000)
    reader, writer = await site.connect()
    writer.write(b"\x0b" + adt("1") + b"x" * 5000)
    assert codes(await read_answers(reader)) == [("AR", "1")]
    assert len(site.log.bodies("quarantine")[0]) == 1000
    writer.close()


async def test_a_slow_sender_is_cut_off(start: Start) -> None:
    site = await start(frame_timeout_s=0.1)
    reader, writer = await site.connect()
    writer.write(b"\x0b" + adt("1"))
    assert codes(await read_answers(reader)) == [("AR", "1")]
    assert site.metric("tocengine_mllp_frames_broken_total", reason="timed_out") == 1
    writer.close()


async def test_an_idle_sender_is_let_go(start: Start) -> None:
    site = await start(idle_timeout_s=0.1)
    reader, writer = await site.connect()
    assert await read_answers(reader) == []
    assert site.metric("tocengine_mllp_connections_refused_total", reason="idle") == 1
    writer.close()


@pytest.mark.parametrize("babble", [b"\r\n", b"junk\x1c\r", frame(b"\x06")])
async def test_a_sender_that_sends_no_message_is_idle_whatever_else_it_sends(start: Start, babble: bytes) -> None:
    site = await start(idle_timeout_s=0.2)
    reader, writer = await site.connect()
    ended = asyncio.create_task(read_answers(reader))
    while not ended.done():
        writer.write(babble)
        await asyncio.wait([ended], timeout=0.02)
    assert await ended == []
    assert site.metric("tocengine_mllp_connections_refused_total", reason="idle") == 1
    writer.close()


async def test_connections_beyond_the_limit_are_refused(start: Start) -> None:
    site = await start(max_connections=1)
    async with site.client() as client:
        await client.send(adt("1"))
        reader, writer = await site.connect()
        assert await read_answers(reader) == []
        writer.close()
        answer = await client.send(adt("2"))
        assert answer is not None
    assert site.metric("tocengine_mllp_connections_refused_total", reason="limit") == 1


async def test_silent_connections_make_room_and_lock_nobody_out(start: Start) -> None:
    site = await start(max_connections=3)
    async with site.client() as working:
        await working.send(adt("1"))
        silent = [await site.connect() for _ in range(10)]
        async with site.client() as late:
            answer = await late.send(adt("2"))
            assert answer is not None
        answer = await working.send(adt("3"))
        assert answer is not None
        assert site.metric("tocengine_mllp_connections") <= 3
        for _, writer in silent:
            writer.close()
    assert site.metric("tocengine_mllp_connections_refused_total", reason="made_room") == 9


async def test_connections_of_one_address_are_bounded(start: Start) -> None:
    site = await start(max_connections_per_address=2)
    one, two = await site.connect(), await site.connect()
    reader, writer = await site.connect()
    assert await read_answers(reader) == []
    writer.close()
    other, other_writer = await asyncio.open_connection("127.0.0.1", site.server.port, local_addr=("127.0.0.9", 0))
    other_writer.write(frame(adt("1")))
    assert codes(await read_answers(other, 1)) == [("AA", "1")]
    one[1].close()
    await until(lambda: len(site.server.connections) == 2)
    again, again_writer = await site.connect()
    again_writer.write(frame(adt("2")))
    assert codes(await read_answers(again, 1)) == [("AA", "2")]
    assert site.metric("tocengine_mllp_connections_refused_total", reason="address_limit") == 1
    for each in (two[1], other_writer, again_writer):
        each.close()


async def test_only_allowed_addresses_come_in(start: Start) -> None:
    site = await start(allowed_networks=("127.0.0.8/29",))
    reader, writer = await site.connect()
    assert await read_answers(reader) == []
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port, local_addr=("127.0.0.9", 0))
    writer.write(frame(adt("1")))
    assert codes(await read_answers(reader, 1)) == [("AA", "1")]
    writer.close()
    assert site.metric("tocengine_mllp_connections_refused_total", reason="address_not_allowed") == 1


async def test_unfinished_messages_of_all_together_are_bounded_and_still_arrive(start: Start) -> None:
    """Twelve senders begin 300 kB each; about 1 MB is held; all arrive when the oldest ends."""
    site = await start(max_held_bytes=1024 * 1024)
    large = [adt(str(number), more="NTE|1||" + "x" * 300_000 + "\r") for number in range(12)]
    senders = [await site.connect() for _ in large]
    for body, (_, writer) in zip(large, senders, strict=True):
        writer.write(b"\x0b" + body)
    await until(lambda: site.metric("tocengine_mllp_held_bytes") > 1024 * 1024)
    with pytest.raises(TimeoutError):  # what one read brings and a fair share each may come on top
        await until(lambda: site.metric("tocengine_mllp_held_bytes") > 2.5 * 1024 * 1024, 0.3)
    for _, writer in senders:
        writer.write(b"\x1c\r")
    answers = await asyncio.gather(*(read_answers(reader, 1) for reader, _ in senders))
    assert [codes(each) for each in answers] == [[("AA", str(number))] for number in range(12)]
    await until(lambda: site.metric("tocengine_mllp_held_bytes") == 0)
    for _, writer in senders:
        writer.close()


async def test_a_sender_that_never_reads_is_slowed_and_then_dropped(start: Start) -> None:
    site = await start(frame_timeout_s=0.5)
    _, writer = await site.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def flood() -> None:
        number = 0
        while True:
            number += 1
            writer.write(frame(adt(f"{number}-{'9' * 4000}")))
            await writer.drain()

    with pytest.raises(ConnectionError):
        async with asyncio.timeout(30):
            await flood()
    assert site.metric("tocengine_mllp_connections_refused_total", reason="answers_not_read") == 1
