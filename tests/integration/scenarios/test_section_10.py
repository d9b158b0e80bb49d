"""The scenarios of the domain's section 10 that concern encounters and routing: messages in, notices out."""

import pytest

from tests.integration.scenarios.hospital import CONVERTED, PATEL, SNF, STILL, Hospital
from tests.integration.scenarios.setting import TOWN, Setting, directory, entry, person
from tocengine.model.profile import SourceProfile, UnitTraits

TO_SUNNYSIDE = "SUNNYSIDE REHAB^20260301"


async def test_1_from_the_ed_to_a_bed_in_the_same_visit(town: Setting, hospital: Hospital) -> None:
    told = await town.hear(hospital.says("A04", "10:00", "E", pcp=PATEL), hospital.says("A06", "14:00", "I"))
    assert told == [
        ("haven", "NEW", "ED_REGISTRATION"),
        ("patel", "NEW", "ED_REGISTRATION"),
        ("haven", "NEW", "INPATIENT_ADMIT"),
        ("patel", "NEW", "INPATIENT_ADMIT"),
    ]
    assert (await town.notices("patel"))[1][0].effective == "2026-03-01T14:00:00-05:00"
    assert await town.state() == "INPATIENT"


@pytest.mark.parametrize("together", [False, True])
async def test_2_from_the_ed_to_a_bed_in_a_new_visit(town: Setting, hospital: Hospital, together: bool) -> None:
    messages = [
        hospital.says("A04", "10:00", "E", "V100"),
        hospital.says("A03", "12:00", "E", "V100", disposition=CONVERTED),
        hospital.says("A01", "12:01:30", "I", "V200", pv1={50: "V100"}),
    ]
    if together:
        await town.receive(*messages)
        told = await town.route()
    else:
        told = await town.hear(*messages)
    assert sorted(told) == [("haven", "NEW", "ED_REGISTRATION"), ("haven", "NEW", "INPATIENT_ADMIT")]
    assert "CONVERSION_NOT_DISCHARGE" in await town.reasons()
    assert (await town.state("V100"), await town.state("V200")) == ("DISCHARGED", "INPATIENT")


async def test_3_a_bed_move_is_published_and_told_to_nobody(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", pv1={3: "ICU^1^A"}))
    assert await town.hear(hospital.says("A02", "11:00", pv1={3: "3N^12^B"})) == []
    assert await town.transitions() == [("NEW", "INPATIENT_ADMIT"), ("NEW", "LOCATION_CHANGE")]


async def test_4_discharge_to_a_named_facility(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    told = await town.hear(hospital.says("A03", "15:00", disposition="3", destination=TO_SUNNYSIDE))
    assert ("sunnyside", "NEW", "INPATIENT_DISCHARGE") in told
    ((notice, _),) = await town.notices("sunnyside")
    assert notice.basis == ("DESTINATION",)
    assert '"03"' in await town.rendered(notice)


async def test_5_a_destination_that_two_facilities_answer_to(town: Setting, hospital: Hospital) -> None:
    homes = [entry("east", "aliases: [SUNNYSIDE]"), entry("west", "aliases: [SUNNYSIDE]")]
    await town.apply(directory(homes, [person("patel", "1234567893")]))
    told = await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination="SUNNYSIDE", pcp=PATEL))
    assert told == [("patel", "NEW", "INPATIENT_DISCHARGE")]
    assert "DESTINATION_UNRESOLVED" in await town.reasons()
    assert await town.work() == ["DESTINATION_AMBIGUOUS"]


async def test_6_a_cancelled_discharge(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE))
    await town.deliver()
    told = await town.hear(hospital.says("A13", "15:40", pv1={3: "4W^1^A"}))
    assert sorted(told) == [
        ("haven", "CANCELLED", "DISCHARGE_CANCELLED"),
        ("sunnyside", "CANCELLED", "DISCHARGE_CANCELLED"),
    ]
    assert await town.state() == "INPATIENT"
    cancelled = (await town.notices("sunnyside"))[-1][0]
    shown = await town.rendered(cancelled)
    assert "4W" in shown
    assert "SUNNYSIDE REHAB" not in shown.replace('"Sunnyside"', "")


