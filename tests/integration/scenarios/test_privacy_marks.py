"""What a sender marks as protected, restricted or a VIP's: held back or limited until the mark is lifted."""

import pytest

from tests.integration.scenarios.hospital import PATEL, SNF, Hospital
from tests.integration.scenarios.setting import Setting
from tocengine.model.facts import Mark, MarkEffect
from tocengine.model.profile import SourceProfile

ADMITTED = ("haven", "NEW", "INPATIENT_ADMIT")
PROTECTED_WITH_DOCTOR = f"PD1||||{PATEL}||||||||Y"
PROTECTED = "PD1||||||||||||Y"
OPEN = "PD1||||||||||||N"
VISIT_PROTECTED = "PV2||||||||||||||||||||||Y"


@pytest.mark.parametrize(
    "mark",
    [PROTECTED_WITH_DOCTOR, VISIT_PROTECTED, "ARV|1|A|ALL", "CON|1||||||||||R", "ARV|1|A|DEM^Demographics^HL70717"],
)
async def test_a_stated_protection_holds_everything_back_and_asks_a_person(
    town: Setting, hospital: Hospital, mark: str
) -> None:
    pcp = "" if mark == PROTECTED_WITH_DOCTOR else PATEL
    assert await town.hear(hospital.says("A01", "10:00", pcp=pcp, more=(mark,))) == []
    assert await town.reasons("haven") == await town.reasons("patel") == {"PRIVACY_MARKED"}
    assert await town.hear(hospital.says("A03", "15:00", disposition=SNF)) == []
    assert await town.work() == ["NOTICES_HELD_BACK"]


async def test_a_lifted_mark_lets_what_stands_be_told(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", more=(PROTECTED,)))
    assert await town.hear(hospital.says("A08", "10:05")) == [], "silence keeps the mark"
    assert await town.hear(hospital.says("A08", "10:10", more=(OPEN,))) == [ADMITTED]


async def test_what_was_told_before_the_mark_stays_until_it_is_untrue(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await town.deliver()
    assert await town.hear(hospital.says("A08", "10:05", more=(PROTECTED,))) == []
    assert await town.hear(hospital.says("A11", "11:00")) == [("haven", "CANCELLED", "ADMIT_CANCELLED")]
    assert (await town.notices("haven"))[-1][0].level == "COP_MIN"


async def test_a_mark_takes_away_what_still_waits(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await town.hear(hospital.says("A08", "10:01", more=(PROTECTED,)))
    assert await town.leaving() == []
    assert await town.reasons("haven") == {"PRIVACY_MARKED"}


async def test_of_a_vip_only_the_destination_hears_more_than_the_minimum(town: Setting, hospital: Hospital) -> None:
    assert await town.hear(hospital.says("A01", "10:00", pv1={16: "VIP"})) == [ADMITTED]
    ((told, _),) = await town.notices("haven")
    assert told.level == "COP_MIN"
    assert await town.work() == []


async def test_the_ed_visit_a_stay_grew_out_of_marks_the_stay(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E", "V100", more=(VISIT_PROTECTED,)))
    await town.hear(hospital.says("A03", "11:00", "E", "V100", disposition="09"))
    assert await town.hear(hospital.says("A01", "11:01", "I", "V200", pv1={50: "V100"})) == []


async def test_a_mark_lifted_from_the_patient_no_longer_holds_the_stay_an_ed_visit_became(
    town: Setting, hospital: Hospital
) -> None:
    await town.hear(hospital.says("A04", "10:00", "E", "V100", more=(PROTECTED,)))
    await town.hear(hospital.says("A03", "11:00", "E", "V100", disposition="09"))
    assert await town.hear(hospital.says("A01", "11:01", "I", "V200", pv1={50: "V100"})) == []
    assert ADMITTED in await town.hear(hospital.says("A08", "11:30", "I", "V200", more=(OPEN,)))


async def test_the_feed_says_what_a_mark_does(town: Setting, hospital: Hospital) -> None:
    town.feed(SourceProfile(privacy_marks={Mark.PROTECTION: MarkEffect.NOTE, Mark.VIP: MarkEffect.HOLD}))
    assert await town.hear(hospital.says("A01", "10:00", more=(PROTECTED,))) == [ADMITTED]
    ((told, _),) = await town.notices("haven")
    assert told.level != "COP_MIN"
    assert await town.hear(hospital.says("A01", "10:00", visit="V9", pv1={16: "VIP"})) == []
