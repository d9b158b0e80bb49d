"""An event that makes routing fail every time is set aside with a work item, and the rest goes on."""

from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest

from tests.acceptance.load import arrived
from tests.acceptance.setting import Setting
from tests.acceptance.test_main_job import day_of
from tocengine.config_file import load_config, sources
from tocengine.credentials import patient_hash_key
from tocengine.embedded import database
from tocengine.eventlog import Topic, open_event_log
from tocengine.eventlog.records import CloudEventRecords, KeyHasher
from tocengine.model.ids import FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.simulation.senders import MllpSender

pytestmark = pytest.mark.timeout(180)


async def test_a_poisonous_event_is_set_aside_and_the_rest_goes_on(setting: Setting) -> None:
    day = day_of(1)
    await setting.apply()
    await _append_poison(setting, day.posts[0].body)
    await setting.start()
    async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
        for post in day.posts:
            if b"ADT^A0" in post.body:
                assert await sender.send(post.body) == "AA"
    expected = day.expected_until(2)
    await arrived(expected, setting.receivers, 30)
    assert setting.receivers.accepted == Counter(expected)
    kinds = [item["kind"] for item in await setting.engine.ask("work-items", "list")]
    assert "EVENT_SET_ASIDE" in kinds
    (aside,) = [row for row in await setting.engine.ask("quarantine", "list") if row["stage"] == "track"]
    assert aside["control_id"] == "POISON"


async def _append_poison(setting: Setting, body: bytes) -> None:
    """Puts an event into the log whose visit number no text column takes, as a door with a defect would."""
    config = load_config(setting.folder / "tocengine.toml")
    source = sources(config)[FeedName("stj-adt")]
    message = Message(
        message_id=MessageId(derive("poison")),
        feed=source.feed,
        facility=source.facility.id,
        content_type=ContentType.HL7V2,
        control_id="POISON",
        received_at=datetime.now(UTC),
        body=body,
    )
    (record,) = HL7v2Normalizer(source).normalize(message)
    assert record.summary.visit is not None
    visit = msgspec.structs.replace(record.summary.visit, value="V\0")
    bad = msgspec.structs.replace(record, summary=msgspec.structs.replace(record.summary, visit=visit))
    async with database(config) as dsn:
        log = await open_event_log(config.event_log, dsn, topics=[Topic.EVENTS])
        try:
            await log.append(CloudEventRecords(KeyHasher(patient_hash_key(config))).events(message, [bad]))
        finally:
            await log.close()
