"""Codes nobody knows and messages nobody could read: kept, asked about once, taken up when they can be."""

import msgspec

from tests.integration.scenarios.hospital import PATEL, Hospital, Said
from tests.integration.scenarios.setting import Setting
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.errors import RefusedError
from tocengine.eventlog.memory import MemoryMessageScanner
from tocengine.eventlog.records import CloudEventReader
from tocengine.formats.packing import unpack
from tocengine.model.facts import CareSetting
from tocengine.model.ids import FacilityId
from tocengine.model.message import Message
from tocengine.model.profile import SourceProfile
from tocengine.reprocessing.postgres import Cause, result_of
from tocengine.reprocessing.quarantine import Quarantine, Retried
from tocengine.routing.postgres import SetAside, store_set_aside
from tocengine.work_items.postgres import PostgresWorkItems


async def disposition(town: Setting, visit: str = "V100") -> tuple[str | None, str]:
    """Code and care setting that stand for a visit."""
    body = await town.pool.fetchval("select body from encounter where visit_number = $1", visit)
    found = msgspec.json.decode(unpack(body))["folded"]["encounter"].get("disposition", {})
    return found.get("code"), found.get("care_setting", CareSetting.UNKNOWN)


async def test_a_code_nobody_knows_is_asked_about_once_per_feed_and_never_guessed(
    town: Setting, hospital: Hospital
) -> None:
    """Scenario 15: one hospital maps HHS, the other does not."""
    town.feed(SourceProfile(disposition_map={"HHS": "06"}), "a")
    town.feed(SourceProfile(), "b")
    await town.hear(hospital.says("A03", "10:00", visit="V1", disposition="HHS", destination="MEADOW"), feed="a")
    told = await town.hear(hospital.says("A03", "11:00", visit="V2", mrn="77", disposition="HHS", pcp=PATEL), feed="b")
    await town.hear(hospital.says("A03", "11:30", visit="V3", mrn="78", disposition="HHS"), feed="b")
    assert await disposition(town, "V1") == ("06", CareSetting.HOME_HEALTH)
    assert await disposition(town, "V2") == (None, CareSetting.UNKNOWN)
    assert told == [("patel", "NEW", "INPATIENT_DISCHARGE")]
    rows = await town.pool.fetch("select subject from work_item where kind = 'CODE_UNMAPPED' and closed_at is null")
    assert [row["subject"] for row in rows] == ["b|disposition|HHS"]
    assert await town.pool.fetchval("select count(*) from code_unmapped where feed = 'b' and settled_at is null") == 2


