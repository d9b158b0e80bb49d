"""The diff between what stands and what each recipient holds, scenario by scenario (domain section 10)."""

from datetime import date

import pytest

from tests.unit.routing.building import (
    MEADOW,
    PATEL,
    PATEL_NPI,
    SUNNYSIDE,
    Desk,
    K,
    at,
    fact,
    hit,
    notice_of,
    reasons,
    recipient,
    told,
    tracked,
)
from tocengine.model.directory import Alias, Level
from tocengine.model.encounter import EncounterState, TransitionStatus
from tocengine.model.facts import CareSetting, Destination
from tocengine.model.identity import PatientKey
from tocengine.model.notice import Basis, NoticeState, ReasonCode
from tocengine.model.work import WorkKind
from tocengine.routing.directory import Directory
from tocengine.routing.ledger import NOBODY

S = TransitionStatus
TO_SUNNYSIDE = Destination(text="SUNNYSIDE REHAB")
TO_MEADOW = Destination(text="MEADOW")


def test_each_fact_is_told_once_and_deciding_again_says_nothing() -> None:
    desk = Desk()
    arrival = fact(K.ED_REGISTRATION, effective=at(-4))
    admission = fact(K.INPATIENT_ADMIT)
    encounter = tracked(arrival, admission, state=EncounterState.INPATIENT, pcp=PATEL_NPI)
    assert told(desk.route(encounter)) == [
        (PATEL, S.NEW, K.ED_REGISTRATION),
        (PATEL, S.NEW, K.INPATIENT_ADMIT),
    ]
    assert desk.route(encounter) == []
    desk.deliver()
    assert desk.route(encounter) == []


def test_discharge_to_a_named_facility() -> None:  # scenario 4
    desk = Desk()
    rulings = desk.route(
        tracked(fact(K.INPATIENT_DISCHARGE), destination=TO_SUNNYSIDE, setting=CareSetting.SNF, pcp=PATEL_NPI)
    )
    assert told(rulings) == [
        (SUNNYSIDE, S.NEW, K.INPATIENT_DISCHARGE),
        (PATEL, S.NEW, K.INPATIENT_DISCHARGE),
    ]
    assert notice_of(rulings, SUNNYSIDE).basis == (Basis.DESTINATION,)
    assert notice_of(rulings, SUNNYSIDE).level is Level.FULL


def test_destination_is_not_told_of_the_admission() -> None:
    rulings = Desk().route(
        tracked(fact(K.INPATIENT_ADMIT), fact(K.INPATIENT_DISCHARGE, effective=at(1)), destination=TO_SUNNYSIDE)
    )
    assert told(rulings) == [(SUNNYSIDE, S.NEW, K.INPATIENT_DISCHARGE)]


@pytest.mark.parametrize(
    ("aliases", "kind"),
    [
        ((("SUNNYSIDE",), ("Sunnyside",)), WorkKind.DESTINATION_AMBIGUOUS),
        (((), ()), WorkKind.DESTINATION_UNRESOLVED),
    ],
)
def test_destination_that_is_not_clear_is_sent_to_nobody(
    aliases: tuple[tuple[str, ...], tuple[str, ...]], kind: WorkKind
) -> None:  # scenario 5
    directory = Directory(
        1,
        (
            recipient(SUNNYSIDE, aliases=aliases[0]),
            recipient(MEADOW, aliases=aliases[1]),
            recipient(PATEL, npi=PATEL_NPI),
        ),
    )
    desk = Desk(directory)
    encounter = tracked(
        fact(K.INPATIENT_DISCHARGE),
        destination=Destination(text="SUNNYSIDE"),
        setting=CareSetting.SNF,
        pcp=PATEL_NPI,
    )
    rulings = desk.route(encounter)
    assert told(rulings) == [(PATEL, S.NEW, K.INPATIENT_DISCHARGE)]
    assert reasons(rulings) == {(NOBODY, K.INPATIENT_DISCHARGE): "DESTINATION_UNRESOLVED"}
    assert [ruling.work.kind for ruling in rulings if ruling.work] == [kind]
    assert desk.route(encounter) == []


def test_cancelled_discharge_follows_what_was_told() -> None:  # scenario 6
    desk = Desk()
    discharge = fact(K.INPATIENT_DISCHARGE)
    desk.route(tracked(discharge, destination=TO_SUNNYSIDE, setting=CareSetting.SNF))
    desk.deliver()
    undone = tracked(state=EncounterState.INPATIENT, cancelled=((discharge, K.DISCHARGE_CANCELLED),), message="a13")
    rulings = desk.route(undone)
    assert told(rulings) == [(SUNNYSIDE, S.CANCELLED, K.DISCHARGE_CANCELLED)]
    notice = notice_of(rulings, SUNNYSIDE)
    assert notice.snapshot_id == undone.snapshot.snapshot_id
    assert notice.supersedes is not None
    assert desk.route(undone) == []


