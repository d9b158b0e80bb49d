"""The main job through the real program, on both event logs: from a message to a delivered, audited notice."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
import orjson
import pytest

from tests.acceptance.load import Load, arrived
from tests.acceptance.setting import Embedded, Setting, embedded
from tocengine.simulation.day import SHIFTS, Day, DayWriter, Expected
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender, send_shift

pytestmark = pytest.mark.timeout(180)


def day_of(visits: int = 33) -> Day:
    """A day that began nine hours ago."""
    start = datetime.now(ZoneInfo("America/New_York")).replace(microsecond=0) - timedelta(hours=9)
    return DayWriter(11, start).write(visits)


async def _play(setting: Setting, day: Day) -> Counter[str]:
    """Sends the day; each shift begins when the notices of the one before are there."""
    answers: Counter[str] = Counter()
    for shift in range(len(SHIFTS)):
        posts = [post for post in day.posts if post.shift == shift]
        answers += await send_shift(posts, setting.ports.mllp, setting.ports.http, lambda _code: None)
        await arrived(day.expected_until(shift), setting.receivers, 30)
    return answers


async def test_a_day_arrives_exactly_once_and_leaves_proof(setting: Setting) -> None:
    day = day_of()
    await setting.apply(day.panels)
    await setting.start()
    answers = await _play(setting, day)
    assert answers == {"AA": sum(post.feed == "stj-adt" for post in day.posts), "202": 3}
    assert setting.receivers.accepted == Counter(day.expected_until(len(SHIFTS)))
    assert not setting.receivers.refused
    (status,) = await setting.engine.ask("status")
    assert isinstance(status["quarantine"], list)
    assert [row["reason"] for row in status["quarantine"]] == ["visit_key_missing"]
    (audit,) = await setting.engine.ask("audit", "verify")
    assert (audit["intact"], audit["findings"]) == (True, [])
    await _metrics_count_the_day(setting, day)
    _nobody_is_named_in(setting, day)
    assert await setting.stop() == [0] * len(setting.processes)


async def _metrics_count_the_day(setting: Setting, day: Day) -> None:
    pages = []
    async with aiohttp.ClientSession() as session:
        for process in setting.processes.values():
            async with session.get(f"{process.admin}/metrics") as response:
                pages.append(await response.text())
    text = "\n".join(pages)
    received = re.findall(r'^tocengine_messages_received_total\{feed="stj-adt"[^}]*\} (\S+)', text, re.M)
    assert sum(map(float, received)) == sum(post.feed == "stj-adt" for post in day.posts)
    for name in ("routing_lag_records", "notices_open", "delivery_attempts_total", "log_append_seconds_count"):
        assert f"tocengine_{name}" in text


def _nobody_is_named_in(setting: Setting, day: Day) -> None:
    """No name, number, birth date, phone or street of a patient in any log."""
    words = set()
    for post in day.posts:
        for line in post.body.decode().split("\r"):
            if line.startswith("PID"):
                fields = line.split("|")
                family, given = fields[5].split("^")[:2]
                words |= {fields[3].split("^")[0], family, given, fields[7], fields[11].split("^")[0]}
    words.discard("")
    for process in setting.processes.values():
        log = process.log.read_text()
        assert all(line.startswith("{") for line in log.splitlines() if line)
        found = {word for word in words if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", log)}
        assert not found


@pytest.mark.java
async def test_the_hl7_validator_finds_no_error_in_what_a_partner_got(
    folder: Path, receivers: Receivers, secret: bytes, fhir_validate: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    day = day_of(22)
    await setting.apply(day.panels)
    try:
        await setting.start()
        await _play(setting, day)
    finally:
        await setting.stop()
    bundles = {notice_id: body for notice_id, body in receivers.bodies.items() if b'"resourceType":"Bundle"' in body}
    assert len(bundles) == sum(notice.recipient == "lakeview" for _, notice in day.expected)
    for notice_id, body in bundles.items():
        (tmp_path / f"{notice_id}.json").write_bytes(body)
    assert fhir_validate(tmp_path) == []


async def test_a_message_is_traced_from_its_receipt_to_each_attempt(setting: Setting) -> None:
    day = day_of(11)
    await setting.apply(day.panels)
    await setting.start()
    await _play(setting, day)
    (traced,) = await setting.engine.ask("trace", "stj-adt:J000002")
    parts = {name: traced[name] for name in ("messages", "transitions", "decisions", "notices", "attempts", "audit")}
    assert all(parts.values())
    status, out, _ = await setting.engine.call("trace", "stj-adt:J000002")
    assert status == 0
    assert "INPATIENT_DISCHARGE NEW" in out
    assert "sunnyside-hook no. 1: delivered (HTTP 200)" in out
    status, _, error = await setting.engine.call("trace", "stj-adt:nothing")
    assert status == 1
    assert "no message" in error


async def test_a_resend_after_a_crash_is_answered_and_changes_nothing(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    day = day_of(1)
    await setting.apply()
    try:
        await setting.start()
        (admit, *_) = [post.body for post in day.posts if b"ADT^A01" in post.body]
        async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
            assert await sender.send(admit) == "AA"
            await arrived(day.expected_until(0), receivers, 20)
            setting.kill("ingest")
            assert await sender.send(admit) == "AA"
            assert await sender.send(admit) == "AA"
        await _tracked(setting, "MESSAGE_REPEATED", 2)
    finally:
        await setting.stop()
    assert receivers.accepted == Counter(day.expected_until(0))


async def _tracked(setting: Setting, action: str, times: int) -> None:
    """Waits until the audit log says so."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (traced,) = await setting.engine.ask("trace", "stj-adt:J000001")
        rows = traced["audit"]
        assert isinstance(rows, list)
        if sum(row["action"] == action for row in rows) >= times:
            return
    raise AssertionError(f"{action} was not recorded {times} times")


