"""What patients do not want told, through merges and new numbers: a refusal under any number counts for all."""

import pytest

from tests.integration.scenarios.hospital import HOME, PATEL, SNF, Hospital, Said
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


# --- an opt-out that stops what waits to be sent: nobody has to wait for the visit's next message

TO_SUNNYSIDE = '{domain: STJ, value: "7770", facility: sunnyside}'


async def discharged_to_sunnyside(town: Setting, hospital: Hospital) -> None:
    """Sunnyside was told of the discharge; a correction of its time waits to be sent."""
    await refusing(town)

    def says(trigger: str, recorded: str, discharged: str) -> Said:
        to, at = "SUNNYSIDE REHAB", {45: f"20260301{discharged}-0500"}
        return hospital.says(trigger, recorded, mrn="7770", disposition=SNF, destination=to, pv1=at)

    await town.hear(says("A03", "15:00", "1500"))
    await town.deliver()
    told = await town.hear(says("A08", "15:30", "1400"))
    assert ("sunnyside", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED") in told


async def test_a_correction_that_an_opt_out_stops_is_a_retraction_at_once(town: Setting, hospital: Hospital) -> None:
    await discharged_to_sunnyside(town, hospital)
    await refusing(town, TO_SUNNYSIDE)

    assert await town.later() == [("sunnyside", "RETRACTED", "INPATIENT_DISCHARGE")]

    first, correction, retraction = await town.notices("sunnyside")
    assert correction[1] == "SUPERSEDED"
    assert retraction[0].level == "COP_MIN"
    assert retraction[0].snapshot_id == first[0].snapshot_id
    assert ("haven", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED") in await town.leaving()
    assert await town.later() == []


async def test_an_opt_out_seen_only_when_it_is_sent_is_decided_anew_as_well(town: Setting, hospital: Hospital) -> None:
    await discharged_to_sunnyside(town, hospital)
    await refusing(town, TO_SUNNYSIDE)
    await town.pool.execute("delete from encounter_due where kind = 'TELLING'")
    await town.refuse_at_send("sunnyside")
    _, (_, state) = await town.notices("sunnyside")
    assert state == "SUPPRESSED"

    assert await town.later() == [("sunnyside", "RETRACTED", "INPATIENT_DISCHARGE")]


async def test_a_destination_that_is_refused_while_its_notice_waits_is_for_a_person(
    town: Setting, hospital: Hospital
) -> None:
    await refusing(town)
    await town.hear(hospital.says("A03", "15:00", mrn="7770", disposition=SNF, destination="SUNNYSIDE REHAB"))
    await refusing(town, TO_SUNNYSIDE)
    assert await town.later() == []
    assert "DESTINATION_REFUSED" in await town.work()
    assert await town.reasons("sunnyside") == {"RECIPIENT_DENIED"}
    assert ("haven", "NEW", "INPATIENT_DISCHARGE") in await town.leaving()


async def test_an_opt_out_of_another_number_of_the_patient_counts(town: Setting, hospital: Hospital) -> None:
    await refusing(town)
    await town.hear(hospital.says("A01", "10:00", mrn="7770"))
    await town.hear(hospital.merges("10:30", into="7770", prior="5551"))
    await refusing(town, EVERYBODY)
    assert await town.later() == []
    ((_, state),) = await town.notices("haven")
    assert state == "CANCELLED"
    assert await town.reasons("haven") == {"OPTED_OUT"}


async def test_what_takes_the_place_of_a_notice_that_waits_for_its_endpoint_is_looked_at_at_once(
    town: Setting, hospital: Hospital
) -> None:
    await discharged_to_sunnyside(town, hospital)
    await town.pool.execute("update lane set due_at = null, waits_for = 'sunnyside-hook', parked_until = $1", town.now)
    await refusing(town, TO_SUNNYSIDE)
    await town.later()
    due = "select recipient_id from lane where due_at is not null"
    assert [row["recipient_id"] for row in await town.pool.fetch(due)] == ["facility:sunnyside"]


async def test_an_opt_out_leaves_what_was_told_and_is_so(town: Setting, hospital: Hospital) -> None:
    await refusing(town)
    await town.hear(hospital.says("A01", "10:00", mrn="5551"))
    await town.deliver()
    await refusing(town, EVERYBODY)
    assert await town.later() == []
    assert [state for _, state in await town.notices("haven")] == ["DELIVERED"]