def test_cancelled_while_certainly_not_told_drops_both() -> None:  # domain 5.5
    desk = Desk()
    discharge = fact(K.INPATIENT_DISCHARGE)
    desk.route(tracked(discharge, destination=TO_SUNNYSIDE, setting=CareSetting.SNF))
    undone = tracked(state=EncounterState.INPATIENT, cancelled=((discharge, K.DISCHARGE_CANCELLED),))
    rulings = desk.route(undone)
    assert told(rulings) == []
    assert reasons(rulings) == {(SUNNYSIDE, K.INPATIENT_DISCHARGE): "CANCELLED_BEFORE_SEND"}
    assert desk.sent() == []
    assert desk.route(undone) == []


def test_cancelled_while_perhaps_told_is_sent() -> None:
    desk = Desk()
    discharge = fact(K.INPATIENT_DISCHARGE)
    desk.route(tracked(discharge, destination=TO_SUNNYSIDE, setting=CareSetting.SNF))
    desk.deliver(state=NoticeState.QUEUED, possibly_told=True)
    rulings = desk.route(tracked(state=EncounterState.INPATIENT, cancelled=((discharge, K.DISCHARGE_CANCELLED),)))
    assert told(rulings) == [(SUNNYSIDE, S.CANCELLED, K.DISCHARGE_CANCELLED)]
    assert rulings[0].replaces is not None


def test_discharge_cancelled_and_discharged_again_with_identical_fields() -> None:  # scenario 26
    desk = Desk()
    first, second = fact(K.INPATIENT_DISCHARGE), fact(K.INPATIENT_DISCHARGE, 2)
    desk.route(tracked(first, destination=TO_SUNNYSIDE, setting=CareSetting.SNF))
    desk.deliver()
    desk.route(tracked(cancelled=((first, K.DISCHARGE_CANCELLED),), state=EncounterState.INPATIENT))
    desk.deliver()
    desk.route(tracked(second, destination=TO_SUNNYSIDE, setting=CareSetting.SNF))
    assert [status for _, status, _ in desk.sent(SUNNYSIDE)] == [S.NEW, S.CANCELLED, S.NEW]


def test_cancellation_and_new_discharge_in_one_batch_end_right() -> None:
    desk = Desk()
    first, second = fact(K.INPATIENT_DISCHARGE), fact(K.INPATIENT_DISCHARGE, 2)
    desk.route(tracked(first, destination=TO_SUNNYSIDE, setting=CareSetting.SNF))
    desk.deliver()
    rulings = desk.route(
        tracked(
            second,
            cancelled=((first, K.DISCHARGE_CANCELLED),),
            destination=TO_MEADOW,
            setting=CareSetting.SNF,
            message="m2",
        )
    )
    assert told(rulings) == [
        (SUNNYSIDE, S.CANCELLED, K.DISCHARGE_CANCELLED),
        (MEADOW, S.NEW, K.INPATIENT_DISCHARGE),
    ]
    # the present snapshot names the new destination, so the old one sees no more than what it had been told
    assert notice_of(rulings, SUNNYSIDE).snapshot_id != notice_of(rulings, MEADOW).snapshot_id
    assert notice_of(rulings, SUNNYSIDE).level is Level.COP_MIN


def test_one_visit_cancelled_covers_all_that_was_told() -> None:  # matrix: A11 after the discharge
    desk = Desk()
    admission, discharge = fact(K.INPATIENT_ADMIT), fact(K.INPATIENT_DISCHARGE, effective=at(1))
    desk.route(tracked(admission, discharge, pcp=PATEL_NPI))
    desk.deliver()
    rulings = desk.route(
        tracked(
            cancelled=((admission, K.ADMIT_CANCELLED), (discharge, K.ADMIT_CANCELLED)),
            pcp=PATEL_NPI,
            state=EncounterState.CANCELLED,
        )
    )
    assert told(rulings) == [(PATEL, S.CANCELLED, K.ADMIT_CANCELLED)]
    assert len([ruling for ruling in rulings if ruling.replaces]) == 2
    desk.deliver()
    assert desk.route(tracked(pcp=PATEL_NPI, state=EncounterState.CANCELLED)) == []


