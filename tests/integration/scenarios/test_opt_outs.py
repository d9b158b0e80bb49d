"""What patients do not want told, through merges and new numbers: a refusal under any number counts for all."""

import pytest

from tests.integration.scenarios.hospital import HOME, PATEL, SNF, Hospital
from tests.integration.scenarios.setting import HOMES, Setting, directory, person
from tests.integration.scenarios.test_identity import rekeys

RESIDENTS = {"haven": ["7770", "5551"], "meadow": ["22"]}
EVERYBODY = '{domain: STJ, value: "5551"}'
ADMITTED = ("haven", "NEW", "INPATIENT_ADMIT")


async def refusing(town: Setting, *opt_outs: str) -> Setting:
    await town.apply(directory(HOMES, [person("patel", "1234567893")], RESIDENTS, opt_outs))
    return town


@pytest.mark.parametrize("survivor", ["7770", "5551"])
async def test_12_the_survivor_of_a_merge_is_opted_out_whichever_number_was(
    town: Setting, hospital: Hospital, survivor: str
) -> None:
    await refusing(town, EVERYBODY)
    prior = "5551" if survivor == "7770" else "7770"
    assert await town.hear(hospital.says("A01", "10:00", mrn="7770")) == [ADMITTED]
    await town.deliver()
    assert await town.hear(hospital.merges("10:30", into=survivor, prior=prior)) == []
    assert await town.hear(hospital.says("A03", "15:00", mrn=prior, disposition=HOME, pcp=PATEL)) == []
    assert await town.reasons("haven") == {"OPTED_OUT"}
    assert await town.reasons("patel") == {"OPTED_OUT"}


async def test_a_merge_takes_away_what_still_waits(town: Setting, hospital: Hospital) -> None:
    await refusing(town, EVERYBODY)
    await town.hear(hospital.says("A01", "10:00", mrn="7770"))
    await town.hear(hospital.merges("10:30", into="7770", prior="5551"))
    assert await town.leaving() == []
    ((_, state),) = await town.notices("haven")
    assert state == "CANCELLED"


async def test_a_number_that_changed_hands_brings_no_refusal_along(town: Setting, hospital: Hospital) -> None:
    await refusing(town, EVERYBODY)
    await town.hear(rekeys(hospital, "A43", "10:00", mrn="22", prior="5551"))
    assert await town.hear(hospital.says("A04", "11:00", "E", mrn="5551")) == [("meadow", "NEW", "ED_REGISTRATION")]


async def test_what_was_told_before_is_taken_back_all_the_same_with_no_more_than_was_known(
    town: Setting, hospital: Hospital
) -> None:
    await refusing(town)
    await town.hear(hospital.says("A01", "10:00", mrn="5551"))
    await town.deliver()
    await refusing(town, EVERYBODY)
    assert await town.hear(hospital.says("A11", "11:00", mrn="5551")) == [("haven", "CANCELLED", "ADMIT_CANCELLED")]
    assert (await town.notices("haven"))[-1][0].level == "COP_MIN"


async def test_19_one_recipient_is_refused_and_the_hospital_is_asked(town: Setting, hospital: Hospital) -> None:
    await refusing(town, '{domain: STJ, value: "7770", facility: sunnyside}')
    await town.hear(hospital.says("A01", "10:00", mrn="7770"))
    discharge = hospital.says("A03", "15:00", mrn="7770", disposition=SNF, destination="SUNNYSIDE REHAB")
    assert await town.hear(discharge) == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert await town.reasons("sunnyside") == {"RECIPIENT_DENIED"}
    assert await town.work() == ["DESTINATION_REFUSED"]


@pytest.mark.parametrize(
    ("period", "told"),
    [
        ("to: 2026-02-27", True),
        ("to: 2026-02-28", True),
        ("to: 2026-03-01", False),
        ("from: 2026-03-02", False),  # it has begun at UTC+14
        ("from: 2026-03-03", True),
    ],
)
async def test_a_refusal_counts_on_its_days(town: Setting, hospital: Hospital, period: str, told: bool) -> None:
    await refusing(town, f'{{domain: STJ, value: "5551", {period}}}')
    assert await town.hear(hospital.says("A01", "10:00", mrn="5551")) == ([ADMITTED] if told else [])


async def test_a_refusal_lasts_until_its_last_day_has_ended_everywhere(town: Setting, hospital: Hospital) -> None:
    await refusing(town, '{domain: STJ, value: "5551", to: 2026-03-01}')
    assert await town.hear(hospital.says("A01", "21:00", mrn="5551")) == []  # in UTC it is the 2nd already
    assert await town.reasons("haven") == {"OPTED_OUT"}
