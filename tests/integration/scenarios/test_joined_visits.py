"""Two visits that are one stay, stays that overlap, and what a person is asked when something has not come in time."""

from datetime import UTC, timedelta

import pytest

from tests.integration.scenarios.hospital import CONVERTED, HOME, SNF, Hospital, moment
from tests.integration.scenarios.setting import Setting
from tocengine.model.profile import SourceProfile, UnitTraits
from tocengine.routing import worker


@pytest.fixture
def town(town: Setting, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(worker, "REMIND_S", 0.0)
    town.now = moment("12:05").astimezone(UTC)
    return town


async def later(town: Setting, **time: int) -> list[str]:
    """The open work items after so long."""
    town.now += timedelta(**time)
    await town.route()
    return await town.work()


@pytest.mark.parametrize("admission_first", [False, True])
async def test_2_by_patient_facility_and_time(town: Setting, hospital: Hospital, admission_first: bool) -> None:
    await town.hear(hospital.says("A04", "10:00", "E", "V100"))
    messages = [
        hospital.says("A03", "12:00", "E", "V100", disposition=CONVERTED).arriving("12:04"),
        hospital.says("A01", "12:01:30", "I", "V200").arriving("12:04"),
    ]
    told = await town.hear(*(reversed(messages) if admission_first else messages))
    assert told == [("haven", "NEW", "INPATIENT_ADMIT")]
    assert "CONVERSION_NOT_DISCHARGE" in await town.reasons()
    assert await later(town, hours=7) == []


async def test_an_admission_that_does_not_come_is_asked_about_once(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"), hospital.says("A03", "12:00", "E", disposition=CONVERTED))
    assert await later(town, hours=5) == []
    assert await later(town, hours=1) == ["ADMISSION_NOT_SEEN"]
    await town.pool.execute("update work_item set closed_at = now()")
    assert await later(town, hours=48) == []


async def test_27_by_the_account(town: Setting, hospital: Hospital) -> None:
    account = {18: "H77"}
    await town.hear(hospital.says("A04", "10:00", "E", "V100", pid=account))
    await town.hear(hospital.says("A01", "14:00", "I", "V200", pid=account))
    assert await town.hear(hospital.says("A03", "17:30", "E", "V100", pid=account)) == []
    assert "CONVERSION_NOT_DISCHARGE" in await town.reasons()
    assert await town.hear(hospital.says("A11", "18:00", "I", "V200", pid=account)) == [
        ("haven", "NEW", "ED_DISCHARGE")
    ]


async def test_27_by_the_visit_that_the_admission_names_as_the_one_before(town: Setting, hospital: Hospital) -> None:
    before = {5: "V100^^^STJ^VN"}
    await town.hear(hospital.says("A04", "10:00", "E", "V100"))
    assert await town.hear(hospital.says("A01", "14:00", "I", "V200", mrg=before)) == [
        ("haven", "NEW", "INPATIENT_ADMIT")
    ]
    assert await town.hear(hospital.says("A03", "17:30", "E", "V100")) == []
    assert "CONVERSION_NOT_DISCHARGE" in await town.reasons()
    told = await town.hear(hospital.says("A11", "18:00", "I", "V200", mrg=before))
    assert told == [("haven", "CANCELLED", "ADMIT_CANCELLED")] or told == [("haven", "NEW", "ED_DISCHARGE")]


async def test_an_ed_visit_that_went_home_is_no_part_of_a_later_stay(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E", "V100"))
    told = await town.hear(hospital.says("A03", "12:00", "E", "V100", disposition=HOME))
    assert told == [("haven", "NEW", "ED_DISCHARGE")]
    assert await town.hear(hospital.says("A01", "14:00", "I", "V200")) == [("haven", "NEW", "INPATIENT_ADMIT")]


async def test_what_was_sensitive_in_the_ed_is_so_in_the_stay(town: Setting, hospital: Hospital) -> None:
    town.feed(SourceProfile(location_map={"DETOX": UnitTraits(part2=True, sensitivity=("SUD",))}))
    await town.hear(
        hospital.says("A04", "10:00", "E", "V100", pv1={3: "DETOX^1^A"}),
        hospital.says("A03", "12:00", "E", "V100", disposition=CONVERTED, pv1={3: "DETOX^1^A"}),
    )
    assert await town.hear(hospital.says("A01", "12:30", "I", "V200")) == []
    assert "PART2_NO_CONSENT" in await town.reasons("haven")


@pytest.mark.parametrize("other_first", [False, True])
async def test_stays_that_overlap_are_flagged_and_both_told(
    town: Setting, hospital: Hospital, other_first: bool
) -> None:
    messages = [hospital.says("A01", "09:00", "I", "V1"), hospital.says("A01", "11:00", "I", "V2")]
    told = await town.hear(*(reversed(messages) if other_first else messages))
    assert told == [("haven", "NEW", "INPATIENT_ADMIT")] * 2
    assert "overlapping_encounter" in await town.flags("V2")
    assert "overlapping_encounter" not in await town.flags("V1")
    assert (await town.state("V1"), await town.state("V2")) == ("INPATIENT", "INPATIENT")


async def test_a_visit_left_open_is_asked_about(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "09:00"), hospital.says("A01", "09:00", visit="V2", mrn="77"))
    await town.hear(hospital.says("A03", "10:00", disposition=SNF))
    await town.hear(hospital.says("A08", "12:00", visit="V2", mrn="77", day="2026-03-11"))
    assert await later(town, days=39) == []
    assert await later(town, days=1) == ["VISIT_LEFT_OPEN"]