def test_destination_corrected() -> None:  # scenario 29
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_DISCHARGE), destination=TO_SUNNYSIDE, setting=CareSetting.SNF, pcp=PATEL_NPI))
    desk.deliver()
    corrected = tracked(
        fact(K.INPATIENT_DISCHARGE, watched=b"v2"),
        destination=TO_MEADOW,
        setting=CareSetting.SNF,
        pcp=PATEL_NPI,
        message="a08",
    )
    rulings = desk.route(corrected)
    assert told(rulings) == [
        (SUNNYSIDE, S.RETRACTED, K.INPATIENT_DISCHARGE),
        (MEADOW, S.NEW, K.INPATIENT_DISCHARGE),
        (PATEL, S.UPDATED, K.INPATIENT_DISCHARGE_CORRECTED),
    ]
    retraction = notice_of(rulings, SUNNYSIDE)
    assert retraction.snapshot_id != corrected.snapshot.snapshot_id
    assert retraction.level is Level.COP_MIN
    assert notice_of(rulings, PATEL).supersedes is not None
    assert desk.route(corrected) == []


def test_destination_that_comes_back_after_the_retraction_is_told_anew() -> None:
    desk = Desk()
    there = tracked(fact(K.INPATIENT_DISCHARGE), destination=TO_SUNNYSIDE, setting=CareSetting.SNF)
    elsewhere = tracked(
        fact(K.INPATIENT_DISCHARGE, watched=b"v2"), destination=TO_MEADOW, setting=CareSetting.SNF, message="m2"
    )
    for encounter in (there, elsewhere, there):
        desk.route(encounter)
        desk.deliver()
    assert [status for _, status, _ in desk.sent(SUNNYSIDE)] == [S.NEW, S.RETRACTED, S.NEW]
    assert [status for _, status, _ in desk.sent(MEADOW)] == [S.NEW, S.RETRACTED]


def test_destination_that_comes_back_before_the_retraction_left_hears_nothing() -> None:
    desk = Desk()
    there = tracked(fact(K.INPATIENT_DISCHARGE), destination=TO_SUNNYSIDE, setting=CareSetting.SNF)
    desk.route(there)
    desk.deliver()
    desk.route(
        tracked(fact(K.INPATIENT_DISCHARGE, watched=b"v2"), destination=TO_MEADOW, setting=CareSetting.SNF, message="b")
    )
    desk.route(there)
    assert [status for _, status, _ in desk.sent()] == [S.NEW]


def test_correction_of_what_still_waits_replaces_it() -> None:
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI))
    rulings = desk.route(tracked(fact(K.INPATIENT_DISCHARGE, watched=b"v2"), pcp=PATEL_NPI, message="a08"))
    assert told(rulings) == [(PATEL, S.NEW, K.INPATIENT_DISCHARGE)]
    assert rulings[0].drop is not None
    assert rulings[0].drop.reason is ReasonCode.SUPERSEDED
    assert desk.sent() == [(PATEL, S.NEW, K.INPATIENT_DISCHARGE)]


def test_correction_there_and_back_while_waiting_leaves_what_was_told() -> None:
    desk = Desk()
    first = tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI)
    desk.route(first)
    desk.deliver()
    desk.route(tracked(fact(K.INPATIENT_DISCHARGE, watched=b"v2"), pcp=PATEL_NPI, message="m2"))
    assert told(desk.route(first)) == []
    assert [status for _, status, _ in desk.sent()] == [S.NEW]


def test_dead_letter_is_not_repeated_by_every_update_but_replaced_by_a_correction() -> None:
    desk = Desk()
    first = tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI)
    desk.route(first)
    desk.deliver(state=NoticeState.FAILED, possibly_told=False)
    assert desk.route(first) == []
    rulings = desk.route(tracked(fact(K.INPATIENT_DISCHARGE, watched=b"v2"), pcp=PATEL_NPI, message="m2"))
    assert told(rulings) == [(PATEL, S.NEW, K.INPATIENT_DISCHARGE)]


def test_admission_known_after_the_discharge_was_told_is_covered() -> None:  # scenario 8
    desk = Desk()
    discharge = fact(K.INPATIENT_DISCHARGE, received=at(0))
    desk.route(tracked(discharge, pcp=PATEL_NPI))
    admission = fact(K.INPATIENT_ADMIT, effective=at(-6), received=at(0.1), message="a01")
    rulings = desk.route(tracked(admission, discharge, pcp=PATEL_NPI, message="a01"))
    assert told(rulings) == []
    assert reasons(rulings) == {(PATEL, K.INPATIENT_ADMIT): "COVERED_BY_DISCHARGE"}


def test_out_of_order_in_one_batch_decides_as_one_by_one() -> None:
    discharge = fact(K.INPATIENT_DISCHARGE, received=at(0))
    admission = fact(K.INPATIENT_ADMIT, effective=at(-6), received=at(0.1), message="a01")
    rulings = Desk().route(tracked(admission, discharge, pcp=PATEL_NPI, messages=("m1", "a01")))
    assert told(rulings) == [(PATEL, S.NEW, K.INPATIENT_DISCHARGE)]


