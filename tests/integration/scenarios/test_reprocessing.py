"""Codes nobody knows and messages nobody could read: kept, asked about once, taken up when they can be."""

import msgspec

from tests.integration.scenarios.hospital import PATEL, Hospital
from tests.integration.scenarios.setting import Setting
from tocengine.model.facts import CareSetting
from tocengine.model.profile import SourceProfile


async def disposition(town: Setting, visit: str = "V100") -> tuple[str | None, str]:
    """Code and care setting that stand for a visit."""
    body = await town.pool.fetchval("select body from encounter where visit_number = $1", visit)
    found = msgspec.json.decode(body)["folded"]["encounter"].get("disposition", {})
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
