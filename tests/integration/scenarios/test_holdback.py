"""The hold-back window: an early message waits for its predecessor or the end of its window, and never gets lost."""

from datetime import UTC, timedelta

import msgspec
import pytest

from tests.integration.scenarios.hospital import CONVERTED, SNF, Hospital, Said, moment
from tests.integration.scenarios.setting import Setting
from tocengine.encounters.holdback import Window
from tocengine.encounters.postgres_story import find_visits, read_story
from tocengine.formats.packing import unpack
from tocengine.inspection.gauges import Gauges
from tocengine.model.ids import FeedName
from tocengine.routing import worker
from tocengine.telemetry import Metrics

WAIT = timedelta(seconds=30)


@pytest.fixture
def town(town: Setting, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A feed that holds back for 30 s, and a clock that stands at the hour of what is told."""
    monkeypatch.setattr(worker, "RELEASE_S", 0.0)
    town.window = Window(by_feed={FeedName("stj-adt"): WAIT})
    town.now = moment("10:00").astimezone(UTC)
    return town


async def held(town: Setting) -> list[str]:
    """The triggers of what waits."""
    rows = await town.pool.fetch("select summary from held_event order by release_at")
    return [msgspec.json.decode(unpack(row["summary"]))["trigger"] for row in rows]


async def passes(town: Setting, clock: str) -> list[tuple[str, str, str]]:
    """The clock on the wall comes to `clock` while nothing is received; what is told then."""
    town.now = moment(clock).astimezone(UTC)
    return await town.route()


def discharge(hospital: Hospital, clock: str = "15:02", **more: str) -> Said:
    return hospital.says("A03", clock, disposition=SNF, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("together", [False, True])
async def test_8_within_the_window_both_are_told_in_order(town: Setting, hospital: Hospital, together: bool) -> None:
    overtaking = discharge(hospital)
    admission = hospital.says("A01", "09:00").arriving("15:02:20")
    if together:
        await town.receive(overtaking, admission)
        told = await town.route()
    else:
        assert await town.hear(overtaking) == []
        assert await held(town) == ["A03"]
        told = await town.hear(admission)
    assert told == [("haven", "NEW", "INPATIENT_ADMIT"), ("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert await town.state() == "DISCHARGED"
    assert await held(town) == []


@pytest.mark.parametrize("batch", [1, 200])
async def test_8_after_the_window_the_discharge_stands_alone(town: Setting, hospital: Hospital, batch: int) -> None:
    town.batch = batch
    await town.receive(discharge(hospital), hospital.says("A01", "09:00").arriving("15:02:33"))
    assert await town.route() == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert "COVERED_BY_DISCHARGE" in await town.reasons()
    assert await town.state() == "DISCHARGED"


async def test_the_clock_on_the_wall_releases_what_nothing_follows(town: Setting, hospital: Hospital) -> None:
    assert await town.hear(discharge(hospital)) == []
    assert await passes(town, "15:02:31") == []
    assert await passes(town, "15:02:32") == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert await passes(town, "15:03") == []
    assert "implicit_open" in await town.flags()


async def test_the_clock_does_not_release_before_what_is_in_the_log(town: Setting, hospital: Hospital) -> None:
    """After a stop of the router the wall is far ahead of the log: the log decides, as it would have then."""
    town.batch = 1
    await town.receive(discharge(hospital), hospital.says("A01", "09:00").arriving("15:02:20"))
    told = await passes(town, "23:00")
    assert told == [("haven", "NEW", "INPATIENT_ADMIT"), ("haven", "NEW", "INPATIENT_DISCHARGE")]


async def test_a_discharge_of_another_class_than_the_state_waits_for_the_admission(
    town: Setting, hospital: Hospital
) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"))
    assert await town.hear(discharge(hospital)) == []
    told = await town.hear(hospital.says("A06", "14:00", "I").arriving("15:02:10"))
    assert told == [("haven", "NEW", "INPATIENT_ADMIT"), ("haven", "NEW", "INPATIENT_DISCHARGE")]


async def test_updates_and_cancels_wait_with_their_discharge(town: Setting, hospital: Hospital) -> None:
    early = [hospital.says("A13", "15:02:06"), hospital.says("A08", "15:02:03"), discharge(hospital)]
    assert await town.hear(*(said.arriving("15:02:07") for said in early)) == []
    assert sorted(await held(town)) == ["A03", "A08", "A13"]
    assert await town.hear(hospital.says("A01", "09:00").arriving("15:02:20")) == [("haven", "NEW", "INPATIENT_ADMIT")]
    assert await town.state() == "INPATIENT"
    assert await held(town) == []


async def test_what_is_expected_waits_for_nothing(town: Setting, hospital: Hospital) -> None:
    told = await town.hear(
        hospital.says("A04", "10:00", "E", "V1"),
        hospital.says("A03", "11:00", "E", "V1", disposition=CONVERTED),
        hospital.says("A01", "12:00", "I", "V2"),
        hospital.says("A03", "13:00", "I", "V2", disposition=SNF),
    )
    assert len(told) == 3
    assert await held(town) == []


async def test_an_initial_load_and_a_test_wait_for_nothing(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A08", "10:00", processing="P^I"), hospital.says("A03", "10:01", processing="T"))
    assert await held(town) == []


async def test_a_resend_of_what_waits_is_a_repeat(town: Setting, hospital: Hospital) -> None:
    early = discharge(hospital)
    assert await town.hear(early, early.arriving("15:02:12")) == []
    assert await held(town) == ["A03"]
    assert await passes(town, "15:05") == [("haven", "NEW", "INPATIENT_DISCHARGE")]


async def test_no_more_wait_than_may(town: Setting, hospital: Hospital) -> None:
    town.window = Window(by_feed=town.window.by_feed, most=2)
    for number in range(3):
        await town.hear(discharge(hospital, visit=f"V{number}"))
    assert len(await held(town)) == 2
    assert len(await town.notices()) == 1


async def test_it_is_on_record_that_it_waited(town: Setting, hospital: Hospital) -> None:
    await town.hear(discharge(hospital))
    assert await town.pool.fetchval("select disposition from message_seen") == "HELD"
    await passes(town, "15:05")
    assert await town.pool.fetchval("select disposition from message_seen") == "TRACKED"
    rows = await town.pool.fetch("select action, detail from audit_record order by audit_id")
    said = [(row["action"], msgspec.json.decode(row["detail"])) for row in rows]
    assert [action for action, _ in said if action.startswith("MESSAGE")] == ["MESSAGE_HELD", "MESSAGE_TRACKED"]
    tracked = next(detail for action, detail in said if action == "MESSAGE_TRACKED")
    assert tracked["held_until"] == moment("15:02:32").astimezone(UTC).isoformat()


async def damage(town: Setting, visit: str) -> None:
    """What is held back of a visit cannot be read any more."""
    await town.pool.execute(
        "update held_event set summary = $2 where encounter_id ="
        " (select encounter_id from encounter where visit_number = $1)",
        visit,
        b"\x01 no longer what was written",
    )


async def test_a_row_that_cannot_be_read_is_set_aside_and_nobody_else_waits(town: Setting, hospital: Hospital) -> None:
    await town.hear(discharge(hospital, visit="V1"), discharge(hospital, visit="V2"))
    await damage(town, "V1")
    assert await passes(town, "15:05") == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert await town.state("V2") == "DISCHARGED"
    assert await town.pool.fetchval("select count(*) from held_event") == 0
    row = await town.pool.fetchrow("select stage, feed, reason from quarantine")
    assert row is not None
    assert tuple(row) == ("track", "stj-adt", "held_event_unreadable")
    assert "EVENT_SET_ASIDE" in await town.work()


async def test_a_row_whose_mark_is_gone_is_set_aside_as_well(town: Setting, hospital: Hospital) -> None:
    await town.hear(discharge(hospital, visit="V1"))
    await damage(town, "V1")
    await town.pool.execute("delete from message_seen")
    assert await passes(town, "15:05") == []
    assert await town.pool.fetchval("select count(*) from held_event") == 0
    row = await town.pool.fetchrow("select stage, feed, reason, body from quarantine")
    assert row is not None
    assert tuple(row) == ("track", "", "held_event_unreadable", b"\x01 no longer what was written")
    assert "EVENT_SET_ASIDE" in await town.work()


async def test_the_story_is_told_without_a_row_that_cannot_be_read(town: Setting, hospital: Hospital) -> None:
    await town.hear(discharge(hospital, visit="V1"))
    await damage(town, "V1")
    async with town.pool.acquire() as connection:
        [found] = await find_visits(connection, "V1", "")
        story = await read_story(connection, found)
    [line] = [line for line in story.timeline if line.what == "held back"]
    assert line.text.startswith("a message whose stored event cannot be read waits until ")


async def test_what_the_row_held_is_read_again_from_the_log(town: Setting, hospital: Hospital) -> None:
    await town.hear(discharge(hospital, visit="V1"))
    await damage(town, "V1")
    assert await passes(town, "15:05") == []
    assert await town.pool.fetchval("select reason from quarantine") == "held_event_unreadable"
    _, told = await town.replay()
    assert ("haven", "NEW", "INPATIENT_DISCHARGE") in told


async def test_what_waits_is_counted(town: Setting, hospital: Hospital) -> None:
    metrics = Metrics()
    gauges = Gauges(town.pool, metrics)
    await town.hear(discharge(hospital, visit="V1"), discharge(hospital, visit="V2"))
    await gauges.refresh()
    assert metrics.registry.get_sample_value("tocengine_held_events") == 2
    await passes(town, "15:05")
    await gauges.refresh()
    assert metrics.registry.get_sample_value("tocengine_held_events") == 0