async def test_a_receiver_that_was_down_gets_all_of_it_in_order(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    down = True
    receivers.answer = lambda _notice: 503 if down else 200
    await setting.apply()
    try:
        await setting.start()
        async with Load(setting.ports.mllp) as load:
            await load.until_acknowledged(120)
        assert not receivers.arrivals
        assert receivers.attempts
        down = False
        tally = await arrived(load.expected, receivers)
    finally:
        await setting.stop()
    assert (tally.lost, tally.duplicated, tally.repeated, tally.disordered) == (0, 0, 0, 0)


async def test_a_stop_under_load_loses_nothing(folder: Path, receivers: Receivers, secret: bytes) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    await setting.apply()
    try:
        await setting.start()
        async with Load(setting.ports.mllp) as load:
            await load.until_acknowledged(60)
            began = time.monotonic()
            assert await setting.stop() == [0]
            assert time.monotonic() - began < 10
            await setting.start()
            await load.until_acknowledged(60)
        tally = await arrived(load.expected, receivers)
    finally:
        await setting.stop()
    assert (tally.lost, tally.duplicated, tally.disordered) == (0, 0, 0)


async def test_a_feed_in_shadow_does_everything_except_sending(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    path = folder / "tocengine.toml"
    path.write_text(path.read_text().replace('profile = "stj"', 'profile = "stj"\nshadow = true'))
    day = day_of(1)
    await setting.apply()
    try:
        await setting.start()
        async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
            assert await sender.send(day.posts[0].body) == "AA"
        reasons: list[object] = []
        async with asyncio.timeout(20):
            while not reasons:
                (status,) = await setting.engine.ask("status")
                assert isinstance(status["unsent"], list)
                reasons = [row["reason"] for row in status["unsent"]]
    finally:
        await setting.stop()
    assert reasons == ["SHADOW"]
    assert not receivers.arrivals


async def test_a_paused_endpoint_is_resumed_by_command(folder: Path, receivers: Receivers, secret: bytes) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    refusing = True
    receivers.answer = lambda _notice: 401 if refusing else 200
    day = day_of(1)
    await setting.apply()
    try:
        await setting.start()
        async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
            assert await sender.send(day.posts[0].body) == "AA"
        async with asyncio.timeout(20):
            while True:
                lines = await setting.engine.ask("endpoints", "list")
                if "PAUSED" in {line["status"] for line in lines}:
                    break
        kinds = {item["kind"] for item in await setting.engine.ask("work-items", "list")}
        assert "ENDPOINT_PAUSED" in kinds
        refusing = False
        assert (await setting.engine.call("endpoints", "resume", "patel-hook"))[0] == 0
        tally = await arrived([Expected("patel", "V000001", "INPATIENT_ADMIT")], receivers, 20)
    finally:
        await setting.stop()
    assert (tally.lost, tally.repeated) == (0, 0)


async def test_commands_say_what_is_wrong_by_their_exit_status(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    setting: Embedded = embedded(folder, receivers, secret)
    path = folder / "tocengine.toml"
    good = path.read_text()
    path.write_text(good.replace("[admin]", "[admin]\nlisten_on = 1"))
    status, _, error = await setting.engine.call("config", "check")
    assert status == 2
    assert re.search(r"tocengine\.toml:\d+: .*listen_on.*listen", error)
    path.write_text(good)
    message = folder / "message.hl7"
    message.write_bytes(day_of(1).posts[0].body)
    status, out, _ = await setting.engine.call("explain", str(message), "--json")
    explained = orjson.loads(out)
    assert (status, explained["trigger"], explained["handled"]) == (0, "A01", True)
    sources = {element["path"]: element["fields"] for element in explained["elements"]}
    assert any("PV1-44" in place for place in sources["summary.encounter_facts.admitted.text"])
    status, _, error = await setting.engine.call("send", str(message), "--to", f"127.0.0.1:{setting.ports.mllp}")
    assert status == 3
    assert "cannot connect" in error
