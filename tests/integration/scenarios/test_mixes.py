"""What hospitals do besides: resends, cancels of cancels, changes while notices are under way, merges of merges."""

import pytest

from tests.integration.scenarios.hospital import HOME, PATEL, SNF, Hospital, Said
from tests.integration.scenarios.setting import Setting, directory, entry, person

TO_SUNNYSIDE = "SUNNYSIDE REHAB^20260301"
DISCHARGED = ("haven", "NEW", "INPATIENT_DISCHARGE")


async def admitted_and_discharged(town: Setting, hospital: Hospital, destination: str = TO_SUNNYSIDE) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await town.deliver()
    await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination=destination))


# --- the same thing said again


@pytest.mark.parametrize("delivered", [False, True])
async def test_a_discharge_said_again_under_a_new_control_id(
    town: Setting, hospital: Hospital, delivered: bool
) -> None:
    await admitted_and_discharged(town, hospital)
    if delivered:
        await town.deliver()
    again = hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE)
    later = hospital.says("A03", "15:10", disposition=SNF, destination=TO_SUNNYSIDE)
    assert await town.hear(again, later) == []


async def test_every_message_said_again_in_another_order(town: Setting, hospital: Hospital) -> None:
    def visit() -> list[Said]:
        return [
            hospital.says("A04", "10:00", "E", pcp=PATEL),
            hospital.says("A06", "12:00", "I"),
            hospital.says("A02", "13:00"),
            hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE),
            hospital.says("A13", "15:30"),
            hospital.says("A03", "18:00", disposition=SNF, destination=TO_SUNNYSIDE),
        ]

    await town.hear(*visit())
    await town.deliver()
    assert await town.hear(*reversed(visit())) == []


