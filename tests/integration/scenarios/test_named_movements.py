"""Hospitals that name their movements (IHE PAM, segment ZBE): messages in, notices out."""

from tests.integration.scenarios.hospital import HOME, SNF, Hospital
from tests.integration.scenarios.setting import Setting

TO_SUNNYSIDE = "SUNNYSIDE REHAB^20260301"


def zbe(number: int, action: str = "INSERT", first: str = "", starts: str = "", historic: str = "N") -> tuple[str]:
    return (f"ZBE|{number}^STJ|{starts or '20260301100000-0500'}||{action}|{historic}|{first}",)


async def test_an_old_cancel_leaves_the_discharge_it_does_not_name(town: Setting, hospital: Hospital) -> None:
    await town.hear(
        hospital.says("A01", "10:00", more=zbe(1)),
        hospital.says("A03", "12:00", disposition=HOME, more=zbe(2)),
        hospital.says("A13", "12:10", more=zbe(2, "CANCEL", "A03")),
        hospital.says("A03", "15:00", disposition=SNF, destination=TO_SUNNYSIDE, more=zbe(3)),
    )
    assert await town.hear(hospital.says("A13", "15:10", more=zbe(2, "CANCEL", "A03"))) == []
    assert await town.state() == "DISCHARGED"
    await town.deliver()
    told = await town.hear(hospital.says("A13", "15:20", more=zbe(3, "CANCEL", "A03")))
    assert sorted(told) == [
        ("haven", "CANCELLED", "DISCHARGE_CANCELLED"),
        ("sunnyside", "CANCELLED", "DISCHARGE_CANCELLED"),
    ]


async def test_an_earlier_bed_move_that_is_cancelled_moves_nobody(town: Setting, hospital: Hospital) -> None:
    await town.hear(
        hospital.says("A01", "10:00", pv1={3: "ICU^1^A"}, more=zbe(1)),
        hospital.says("A02", "12:00", pv1={3: "3N^12^B"}, more=zbe(2)),
        hospital.says("A02", "14:00", pv1={3: "4S^7^A"}, more=zbe(3)),
        hospital.says("A12", "15:00", pv1={3: "ICU^1^A"}, more=zbe(2, "CANCEL", "A02", historic="Y")),
    )
    moves = [kind for _, kind in await town.transitions() if kind == "LOCATION_CHANGE"]
    assert len(moves) == 2
    assert await town.hear(hospital.says("A12", "16:00", pv1={3: ""}, more=zbe(3, "CANCEL", "A02"))) == []
    told = await town.hear(hospital.says("A03", "17:00", pv1={3: ""}, disposition=SNF, destination=TO_SUNNYSIDE))
    assert ("sunnyside", "NEW", "INPATIENT_DISCHARGE") in told
    ((notice, _),) = await town.notices("sunnyside")
    shown = await town.rendered(notice)
    assert "ICU" in shown
    assert "4S" not in shown


async def test_a_z99_corrects_and_takes_back_the_arrival_it_names(town: Setting, hospital: Hospital) -> None:
    await town.hear(
        hospital.says("A04", "10:00", "E", more=zbe(1)),
        hospital.says("A06", "14:00", "I", more=zbe(2)),
    )
    await town.deliver()
    earlier = zbe(1, "UPDATE", "A04", starts="20260301083000-0500", historic="Y")
    assert await town.hear(hospital.says("Z99", "15:00", "E", more=earlier)) == [
        ("haven", "UPDATED", "ED_REGISTRATION_CORRECTED")
    ]
    await town.deliver()
    assert await town.hear(hospital.says("Z99", "16:00", "E", more=zbe(1, "CANCEL", "A04", historic="Y"))) == [
        ("haven", "CANCELLED", "ED_CANCELLED")
    ]
    assert await town.state() == "INPATIENT"


async def test_a_cancel_of_a_movement_nobody_stated_is_shown_to_a_person(town: Setting, hospital: Hospital) -> None:
    await town.hear(hospital.says("A01", "10:00", more=zbe(1)))
    assert await town.hear(hospital.says("A11", "11:00", more=zbe(9, "CANCEL", "A01"))) == []
    assert await town.state() == "INPATIENT"
    assert "ENCOUNTER_FLAGGED" in await town.work()


async def test_an_admission_that_is_struck_leaves_an_ed_visit_that_was_discharged(
    town: Setting, hospital: Hospital
) -> None:
    await town.hear(
        hospital.says("A04", "10:00", "E", more=zbe(1)),
        hospital.says("A06", "14:00", "I", more=zbe(2)),
        hospital.says("A03", "18:00", "E", disposition=SNF, destination=TO_SUNNYSIDE, more=zbe(3)),
    )
    await town.deliver()
    told = await town.hear(hospital.says("Z99", "19:00", "E", more=zbe(2, "CANCEL", "A06", historic="Y")))
    assert sorted(told) == [
        ("haven", "CANCELLED", "ADMIT_CANCELLED"),
        ("haven", "NEW", "ED_DISCHARGE"),
        ("sunnyside", "CANCELLED", "ADMIT_CANCELLED"),
        ("sunnyside", "NEW", "ED_DISCHARGE"),
    ]
    assert await town.hear(hospital.says("Z99", "19:05", "E", more=zbe(2, "CANCEL", "A06", historic="Y"))) == []


async def test_an_arrival_that_becomes_an_admission_moves_the_one_that_was_told(
    town: Setting, hospital: Hospital
) -> None:
    await town.hear(
        hospital.says("A04", "10:00", "E", more=zbe(1)),
        hospital.says("A06", "14:00", "I", more=zbe(2)),
    )
    await town.deliver()
    assert sorted(await town.hear(hospital.says("Z99", "15:00", "I", more=zbe(1, "UPDATE", "A04")))) == [
        ("haven", "CANCELLED", "ED_CANCELLED"),
        ("haven", "UPDATED", "INPATIENT_ADMIT_CORRECTED"),
    ]