async def test_7_cancelling_twice_or_nothing(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"), hospital.says("A03", "15:00", disposition=SNF))
    await town.deliver()
    assert len(await town.hear(hospital.says("A13", "15:40"))) == 1
    await town.deliver()
    assert await town.hear(hospital.says("A13", "15:50")) == []
    assert await town.hear(hospital.says("A13", "16:00", visit="V999")) == []
    assert await town.work() == []


@pytest.mark.parametrize("batch", [1, 200])
async def test_8_a_discharge_that_overtakes_its_admission(town: Setting, hospital: Hospital, batch: int) -> None:
    town.batch = batch
    told = await town.hear(
        hospital.says("A03", "15:02", disposition=SNF, pv1={45: "20260301150200-0500"}),
        hospital.says("A01", "09:00", pv1={44: "20260301090000-0500"}).arriving("15:03"),
    )
    assert told == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert await town.state() == "DISCHARGED"
    assert "COVERED_BY_DISCHARGE" in await town.reasons()


async def test_9_the_same_bytes_again(town: Setting, hospital: Hospital) -> None:
    admission = hospital.says("A01", "10:00", control="778812")
    assert len(await town.hear(admission, admission.arriving("10:00:14"))) == 1


async def test_10_a_control_id_used_again(town: Setting, hospital: Hospital) -> None:
    told = await town.hear(
        hospital.says("A01", "10:00", control="1", pcp=PATEL),
        hospital.says("A01", "10:05", visit="V2", mrn="77", control="1", pcp=PATEL),
    )
    assert [t for t in told if t[0] == "patel"] == [("patel", "NEW", "INPATIENT_ADMIT")] * 2


@pytest.mark.parametrize("happened", [None, "14:00"])
async def test_11_a_cancelled_admission_restores_the_ed(
    town: Setting, hospital: Hospital, happened: str | None
) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"), hospital.says("A01", "14:00", "I"))
    await town.deliver()
    assert await town.hear(hospital.says("A11", "14:30", "E", happened=happened)) == [
        ("haven", "CANCELLED", "ADMIT_CANCELLED")
    ]
    assert await town.state() == "ED"


async def test_14_an_interim_bill_is_no_discharge(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    assert await town.hear(hospital.says("A03", "15:00", disposition=STILL)) == []
    assert await town.state() == "INPATIENT"
    assert "still_patient" in await town.flags()


async def test_15_a_local_code_means_what_its_own_hospital_says(town: Setting, hospital: Hospital) -> None:
    town.feed(SourceProfile(disposition_map={"HHS": "06"}), "a-adt")
    other = Hospital(mrn="0012345")
    await town.hear(hospital.says("A03", "15:00", disposition="HHS", pcp=PATEL), feed="a-adt")
    told = await town.hear(other.says("A03", "15:00", visit="V200", disposition="HHS", pcp=PATEL), feed="b-adt")
    assert ("patel", "NEW", "INPATIENT_DISCHARGE") in told
    first, second = [notice for notice, _ in await town.notices("patel")]
    assert "HOME_HEALTH" in await town.rendered(first)
    shown = await town.rendered(second)
    assert "UNKNOWN" in shown
    assert "HOME" not in shown
    assert "CODE_UNMAPPED" in await town.work()


async def test_15_a_planned_readmission_is_a_nursing_home_all_the_same(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A03", "15:00", disposition="83", destination=TO_SUNNYSIDE))
    ((notice, _),) = await town.notices("sunnyside")
    assert '"SNF"' in await town.rendered(notice)


async def test_16_times_without_zone_and_days(town: Setting, hospital: Hospital) -> None:
    day = "2026-11-01"
    said = hospital.says("A03", "01:31:05", day=day, disposition=SNF)
    body = said.body.replace(b"EVN||20261101013105-0400||||", b"EVN||20261101013105-0500||||20261101013000")
    body = body.replace(b"20261101013105-0400", b"20261101013105-0500")
    said = type(said)(body, said.received.replace(fold=1))
    town.now = said.received
    await town.hear(said)
    ((notice, _),) = await town.notices("haven")
    assert notice.effective == "2026-11-01T01:30:00-05:00"


async def test_18_a_part_2_unit_tells_nobody(town: Setting, hospital: Hospital) -> None:
    unit = UnitTraits(part2=True, sensitivity=("SUD",))
    town.feed(SourceProfile(location_map={"DETOX-2": unit}))
    assert await town.hear(hospital.says("A01", "10:00", pv1={3: "DETOX-2^4^A", 10: "SUD"}, pcp=PATEL)) == []
    assert await town.reasons("patel") == {"PART2_NO_CONSENT"}
    moved = hospital.says("A02", "12:00", pv1={3: "3N^1^A"})
    gone = hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE)
    assert await town.hear(moved, gone) == []


async def test_21_a_discharge_without_a_practitioner(town: Setting, hospital: Hospital) -> None:
    fallback = {7: "", 17: "1999000031^ROE^ANN^^^^MD^^NPI"}
    await town.hear(hospital.says("A03", "15:00", visit="V1", disposition=SNF, pv1=fallback))
    assert await town.work() == []
    nobody = {7: "9999999999^UNKNOWN^PROVIDER"}
    told = await town.hear(hospital.says("A03", "15:00", visit="V2", disposition=SNF, pv1=nobody))
    assert told == [("haven", "NEW", "INPATIENT_DISCHARGE")]
    assert await town.work() == ["TREATING_NOT_SUPPLIED"]


async def test_a_record_is_deleted(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"))
    await town.deliver()
    assert await town.hear(hospital.says("A23", "10:30", "E")) == []
    town.feed(SourceProfile(a23_is_cancel_visit=True))
    assert await town.hear(hospital.says("A23", "10:40", "E")) == [("haven", "CANCELLED", "ED_CANCELLED")]


async def test_24_a_quick_registration_reaches_the_physician_later(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"))
    assert await town.hear(hospital.says("A08", "10:10", "E", pcp=PATEL)) == [("patel", "NEW", "ED_REGISTRATION")]
    ((notice, _),) = await town.notices("patel")
    assert notice.effective == "2026-03-01T10:00:00-05:00"


@pytest.mark.parametrize("together", [False, True])
async def test_25_an_unknown_patient_turns_out_to_be_a_resident(
    town: Setting, hospital: Hospital, together: bool
) -> None:
    messages = [
        hospital.says("A04", "10:00", "E", mrn="T999", name="TRAUMA^T999"),
        hospital.merges("10:30", into="0012345", prior="T999"),
    ]
    if together:
        await town.receive(*messages)
        told = await town.route()
    else:
        assert await town.hear(messages[0]) == []
        told = await town.hear(messages[1])
    assert told == [("haven", "NEW", "ED_REGISTRATION")]


async def test_25_the_merge_that_comes_before_its_visit(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.merges("10:30", into="0012345", prior="T999"))
    arrival = hospital.says("A04", "10:31", "E", mrn="T999", name="TRAUMA^T999")
    assert await town.hear(arrival) == [("haven", "NEW", "ED_REGISTRATION")]


async def test_26_discharged_cancelled_and_discharged_again(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    told = []
    for trigger, clock in (("A03", "15:00"), ("A13", "15:30"), ("A03", "16:00")):
        said = hospital.says(trigger, clock, disposition=SNF, happened="15:00" if trigger == "A03" else None)
        told += await town.hear(said)
        await town.deliver()
    assert told == [
        ("haven", "NEW", "INPATIENT_DISCHARGE"),
        ("haven", "CANCELLED", "DISCHARGE_CANCELLED"),
        ("haven", "NEW", "INPATIENT_DISCHARGE"),
    ]


async def test_27_the_ed_visit_is_closed_after_the_admission(town: Setting, hospital: Hospital) -> None:
    await town.hear(
        hospital.says("A04", "10:00", "E", "V100"), hospital.says("A01", "14:00", "I", "V200", pv1={50: "V100"})
    )
    assert await town.hear(hospital.says("A03", "17:30", "E", "V100")) == []
    assert "CONVERSION_NOT_DISCHARGE" in await town.reasons()


async def test_28_an_update_does_not_overtake_a_movement(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A04", "10:00", "E"), hospital.says("A08", "14:03", "E"))
    late = hospital.says("A06", "14:02:58", "I").arriving("14:03:05")
    assert await town.hear(late) == [("haven", "NEW", "INPATIENT_ADMIT")]


async def test_29_the_destination_is_corrected(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", pcp=PATEL))
    await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE))
    await town.deliver()
    told = await town.hear(hospital.says("A08", "15:20", disposition=SNF, destination="MEADOW"))
    assert sorted(told) == [
        ("haven", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED"),
        ("meadow", "NEW", "INPATIENT_DISCHARGE"),
        ("patel", "UPDATED", "INPATIENT_DISCHARGE_CORRECTED"),
        ("sunnyside", "RETRACTED", "INPATIENT_DISCHARGE"),
    ]
    discharge, retraction = [notice for notice, _ in await town.notices("sunnyside")]
    assert retraction.supersedes == discharge.notice_id
    assert "MEADOW" not in (await town.rendered(retraction)).upper()


async def test_a_leave_of_absence_is_told_to_nobody(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    assert await town.hear(hospital.says("A21", "12:00"), hospital.says("A22", "18:00")) == []
    assert [kind for _, kind in await town.transitions()] == ["INPATIENT_ADMIT", "LEAVE_START", "LEAVE_END"]


async def test_two_patients_swap_beds_in_one_message(town: Setting, hospital: Hospital) -> None:
    await town.hear(
        hospital.says("A01", "10:00", visit="V1", pv1={3: "3N^1^A"}),
        hospital.says("A01", "10:00", visit="V2", mrn="77", pv1={3: "3N^2^A"}),
    )
    first = hospital.says("A17", "11:00", visit="V1", pv1={3: "3N^2^A"})
    second = hospital.says("A17", "11:00", visit="V2", mrn="77", pv1={3: "3N^1^A"})
    both = first.body + second.body[second.body.index(b"PID|") :]
    assert await town.hear(type(first)(both, first.received)) == []
    assert [kind for _, kind in await town.transitions("V1")] == ["INPATIENT_ADMIT", "LOCATION_CHANGE"]
    assert [kind for _, kind in await town.transitions("V2")] == ["INPATIENT_ADMIT", "LOCATION_CHANGE"]


async def test_a_panel_member_who_left_yesterday(town: Setting, hospital: Hospital) -> None:
    member = '{domain: STJ, value: "0012345", to: "2026-02-28"}'
    await town.apply(directory([entry("haven")], panels={"haven": [member]}))
    assert await town.hear(hospital.says("A01", "10:00")) == []
    assert "PANEL_EXPIRED" in await town.reasons("haven")


async def test_an_initial_load_builds_state_and_tells_nobody(town: Setting, hospital: Hospital) -> None:
    assert await town.hear(hospital.says("A01", "10:00", processing="P^I")) == []
    assert await town.state() == "INPATIENT"
    told = await town.hear(hospital.says("A03", "15:00", disposition=SNF))
    assert told == [("haven", "NEW", "INPATIENT_DISCHARGE")]


async def test_a_partial_birth_date_does_no_harm(town: Setting, hospital: Hospital) -> None:
    told = await town.hear(hospital.says("A03", "15:00", disposition=SNF, pid={7: "1940"}))
    assert told == [("haven", "NEW", "INPATIENT_DISCHARGE")]


async def test_a_raw_ampersand_in_the_destination(town: Setting, hospital: Hospital) -> None:
    await town.apply(directory([entry("grove", 'aliases: ["ELM & OAK"]')]))
    told = await town.hear(hospital.says("A03", "15:00", disposition=SNF, destination="ELM & OAK^20260301"))
    assert told == [("grove", "NEW", "INPATIENT_DISCHARGE")]


async def test_the_town_is_a_valid_directory(town: Setting) -> None:
    assert TOWN.count("- id:") == 4