async def test_free_text_in_place_of_a_code_leaves_no_trace_of_it(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A03", "10:00", disposition="HOME WITH MARY ONEIL"))
    rows = await town.pool.fetch("select subject, summary from work_item where kind = 'CODE_UNMAPPED'")
    assert [row["subject"] for row in rows] == ["stj-adt|disposition|?"]
    assert "MARY" not in rows[0]["summary"]


async def test_what_was_quarantined_and_is_sent_again_after_the_fix_is_no_repeat(
    town: Setting, hospital: Hospital
) -> None:
    admission = hospital.says("A01", "10:00", pv1={50: "ALT1", 19: ""})
    assert await town.hear(admission) == []
    assert await town.work() == ["MESSAGE_QUARANTINED"]
    town.feed(SourceProfile(visit_key="PV1-50"))
    told = await town.hear(admission.arriving("10:05"))
    assert ("haven", "NEW", "INPATIENT_ADMIT") in told
    assert await town.work() == []
    row = await town.pool.fetchrow("select state, settled_by from quarantine")
    assert row is not None
    assert tuple(row) == ("RETRIED", "tocengine")
    assert await town.hear(admission.arriving("10:06")) == []  # from now on it is one


async def test_a_quarantined_message_that_comes_again_as_it_is_opens_nothing(town: Setting, hospital: Hospital) -> None:
    broken = hospital.says("A01", "10:00", pv1={19: ""})
    await town.hear(broken, broken)
    await town.pool.execute("update quarantine set state = 'DISCARDED'")
    await town.hear(broken)
    assert await town.pool.fetchval("select state from quarantine") == "DISCARDED"
    assert await town.pool.fetchval("select count(*) from message_seen") == 1


async def snapshot_of_everything(town: Setting) -> list[tuple[object, ...]]:
    """What a replay that changes nothing must leave as it is."""
    rows = []
    for query in (
        "select encounter_id, state, body, revision from encounter order by 1",
        "select notice_id, state, body from notice order by 1",
        "select decision_id, reason, status from decision order by 1",
        "select transition_id, kind, status from transition order by 1",
        "select message_id, revision, part from message_seen order by 1, 2, 3",
        "select work_item_id, closed_at from work_item order by 1",
    ):
        rows += [tuple(row) for row in await town.pool.fetch(query)]
    return rows


async def a_day(town: Setting, hospital: Hospital) -> None:
    """Messages of every kind: a stay, a statement about the person, a stray patient, a merge, a broken one."""
    await town.hear(
        hospital.says("A04", "09:00", cls="E", pcp=PATEL),
        hospital.says("A06", "10:00"),
        hospital.says("A08", "10:30", mrn="999", name="STRAY^PERSON"),
        hospital.says("A31", "11:00", visit="", pcp=PATEL),
        hospital.says("A01", "11:30", visit="V200", mrn="5551"),
        hospital.merges("11:45", into="7770", prior="5551"),
        hospital.says("A01", "12:00", pv1={19: ""}),
        hospital.says("A20", "12:10"),
        hospital.says("A03", "13:00", disposition="HHS", destination="MEADOW"),
    )
    await town.deliver()


async def test_a_replay_without_a_change_changes_nothing(town: Setting, hospital: Hospital) -> None:
    await a_day(town, hospital)
    before = await snapshot_of_everything(town)
    tally, told = await town.replay()
    assert (tally.messages, tally.changed, tally.unreadable) == (9, 0, 1)
    assert told == []
    assert await snapshot_of_everything(town) == before


async def test_a_replay_after_a_fix_of_the_disposition_map_tells_exactly_the_corrections(
    town: Setting, hospital: Hospital
) -> None:
    await a_day(town, hospital)
    town.feed(SourceProfile(disposition_map={"HHS": "03"}))
    tally, told = await town.replay(dry_run=True)
    assert (tally.changed, tally.events, told) == (1, 1, [])
    assert await disposition(town) == (None, CareSetting.UNKNOWN)
    tally, told = await town.replay()
    assert tally.changed == 1
    corrected = "INPATIENT_DISCHARGE_CORRECTED"
    assert sorted(told) == [(name, "UPDATED", corrected) for name in ("haven", "meadow", "patel")]
    result = await result_of(town.pool, town.asked)
    assert result.untracked == 0
    assert result.transitions == [{"kind": corrected, "status": "UPDATED", "count": 1}]
    assert {"status": "UPDATED", "count": 3} in result.notices
    assert await disposition(town) == ("03", CareSetting.SNF)
    assert "CODE_UNMAPPED" not in await town.work()
    row = await town.pool.fetchrow("select revision, cause, requested_by, value from renormalized")
    assert row is not None
    assert tuple(row) == (1, "REPLAY", "test", None)
    await town.deliver()
    tally, told = await town.replay()
    assert (tally.changed, told) == (0, [])


async def test_a_replay_passes_by_what_the_feed_ignores(town: Setting, hospital: Hospital) -> None:
    admission = hospital.says("A01", "10:00")
    result = Said(admission.body.replace(b"||ADT^A01|", b"||ORU^R01|"), admission.received)
    assert result.body != admission.body
    await town.receive(admission, result)
    tally, _ = await town.replay(dry_run=True)
    assert (tally.messages, tally.ignored, tally.unreadable) == (2, 0, 1)
    town.feed(SourceProfile(unsupported_types="ignore"))
    tally, _ = await town.replay(dry_run=True)
    assert (tally.messages, tally.ignored, tally.unreadable) == (2, 1, 0)


async def test_what_is_on_its_way_is_not_made_twice(town: Setting, hospital: Hospital) -> None:
    """A replay that was interrupted before its events were published, and run again."""
    await a_day(town, hospital)
    town.feed(SourceProfile(disposition_map={"HHS": "03"}))
    publish, town.publish = town.publish, _later  # type: ignore[method-assign]
    assert (await town.replay())[0].changed == 1
    assert (await town.replay())[0].changed == 0
    town.publish = publish  # type: ignore[method-assign]
    await town.publish()
    assert len(await town.route()) == 3
    assert await town.pool.fetchval("select count(*) from renormalized") == 1


async def _later() -> None:
    """Nothing is published."""


async def test_mapping_a_code_takes_up_what_waited_for_it(town: Setting, hospital: Hospital) -> None:
    town.feed(SourceProfile(), "b")
    await town.hear(hospital.says("A03", "11:00", disposition="HHS", pcp=PATEL), feed="b")
    await town.hear(hospital.says("A03", "11:30", visit="V2", mrn="78", disposition="XYZ"), feed="b")
    await town.deliver()
    told = await town.map_code("b", "disposition", "HHS", "06")
    assert sorted(told) == [(name, "UPDATED", "INPATIENT_DISCHARGE_CORRECTED") for name in ("haven", "patel")]
    assert await disposition(town) == ("06", CareSetting.HOME_HEALTH)
    assert await disposition(town, "V2") == (None, CareSetting.UNKNOWN)
    rows = await town.pool.fetch("select subject from work_item where kind = 'CODE_UNMAPPED' and closed_at is null")
    assert [row["subject"] for row in rows] == ["b|disposition|XYZ"]
    await town.deliver()
    told = await town.map_code("b", "disposition", "HHS", None)
    assert sorted(told) == [(name, "UPDATED", "INPATIENT_DISCHARGE_CORRECTED") for name in ("haven", "patel")]
    assert await disposition(town) == (None, CareSetting.UNKNOWN)
    assert await town.pool.fetchval("select count(*) from code_unmapped where settled_at is null") == 2


async def test_what_a_profile_maps_wins_over_what_was_mapped_while_the_engine_ran(
    town: Setting, hospital: Hospital
) -> None:
    await town.hear(hospital.says("A03", "11:00", disposition="HHS"))
    await town.map_code("stj-adt", "disposition", "HHS", "06")
    town.feed(SourceProfile(disposition_map={"HHS": "03"}))
    await town.replay()
    assert await disposition(town) == ("03", CareSetting.SNF)


class Shelf:
    """The quarantine as commands use it."""

    def __init__(self, town: Setting) -> None:
        self.town = town

    async def retry(self) -> list[Retried]:
        request = self.town.request(Cause.QUARANTINE)
        ids = [row["message_id"] for row in await self.town.pool.fetch("select message_id from quarantine")]
        return await (await self.quarantine()).retry(ids, request)

    async def quarantine(self) -> Quarantine:
        scanner = MemoryMessageScanner(self.town.log)

        def readmit(message: Message) -> tuple[Message, RefusedError | None]:
            return msgspec.structs.replace(message, facility=FacilityId("stj")), None

        return Quarantine(await self.town.reprocessor(), scanner, readmit, PostgresAuditTrail(), PostgresWorkItems())


async def test_a_retry_after_a_fix_becomes_an_event_with_its_lineage(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", pv1={50: "ALT1", 19: ""}))
    shelf = Shelf(town)
    (failed,) = await shelf.retry()
    assert failed.problem is not None
    assert await town.pool.fetchval("select retries from quarantine where state = 'OPEN'") == 1
    town.feed(SourceProfile(visit_key="PV1-50"))
    (done,) = await shelf.retry()
    assert (done.problem, list(done.revisions)) == (None, [0])
    assert await town.work() == []
    await town.publish()
    assert ("haven", "NEW", "INPATIENT_ADMIT") in await town.route()
    assert await shelf.retry() == []
    row = await town.pool.fetchrow("select state, settled_by from quarantine")
    assert row is not None
    assert tuple(row) == ("RETRIED", "test")
    audit = await town.pool.fetch("select actor from audit_record where action = 'QUARANTINE_RETRIED'")
    assert [each["actor"] for each in audit] == ["test", "test"]
    cause = await town.pool.fetchval(
        "select r.cause from renormalized r join quarantine using (message_id)"
        " join message_seen s on s.message_id = r.message_id and s.revision = r.revision"
    )
    assert cause == "QUARANTINE"


async def test_what_was_discarded_stays_out_of_every_replay(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", pv1={50: "ALT1", 19: ""}))
    message_id = await town.pool.fetchval("select message_id from quarantine")
    quarantine = await Shelf(town).quarantine()
    assert await quarantine.discard([message_id], "a test of the sender", "me", town.now) == 1
    assert await quarantine.discard([message_id], "again", "me", town.now) == 0
    assert await town.work() == []
    town.feed(SourceProfile(visit_key="PV1-50"))
    tally, told = await town.replay()
    assert (tally.changed, told) == (0, [])
    assert await Shelf(town).retry() == []
    audit = await town.pool.fetchrow("select actor, detail from audit_record where action = 'QUARANTINE_DISCARDED'")
    assert audit is not None
    assert audit["actor"] == "me"
    assert b"a test of the sender" in audit["detail"]


async def test_an_event_that_could_not_be_tracked_is_normalized_from_its_message(
    town: Setting, hospital: Hospital
) -> None:
    """Set aside by a defect that has been mended since."""
    admission = hospital.says("A01", "10:00")
    await town.receive(admission)
    record = town.log.of_topic("toc.events.v1")[0]
    event = CloudEventReader().event(record).summary
    row = SetAside(
        message_id=event.message_id, stage="track", feed="stj-adt", control_id="c", reason="not_routable",
        content_type="application/cloudevents+json", body=record.value, received_at=event.received_at,
        day=event.message_day,
    )  # fmt: skip
    async with town.pool.acquire() as connection:
        await store_set_aside(connection, [row])
    assert await town.route() == []  # a repeat, as far as routing is concerned
    (done,) = await Shelf(town).retry()
    assert (done.problem, list(done.revisions)) == (None, [1])
    await town.publish()
    assert await town.route() == [("haven", "NEW", "INPATIENT_ADMIT")]
    town.log.records.clear()  # the log has forgotten the message: its event is taken as it was
    await town.pool.execute("update quarantine set state = 'OPEN'")
    (again,) = await Shelf(town).retry()
    assert (again.problem, list(again.revisions)) == (None, [2])
