"""Hostile senders against the real program: each gets its documented answer, and nobody else notices them."""

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.hostile import Hospital, first_answer, ingest_pid, latencies, metric, running, silent
from tests.acceptance.setting import Embedded
from tocengine.formats.mllp import frame
from tocengine.simulation.load.usage import peak_mb
from tocengine.simulation.receivers import Receivers

pytestmark = pytest.mark.timeout(180)


def _ingest_mb(setting: Embedded) -> float:
    return peak_mb(ingest_pid(setting))


async def test_500_silent_connections_neither_lock_out_nor_cost_memory(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    """With the limits raised so that all 500 are let in."""
    hospital = Hospital()
    async with running(folder, receivers, secret, max_connections=600, max_connections_per_address=600) as setting:
        port = setting.ports.mllp
        await latencies(port, hospital.messages(20))
        before = _ingest_mb(setting)
        async with silent(port, 500):
            await latencies(port, hospital.messages(20))
            assert await metric(setting, "tocengine_mllp_connections", feed="stj-adt") == 500
            assert _ingest_mb(setting) - before < 40


async def test_by_default_silent_connections_of_many_addresses_make_room(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    hospital = Hospital()
    async with running(folder, receivers, secret) as setting:
        async with silent(setting.ports.mllp, 500, addresses=50):
            await latencies(setting.ports.mllp, hospital.messages(5))
        counted = [
            await metric(setting, "tocengine_mllp_connections_refused_total", reason=reason)
            for reason in ("made_room", "address_limit", "limit")
        ]
        assert counted[0] >= 500 - 256
        assert counted[1:] == [0, 0]
        async with silent(setting.ports.mllp, 100):
            await latencies(setting.ports.mllp, hospital.messages(5))
        assert await metric(setting, "tocengine_mllp_connections_refused_total", reason="address_limit") >= 36


async def test_endless_large_slow_and_deaf_senders(folder: Path, receivers: Receivers, secret: bytes) -> None:
    hospital = Hospital()
    async with running(folder, receivers, secret, frame_timeout_s=1.0) as setting:
        port = setting.ports.mllp
        deaf = asyncio.create_task(_never_reads(port))
        answers = await asyncio.gather(_slow(port), _endless(port), _fifty_megabytes(port))
        assert [b"\rMSA|AR" in answer for answer in answers] == [True] * 3
        await latencies(port, hospital.messages(10))
        await deaf
        for reason, count in (("timed_out", 1), ("too_large", 2)):
            assert await metric(setting, "tocengine_mllp_frames_broken_total", reason=reason) == count
        assert await metric(setting, "tocengine_mllp_connections_refused_total", reason="answers_not_read") == 1
        assert _ingest_mb(setting) < 300


async def _slow(port: int) -> bytes:
    """One byte now and then, and never the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(first_answer(reader))
    for byte in b"\x0bMSH|^~\\&|ADTOUT|STJ|TOC|HUB|20260301||ADT^A01|S1|P|2.5.1" * 20:
        if answer.done():
            break
        writer.write(bytes([byte]))
        await asyncio.wait([answer], timeout=0.05)
    writer.close()
    return await answer


async def _endless(port: int) -> bytes:
    """No end, as fast as it is read."""
    return await _flood(port, 1 << 40)


async def _fifty_megabytes(port: int) -> bytes:
    return await _flood(port, 50 * 1024 * 1024)


async def _flood(port: int, size: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(first_answer(reader))
    writer.write(b"\x0bMSH|^~\\&|ADTOUT|STJ|TOC|HUB|20260301||ADT^A01|L1|P|2.5.1\rNTE|1||")
    sent = 0
    while sent < size and not answer.done():
        writer.write(b"x" * 65_536)
        sent += 65_536
        try:
            await writer.drain()
        except ConnectionError:
            break
    found = await answer
    writer.close()
    return found


async def _never_reads(port: int) -> None:
    """Asks without end, each question with a long control id, and never takes an answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    body = b"MSH|^~\\&|ADTOUT|STJ|TOC|HUB|20260301||ORU^R01|" + b"9" * 60_000 + b"|P|2.5.1\r"
    async with asyncio.timeout(60):
        try:
            while True:
                writer.write(frame(body))
                await writer.drain()
        except ConnectionError:
            return