def test_pcp_that_comes_later_hears_of_the_open_stay() -> None:  # scenario 24
    desk = Desk()
    arrival = fact(K.ED_REGISTRATION, effective=at(-0.2), received=at(-0.2))
    quick = tracked(arrival, state=EncounterState.ED)
    assert reasons(desk.route(quick)) == {(NOBODY, K.ED_REGISTRATION): "NO_RECIPIENT"}
    rulings = desk.route(tracked(arrival, state=EncounterState.ED, pcp=PATEL_NPI, message="a08"))
    assert told(rulings) == [(PATEL, S.NEW, K.ED_REGISTRATION)]
    assert not notice_of(rulings, PATEL).late
    assert notice_of(rulings, PATEL).effective == arrival.effective.text


def test_merge_into_a_resident_tells_the_nursing_home() -> None:  # scenario 25
    desk = Desk()
    trauma, resident = PatientKey("STJ", "T999"), PatientKey("STJ", "7770")
    arrival = fact(K.ED_REGISTRATION)
    desk.route(tracked(arrival, state=EncounterState.ED, keys=(trauma,)))
    merged = tracked(arrival, state=EncounterState.ED, keys=(resident, trauma), message="a40")
    assert told(desk.route(merged, hit(MEADOW))) == [(MEADOW, S.NEW, K.ED_REGISTRATION)]


def test_visit_moved_to_another_patient_is_retracted() -> None:  # scenario 13
    desk = Desk()
    eleven, other = PatientKey("STJ", "11"), PatientKey("STJ", "22")
    arrival = fact(K.ED_REGISTRATION)
    before = tracked(arrival, state=EncounterState.ED, keys=(eleven,))
    desk.route(before, hit(MEADOW))
    desk.deliver()
    moved = tracked(
        fact(K.ED_REGISTRATION, watched=b"v2"), state=EncounterState.ED, keys=(other,), pcp=PATEL_NPI, message="a45"
    )
    rulings = desk.route(moved)
    assert told(rulings) == [
        (MEADOW, S.RETRACTED, K.ED_REGISTRATION),
        (PATEL, S.NEW, K.ED_REGISTRATION),
    ]
    assert notice_of(rulings, MEADOW).snapshot_id == before.snapshot.snapshot_id


def test_leaving_a_panel_takes_nothing_back() -> None:
    desk = Desk()
    encounter = tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT)
    desk.route(encounter, hit(MEADOW))
    desk.deliver()
    assert told(desk.route(encounter)) == []


def test_cancellation_without_an_endpoint_asks_a_person() -> None:
    desk = Desk()
    discharge = fact(K.INPATIENT_DISCHARGE)
    desk.route(tracked(discharge, pcp=PATEL_NPI))
    desk.deliver()
    desk.directory = Directory(2, ())
    undone = tracked(cancelled=((discharge, K.DISCHARGE_CANCELLED),), pcp=PATEL_NPI)
    rulings = desk.route(undone)
    assert reasons(rulings) == {(PATEL, K.INPATIENT_DISCHARGE): "NO_ENDPOINT"}
    assert [ruling.work.kind for ruling in rulings if ruling.work] == [WorkKind.CANCELLATION_NOT_SENDABLE]
    assert desk.route(undone) == []


def test_told_fact_that_silently_vanished_is_cancelled() -> None:
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT, pcp=PATEL_NPI))
    desk.deliver()
    rulings = desk.route(tracked(state=EncounterState.ED, pcp=PATEL_NPI))
    assert told(rulings) == [(PATEL, S.CANCELLED, K.ADMIT_CANCELLED)]


def test_two_bases_make_one_notice() -> None:
    directory = Directory(1, (recipient(SUNNYSIDE, npi="1999000015", aliases=(Alias("SUN01", "stj-adt"),)),))
    rulings = Desk(directory).route(
        tracked(
            fact(K.INPATIENT_DISCHARGE),
            destination=Destination(text="SUN01"),
            setting=CareSetting.SNF,
            practice="1999000015",
        ),
        hit(SUNNYSIDE, starts=date(2026, 1, 1)),
    )
    assert notice_of(rulings, SUNNYSIDE).basis == (Basis.DESTINATION, Basis.PANEL, Basis.PCP)


def test_replay_derives_the_same_notice() -> None:
    encounter = tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI)
    first, second = Desk().route(encounter), Desk().route(encounter, now=at(1))
    assert notice_of(first, PATEL).notice_id == notice_of(second, PATEL).notice_id
    assert notice_of(first, PATEL).expires_at == at(24)
