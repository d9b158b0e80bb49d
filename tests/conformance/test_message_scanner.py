"""Reading messages of the log again: a stretch of time, whichever log is configured, beside whoever reads it."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.services.fixtures import settings_for
from tests.services.kafka import KafkaCluster
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import Config, EventLogSettings, FeedSettings, KeySettings
from tocengine.eventlog import Topic, open_event_log, open_scanner
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.model.ids import FacilityId, FeedName, MessageId
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.profile import SendingFacility, SourceProfile
from tocengine.ports import EventLog
from tocengine.postgres import Pool
from tocengine.reprocessing.lookup import find
from tocengine.reprocessing.postgres import Cause, Request, result_of
from tocengine.reprocessing.replay import Stretch, replay
from tocengine.reprocessing.workshop import workshop
from tocengine.work_items.postgres import PostgresWorkItems

RECORDS = CloudEventRecords(KeyHasher(b"0123456789abcdef"))
BODY = (
    b"MSH|^~\\&|EPICADT|STJ|TOC|HIE|20260301100000-0500||ADT^A03|%d|P|2.5.1\r"
    b"PID|1||00%d^^^STJ^MR||LOW^ANN\rPV1|1|I|3N||||||||||||||||V%d^^^STJ|||||||||||||||||HHS\r"
)


@pytest.fixture(params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest) -> EventLogSettings:
    if request.param == "postgres":
        return EventLogSettings()
    cluster: KafkaCluster = request.getfixturevalue("kafka")
    return settings_for(cluster)


def message(number: int, feed: str = "stj-adt") -> Message:
    return Message(
        message_id=MessageId(uuid4()),
        feed=FeedName(feed),
        facility=FacilityId("stj"),
        content_type=ContentType.HL7V2,
        control_id=str(number),
        received_at=datetime.now(UTC),
        body=BODY % (number, number + 1, number),  # nobody has a record number that is all zeros
    )


async def append(log: EventLog, count: int, feed: str = "stj-adt", first: int = 0) -> list[Message]:
    messages = [message(first + number, feed) for number in range(count)]
    await log.append([RECORDS.message(each) for each in messages])
    return messages


async def moment() -> datetime:
    """A time after all that was appended and before all that will be, in the milliseconds in which a log may count."""
    now = datetime.now(UTC)
    at = now.replace(microsecond=now.microsecond // 1000 * 1000) + timedelta(milliseconds=1)
    while datetime.now(UTC) < at + timedelta(milliseconds=1):  # noqa: ASYNC110 - for the clock, and for nothing else
        await asyncio.sleep(0)
    return at


async def read(
    settings: EventLogSettings, dsn: str, since: datetime, until: datetime, portion: int = 7
) -> list[list[Message]]:
    portions = open_scanner(settings, dsn).messages(since, until, portion)
    return [[CloudEventReader().message(record) for record in records] async for records in portions]


async def test_a_stretch_is_read_in_portions_and_in_order(settings: EventLogSettings, postgres_dsn: str) -> None:
    log = await open_event_log(settings, postgres_dsn, topics=[Topic.MESSAGES])
    try:
        await append(log, 5)
        since = await moment()
        one, other = await append(log, 20, "a"), await append(log, 20, "b")
        until = await moment()
        await append(log, 5)
        portions = await read(settings, postgres_dsn, since, until)
        assert max(map(len, portions)) <= 7
        for feed, sent in (("a", one), ("b", other)):
            got = [each for portion in portions for each in portion if each.feed == feed]
            assert [each.message_id for each in got] == [each.message_id for each in sent]
            assert [(each.body, each.received_at, each.facility) for each in got] == [
                (each.body, each.received_at, each.facility) for each in sent
            ]
        assert sum(map(len, portions)) == 40
        assert await read(settings, postgres_dsn, until + timedelta(hours=1), until + timedelta(hours=2)) == []
        assert sum(map(len, await read(settings, postgres_dsn, since - timedelta(days=1), until + timedelta(1)))) == 50
        wanted = [one[3], other[19]]
        scanner = open_scanner(settings, postgres_dsn)
        found = await find(scanner, {each.message_id: each.received_at for each in [*wanted, message(99)]})
        assert set(found) == {each.message_id for each in wanted}
    finally:
        await log.close()


async def test_an_empty_log_has_nothing_to_read(settings: EventLogSettings, postgres_dsn: str) -> None:
    log = await open_event_log(settings, postgres_dsn, topics=[Topic.MESSAGES])
    await log.close()
    now = datetime.now(UTC)
    assert await read(settings, postgres_dsn, now - timedelta(days=1), now) == []


async def test_a_command_replays_and_publishes_where_no_engine_runs(
    settings: EventLogSettings, postgres_dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PATIENT_HASH", "0123456789abcdef0123456789abcdef")
    config = Config(
        event_log=settings,
        keys=KeySettings(patient_hash="env:TEST_PATIENT_HASH"),
        facilities=(SendingFacility(id=FacilityId("stj"), name="STJ"),),
        feeds=(FeedSettings(name=FeedName("stj-adt"), facility=FacilityId("stj"), profile="stj"),),
        profiles={"stj": SourceProfile(disposition_map={"HHS": "06"})},
    )
    log = await open_event_log(settings, postgres_dsn, topics=[Topic.MESSAGES])
    messages = await append(log, 12)
    broken = message(50)
    await log.append([RECORDS.quarantined(broken, Problem(reason="r", text="t"), "AA")])
    await log.close()  # the office is free again
    request = Request(run_id=uuid4(), cause=Cause.REPLAY, by="test", at=datetime.now(UTC))
    async with workshop(config, pool, postgres_dsn, PostgresAuditTrail(), PostgresWorkItems()) as shop:
        stretch = Stretch(since=messages[0].received_at, until=messages[9].received_at, feed="stj-adt")
        flow = shop.publisher.flow
        tally = await replay(
            shop.scanner, shop.reprocessor, stretch, request, flow, lambda tally, at: None, shop.ignores
        )
        assert (tally.messages, tally.events) == (9, 9)
        await shop.publisher.finish()
        assert await shop.publisher.tracked(request) == 9  # nobody routes
    assert (await result_of(pool, request)).untracked == 9
    assert await pool.fetchval("select count(*) from renormalized where value is null") == 9
    assert {row["revision"] for row in await pool.fetch("select revision from renormalized")} == {1}