async def test_cancelling_what_is_cancelled(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"))
    await town.deliver()
    assert await town.hear(hospital.says("A11", "10:30", "E")) == [("haven", "CANCELLED", "ED_CANCELLED")]
    await town.deliver()
    assert await town.hear(hospital.says("A11", "10:30", "E"), hospital.says("A11", "10:40", "E")) == []
    assert await town.hear(hospital.says("A13", "10:45", "E")) == []
    assert await town.state() == "CANCELLED"
    assert await town.hear(hospital.says("A04", "11:00", "E")) == [("haven", "NEW", "ED_REGISTRATION")]


async def test_a_cancelled_visit_is_discharged(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"), hospital.says("A11", "10:30", "E"))
    assert await town.hear(hospital.says("A03", "15:00", "E", disposition=SNF, destination=TO_SUNNYSIDE)) == []


async def test_the_cancel_of_a_discharge_comes_before_the_discharge(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await town.deliver()
    cancel = hospital.says("A13", "15:30").arriving("15:30:02")
    discharge = hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE).arriving("15:31")
    assert await town.hear(cancel, discharge) == []
    assert await town.state() == "INPATIENT"


@pytest.mark.parametrize("together", [False, True])
async def test_discharge_and_cancel_in_one_batch_or_two(town: Setting, hospital: Hospital, together: bool) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await town.deliver()
    messages = [hospital.says("A03", "15:00", disposition=SNF), hospital.says("A13", "15:30")]
    if together:
        await town.receive(*messages)
        await town.route()
    else:
        await town.hear(*messages)
    assert await town.leaving() == []
    assert "CANCELLED_BEFORE_SEND" in await town.reasons()


# --- a change while the first notice is under way


async def test_another_destination_while_the_first_notice_waits(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.hear(hospital.says("A08", "15:01", disposition=SNF, destination="MEADOW"))
    assert sorted(await town.leaving()) == [DISCHARGED, ("meadow", "NEW", "INPATIENT_DISCHARGE")]
    ((_, state),) = await town.notices("sunnyside")
    assert state == "SUPERSEDED"
    waiting = next(notice for notice, state in await town.notices("haven") if state == "QUEUED")
    assert "MEADOW" in await town.rendered(waiting)


@pytest.mark.parametrize("known", ["sending", "lost"])
async def test_another_destination_while_the_first_notice_may_have_arrived(
    town: Setting, hospital: Hospital, known: str
) -> None:
    await admitted_and_discharged(town, hospital)
    await town.begin_sending()
    if known == "lost":
        await town.lose_answer()
    told = await town.hear(hospital.says("A08", "15:01", disposition=SNF, destination="MEADOW"))
    assert sorted(told) == [
        ("haven", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED"),
        ("meadow", "NEW", "INPATIENT_DISCHARGE"),
        ("sunnyside", "RETRACTED", "INPATIENT_DISCHARGE"),
    ]
    assert sorted(await town.leaving()) == sorted(told)


async def test_the_destination_changes_and_changes_back(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.deliver()
    await town.hear(hospital.says("A08", "15:01", disposition=SNF, destination="MEADOW"))
    await town.hear(hospital.says("A08", "15:02", disposition=SNF, destination=TO_SUNNYSIDE))
    assert await town.leaving() == []
    await town.hear(hospital.says("A08", "15:03", disposition=SNF, destination="MEADOW"))
    await town.deliver()
    told = await town.hear(hospital.says("A08", "15:04", disposition=SNF, destination=TO_SUNNYSIDE))
    assert sorted(told) == [
        ("haven", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED"),
        ("meadow", "RETRACTED", "INPATIENT_DISCHARGE"),
        ("sunnyside", "NEW", "INPATIENT_DISCHARGE"),
    ]


async def test_home_after_all(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.deliver()
    told = await town.hear(hospital.says("A08", "15:20", disposition=HOME))
    assert sorted(told) == [
        ("haven", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED"),
        ("sunnyside", "RETRACTED", "INPATIENT_DISCHARGE"),
    ]


async def test_a_cancel_while_the_discharge_is_being_sent(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.begin_sending("sunnyside")
    told = await town.hear(hospital.says("A13", "15:30"))
    assert told == [("sunnyside", "CANCELLED", "DISCHARGE_CANCELLED")]
    assert await town.leaving() == told


async def test_a_cancel_then_the_same_discharge_while_the_cancellation_waits(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.deliver()
    await town.hear(hospital.says("A13", "15:30"))
    await town.hear(hospital.says("A03", "15:40", disposition=SNF, destination=TO_SUNNYSIDE))
    assert sorted(await town.leaving()) == [
        ("haven", "CANCELLED", "DISCHARGE_CANCELLED"),
        DISCHARGED,
        ("sunnyside", "CANCELLED", "DISCHARGE_CANCELLED"),
        ("sunnyside", "NEW", "INPATIENT_DISCHARGE"),
    ]


async def test_a_discharge_corrected_after_its_cancellation_is_not_brought_back(
    town: Setting, hospital: Hospital
) -> None:
    await admitted_and_discharged(town, hospital)
    await town.deliver()
    await town.hear(hospital.says("A13", "15:30"))
    await town.deliver()
    assert await town.hear(hospital.says("A08", "15:40", disposition=SNF, destination="MEADOW")) == []
    assert await town.state() == "INPATIENT"


# --- merges


async def test_a_merge_while_notices_wait(town: Setting, hospital: Hospital) -> None:
    """The resident's notice is not true of the survivor any more, who is somebody else's resident."""
    await town.apply(directory([entry("haven"), entry("meadow")], panels={"haven": ["5551"], "meadow": ["7770"]}))
    await town.hear(hospital.says("A01", "10:00", mrn="5551"))
    assert await town.leaving() == [("haven", "NEW", "INPATIENT_ADMIT")]
    await town.hear(hospital.merges("10:30", into="7770", prior="5551"))
    assert sorted(await town.leaving()) == [("haven", "NEW", "INPATIENT_ADMIT"), ("meadow", "NEW", "INPATIENT_ADMIT")]


async def test_merges_of_the_merged(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E", mrn="A"))
    assert await town.hear(hospital.merges("10:10", into="B", prior="A")) == []
    told = await town.hear(hospital.merges("10:20", into="0012345", prior="B"))
    assert told == [("haven", "NEW", "ED_REGISTRATION")]
    assert await town.hear(hospital.says("A06", "11:00", "I", mrn="A")) == [("haven", "NEW", "INPATIENT_ADMIT")]


@pytest.mark.parametrize("together", [False, True])
async def test_a_merge_back_is_refused(town: Setting, hospital: Hospital, together: bool) -> None:
    merges = [
        hospital.merges("10:10", into="B", prior="A"),
        hospital.merges("10:20", into="A", prior="B"),
        hospital.merges("10:30", into="C", prior="A"),
    ]
    if together:
        await town.receive(*merges)
        await town.route()
    else:
        await town.hear(*merges)
    assert await town.work() == ["MERGE_REFUSED"] * 2


async def test_merges_in_a_chain_that_arrives_backwards(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E", mrn="A"))
    await town.hear(hospital.merges("10:20", into="0012345", prior="B").arriving("10:20:02"))
    told = await town.hear(hospital.merges("10:10", into="B", prior="A").arriving("10:21"))
    assert told == [("haven", "NEW", "ED_REGISTRATION")]


async def test_a_merge_after_the_discharge_was_told(town: Setting, hospital: Hospital) -> None:
    await town.apply(directory([entry("haven")], panels={"haven": ["7770"]}))
    await town.hear(hospital.says("A01", "10:00", mrn="5551"))
    await town.hear(hospital.says("A03", "15:00", mrn="5551", disposition=SNF))
    told = await town.hear(hospital.merges("16:00", into="7770", prior="5551"))
    assert told[-1] == DISCHARGED


# --- the people around the patient


async def test_another_physician(town: Setting, hospital: Hospital) -> None:
    await town.apply(
        directory([entry("haven")], [person("patel", "1234567893"), person("wu", "1999000031")], {"haven": ["0012345"]})
    )
    await town.hear(hospital.says("A04", "10:00", "E", pcp=PATEL))
    await town.deliver()
    told = await town.hear(hospital.says("A08", "10:30", "E", pcp="1999000031^WU^MEI^^^^MD^^NPI"))
    assert told == [("wu", "NEW", "ED_REGISTRATION")]
    told = await town.hear(hospital.says("A03", "12:00", "E", disposition=HOME))
    assert sorted(told) == [("haven", "NEW", "ED_DISCHARGE"), ("wu", "NEW", "ED_DISCHARGE")]


async def test_a_physician_without_a_national_identifier(town: Setting, hospital: Hospital) -> None:
    assert await town.hear(hospital.says("A04", "10:00", "E", mrn="77", pcp="4711^PATEL^RAVI^^^^MD")) == []
    assert "NO_RECIPIENT" in await town.reasons()


async def test_two_recipients_with_one_identifier(town: Setting, hospital: Hospital) -> None:
    await town.apply(
        directory(
            [entry("north", 'npi: "1999000015"', "aliases: [NORTH]"), entry("south", 'npi: "1999000015"')],
        )
    )
    told = await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination="1999000015"))
    assert told == []
    assert "DESTINATION_AMBIGUOUS" in await town.work()


async def test_the_directory_learns_the_destination_between_two_messages(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination="GROVE"))
    assert "DESTINATION_UNRESOLVED" in await town.work()
    await town.deliver()
    await town.apply(directory([entry("grove", "aliases: [GROVE]"), entry("haven")], panels={"haven": ["0012345"]}))
    told = await town.hear(hospital.says("A08", "15:30", disposition=SNF, destination="GROVE"))
    assert ("grove", "NEW", "INPATIENT_DISCHARGE") in told
    assert await town.hear(hospital.says("A08", "15:40", disposition=SNF, destination="GROVE")) == []


async def test_a_recipient_leaves_the_directory(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.deliver()
    await town.apply(directory([entry("haven")], panels={"haven": ["0012345"]}))
    told = await town.hear(hospital.says("A13", "15:30"))
    assert told == [("haven", "CANCELLED", "DISCHARGE_CANCELLED")]
    assert "CANCELLATION_NOT_SENDABLE" in await town.work()


async def test_a_resident_joins_the_panel_while_in_hospital(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", mrn="77"))
    await town.apply(directory([entry("haven")], panels={"haven": ["0012345", "77"]}))
    assert await town.hear(hospital.says("A02", "11:00", mrn="77")) == [("haven", "NEW", "INPATIENT_ADMIT")]


# --- classes and deaths


async def test_back_to_observation_and_in_again(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"), hospital.says("A06", "11:00", "I"))
    await town.deliver()
    assert await town.hear(hospital.says("A07", "12:00", "O", pv1={2: "OBS"})) == [
        ("haven", "CANCELLED", "INPATIENT_REVERSED")
    ]
    await town.deliver()
    assert await town.hear(hospital.says("A06", "13:00", "I")) == [("haven", "NEW", "INPATIENT_ADMIT")]


async def test_death_before_the_discharge_is_told_once(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    told = await town.hear(
        hospital.says("A08", "14:00", pid={29: "20260301135000-0500", 30: "Y"}),
        hospital.says("A03", "15:00", disposition="20", destination=TO_SUNNYSIDE, pid={30: "Y"}),
    )
    assert told == [("haven", "NEW", "PATIENT_EXPIRED")]


async def test_a_discharge_that_was_a_death(town: Setting, hospital: Hospital) -> None:
    await admitted_and_discharged(town, hospital)
    await town.deliver()
    told = await town.hear(hospital.says("A08", "16:00", disposition="20", pid={30: "Y"}))
    assert sorted(told) == [
        ("haven", "CANCELLED", "DISCHARGE_CANCELLED"),
        ("haven", "NEW", "PATIENT_EXPIRED"),
        ("sunnyside", "CANCELLED", "DISCHARGE_CANCELLED"),
    ]


async def test_a_whole_visit_is_cancelled_by_one_notice(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"), hospital.says("A03", "15:00", disposition=SNF))
    await town.deliver()
    told = await town.hear(hospital.says("A11", "16:00", happened="10:00"))
    assert told == [("haven", "CANCELLED", "ADMIT_CANCELLED")]
    assert await town.state() == "CANCELLED"
