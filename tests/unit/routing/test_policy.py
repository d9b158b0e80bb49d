"""Each filter and its reason code (domain 5.2)."""

from datetime import date

import msgspec
import pytest

from tests.unit.routing.building import (
    FEED,
    HOSPITAL_NPI,
    MEADOW,
    PATEL,
    PATEL_NPI,
    POLICY,
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
from tocengine.model.directory import Level
from tocengine.model.encounter import EncounterState, TrackedEncounter, TransitionKind, TransitionStatus
from tocengine.model.facts import CareSetting, Destination, Mark, MarkEffect
from tocengine.model.work import WorkKind
from tocengine.routing.directory import Directory
from tocengine.routing.ledger import NOBODY

S = TransitionStatus
TO_SUNNYSIDE = Destination(text="SUNNYSIDE REHAB")


@pytest.mark.parametrize("reason", ["TEST_MESSAGE", "INITIAL_LOAD"])
def test_test_and_load_traffic_is_recorded_and_never_told(reason: str) -> None:
    desk = Desk()
    encounter = tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI, suppressed=reason)
    assert reasons(desk.route(encounter)) == {(PATEL, K.INPATIENT_DISCHARGE): reason}
    assert desk.route(encounter) == []
    live = tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI)
    assert desk.route(live) == [], "what was loaded silently stays silent when the feed goes live"


def test_shadow_decides_everything_and_sends_nothing() -> None:
    desk = Desk()
    encounter = tracked(
        fact(K.INPATIENT_DISCHARGE),
        fact(K.ED_REGISTRATION, effective=at(-9)),
        pcp=PATEL_NPI,
        destination=Destination(text="NOWHERE KNOWN"),
        setting=CareSetting.SNF,
        shadow=True,
    )
    assert reasons(desk.route(encounter)) == {
        (PATEL, K.INPATIENT_DISCHARGE): "SHADOW",
        (PATEL, K.ED_REGISTRATION): "SHADOW",
        (NOBODY, K.INPATIENT_DISCHARGE): "DESTINATION_UNRESOLVED",
    }
    assert desk.sent() == []


@pytest.mark.parametrize("reason", ["COVERED_BY_DISCHARGE", "CONVERSION_NOT_DISCHARGE"])
def test_covered_facts_are_not_told(reason: str) -> None:
    rulings = Desk().route(tracked(fact(K.ED_DISCHARGE, covered_by=reason), pcp=PATEL_NPI))
    assert reasons(rulings) == {(PATEL, K.ED_DISCHARGE): reason}


def test_covered_fact_that_nobody_would_hear_of_is_recorded_once() -> None:
    desk = Desk()
    encounter = tracked(fact(K.ED_DISCHARGE, covered_by="CONVERSION_NOT_DISCHARGE"))
    assert reasons(desk.route(encounter)) == {(NOBODY, K.ED_DISCHARGE): "CONVERSION_NOT_DISCHARGE"}
    assert desk.route(encounter) == []


@pytest.mark.parametrize(
    ("age_days", "state", "expected"),
    [
        (0.9, EncounterState.DISCHARGED, "told"),
        (1.1, EncounterState.DISCHARGED, "late"),
        (7.1, EncounterState.DISCHARGED, "LATE_HISTORIC"),
        (30, EncounterState.INPATIENT, "late"),
    ],
)
def test_age(age_days: float, state: EncounterState, expected: str) -> None:
    kind = K.INPATIENT_ADMIT if state is EncounterState.INPATIENT else K.INPATIENT_DISCHARGE
    rulings = Desk().route(tracked(fact(kind, effective=at(days=-age_days)), state=state, pcp=PATEL_NPI))
    if expected == "LATE_HISTORIC":
        assert reasons(rulings) == {(PATEL, kind): expected}
    else:
        assert notice_of(rulings, PATEL).late is (expected == "late")


def test_late_after_belongs_to_the_feed() -> None:
    policy = msgspec.structs.replace(POLICY, late_after_h={FEED: 2})
    rulings = Desk(policy=policy).route(tracked(fact(K.INPATIENT_DISCHARGE, effective=at(-3)), pcp=PATEL_NPI))
    assert notice_of(rulings, PATEL).late


def test_delay_of_the_engine_makes_nothing_late() -> None:
    rulings = Desk().route(tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI), now=at(days=9))
    assert not notice_of(rulings, PATEL).late


def test_visit_closed_for_a_week_is_not_corrected() -> None:
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI))
    desk.deliver()
    later = tracked(fact(K.INPATIENT_DISCHARGE, watched=b"v2"), pcp=PATEL_NPI, received=at(days=8), message="m2")
    assert reasons(desk.route(later)) == {(PATEL, K.INPATIENT_DISCHARGE): "LATE_HISTORIC"}
    assert desk.route(later) == []


def test_membership_counts_as_of_the_day_of_the_event() -> None:
    encounter = tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT)
    day = date(2026, 3, 1)
    assert told(Desk().route(encounter, hit(MEADOW, ends=day))) == [(MEADOW, S.NEW, K.INPATIENT_ADMIT)]
    expired = Desk().route(encounter, hit(MEADOW, ends=date(2026, 2, 28)))
    assert reasons(expired) == {(MEADOW, K.INPATIENT_ADMIT): "PANEL_EXPIRED"}
    not_yet = Desk().route(encounter, hit(MEADOW, starts=date(2026, 3, 2)))
    assert reasons(not_yet) == {(NOBODY, K.INPATIENT_ADMIT): "NO_RECIPIENT"}


def test_subscription_names_the_kinds() -> None:
    directory = Directory(1, (recipient(PATEL, npi=PATEL_NPI, events=(K.INPATIENT_DISCHARGE,)),))
    rulings = Desk(directory).route(
        tracked(fact(K.ED_REGISTRATION, effective=at(-5)), fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI)
    )
    assert told(rulings) == [(PATEL, S.NEW, K.INPATIENT_DISCHARGE)]
    assert reasons(rulings) == {(PATEL, K.ED_REGISTRATION): "EVENT_NOT_SUBSCRIBED"}


def test_observation_is_told_on_request_alone() -> None:
    encounter = tracked(fact(K.OBSERVATION_START), state=EncounterState.OBSERVATION, pcp=PATEL_NPI)
    assert reasons(Desk().route(encounter)) == {(PATEL, K.OBSERVATION_START): "EVENT_NOT_SUBSCRIBED"}
    wants = Directory(1, (recipient(PATEL, npi=PATEL_NPI, events=(K.OBSERVATION_START,)),))
    assert told(Desk(wants).route(encounter)) == [(PATEL, S.NEW, K.OBSERVATION_START)]


@pytest.mark.parametrize("kind", [K.LOCATION_CHANGE, K.LEAVE_START, K.DISCHARGE_PENDING])
def test_inner_facts_are_nobodys_business(kind: TransitionKind) -> None:  # scenario 3
    assert Desk().route(tracked(fact(kind), pcp=PATEL_NPI)) == []


def test_part_2_unit_tells_nobody_anything() -> None:  # scenario 18
    encounter = tracked(
        fact(K.INPATIENT_DISCHARGE), destination=TO_SUNNYSIDE, setting=CareSetting.SNF, pcp=PATEL_NPI, part2=True
    )
    assert reasons(Desk().route(encounter)) == {
        (SUNNYSIDE, K.INPATIENT_DISCHARGE): "PART2_NO_CONSENT",
        (PATEL, K.INPATIENT_DISCHARGE): "PART2_NO_CONSENT",
    }


def test_what_was_told_before_a_part_2_unit_is_still_taken_back_without_new_values() -> None:
    desk = Desk()
    discharge = fact(K.INPATIENT_DISCHARGE)
    before = tracked(discharge, pcp=PATEL_NPI)
    desk.route(before)
    desk.deliver()
    rulings = desk.route(
        tracked(cancelled=((discharge, K.DISCHARGE_CANCELLED),), pcp=PATEL_NPI, part2=True, message="a13")
    )
    notice = notice_of(rulings, PATEL)
    assert (notice.status, notice.level) == (S.CANCELLED, Level.COP_MIN)
    assert notice.snapshot_id == before.snapshot.snapshot_id


def test_sensitive_stay_gives_the_minimum_to_all_but_the_destination() -> None:
    rulings = Desk().route(
        tracked(
            fact(K.INPATIENT_DISCHARGE),
            destination=TO_SUNNYSIDE,
            setting=CareSetting.SNF,
            pcp=PATEL_NPI,
            sensitivity=("SUD",),
        )
    )
    assert notice_of(rulings, SUNNYSIDE).level is Level.FULL
    assert notice_of(rulings, PATEL).level is Level.COP_MIN


def test_stay_that_becomes_sensitive_replaces_what_waits_by_less() -> None:
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT, pcp=PATEL_NPI))
    rulings = desk.route(
        tracked(
            fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT, pcp=PATEL_NPI, sensitivity=("PSY",), message="a02"
        )
    )
    assert notice_of(rulings, PATEL).level is Level.COP_MIN
    assert len(desk.sent()) == 1


def test_stay_that_becomes_part_2_takes_away_what_waits() -> None:
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT, pcp=PATEL_NPI))
    rulings = desk.route(
        tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT, pcp=PATEL_NPI, part2=True, message="a02")
    )
    assert reasons(rulings) == {(PATEL, K.INPATIENT_ADMIT): "PART2_NO_CONSENT"}
    assert desk.sent() == []


def test_no_endpoint() -> None:
    directory = Directory(1, (recipient(PATEL, npi=PATEL_NPI, endpoints=False),))
    rulings = Desk(directory).route(tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI))
    assert reasons(rulings) == {(PATEL, K.INPATIENT_DISCHARGE): "NO_ENDPOINT"}


def test_nobody_is_told_of_its_own_event() -> None:
    directory = Directory(1, (recipient(MEADOW, npi=HOSPITAL_NPI),))
    encounter = tracked(fact(K.INPATIENT_ADMIT), state=EncounterState.INPATIENT)
    assert reasons(Desk(directory).route(encounter, hit(MEADOW))) == {(MEADOW, K.INPATIENT_ADMIT): "FILTERED"}


def test_correction_follows_what_was_told_whatever_the_subscription_says_now() -> None:
    desk = Desk()
    desk.route(tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI))
    desk.deliver()
    desk.directory = Directory(2, (recipient(PATEL, npi=PATEL_NPI, events=(K.ED_REGISTRATION,)),))
    corrected = tracked(fact(K.INPATIENT_DISCHARGE, watched=b"v2"), pcp=PATEL_NPI, message="m2")
    assert told(desk.route(corrected)) == [(PATEL, S.UPDATED, K.INPATIENT_DISCHARGE_CORRECTED)]


def _discharged(setting: CareSetting | None, destination: Destination, deceased: bool = False) -> TrackedEncounter:
    return tracked(fact(K.INPATIENT_DISCHARGE), destination=destination, setting=setting, deceased=deceased)


@pytest.mark.parametrize(
    ("setting", "destination", "is_told"),
    [
        (CareSetting.SNF, TO_SUNNYSIDE, True),
        (CareSetting.ACUTE_HOSPITAL, TO_SUNNYSIDE, True),
        (CareSetting.UNKNOWN, TO_SUNNYSIDE, True),
        (None, TO_SUNNYSIDE, True),
        (CareSetting.OTHER_FACILITY, Destination(npi="1999000015"), True),
        (CareSetting.HOME_HEALTH, TO_SUNNYSIDE, False),  # an agency's code with a nursing facility's name
        (CareSetting.HOME_HEALTH, Destination(npi="1999000015"), True),
        (CareSetting.HOME, TO_SUNNYSIDE, False),
        (CareSetting.HOME, Destination(npi="1999000015"), True),
        (CareSetting.AMA, TO_SUNNYSIDE, False),
        (CareSetting.LAW_ENFORCEMENT, Destination(npi="1999000015"), False),
        (CareSetting.EXPIRED, TO_SUNNYSIDE, False),
        (CareSetting.STILL_PATIENT, TO_SUNNYSIDE, False),
    ],
)
def test_disposition_and_destination(
    setting: CareSetting | None, destination: Destination, is_told: bool
) -> None:  # domain section 3
    assert bool(told(Desk().route(_discharged(setting, destination)))) is is_told


def test_conflict_of_disposition_and_destination_is_recorded() -> None:
    rulings = Desk().route(_discharged(CareSetting.HOME_HEALTH, TO_SUNNYSIDE))
    assert reasons(rulings) == {(SUNNYSIDE, K.INPATIENT_DISCHARGE): "DESTINATION_UNRESOLVED"}
    assert rulings[0].decision is not None
    assert "disposition_conflict" in rulings[0].decision.evidence
    assert rulings[0].work is not None
    assert rulings[0].work.kind is WorkKind.DESTINATION_UNRESOLVED


def test_destination_of_the_deceased_is_not_told() -> None:
    assert told(Desk().route(_discharged(CareSetting.SNF, TO_SUNNYSIDE, deceased=True))) == []


def test_home_needs_no_destination_and_post_acute_without_one_says_so() -> None:
    home = Desk().route(_discharged(CareSetting.HOME, Destination(text="12 ELM ST")))
    assert reasons(home) == {(NOBODY, K.INPATIENT_DISCHARGE): "NO_RECIPIENT"}
    nowhere = Desk().route(_discharged(CareSetting.SNF, Destination()))
    assert reasons(nowhere) == {(NOBODY, K.INPATIENT_DISCHARGE): "DESTINATION_UNRESOLVED"}
    assert not any(ruling.work for ruling in nowhere), "a feed that never names one gives no work item each"


@pytest.mark.parametrize(
    ("effect", "doctor", "destination"),
    [
        (MarkEffect.NOTE, Level.STANDARD, Level.FULL),
        (MarkEffect.LEAST, Level.COP_MIN, Level.FULL),
        (MarkEffect.HOLD, None, None),
    ],
)
def test_a_mark_of_the_sender_limits_or_holds_back(
    effect: MarkEffect, doctor: Level | None, destination: Level | None
) -> None:
    desk = Desk()
    encounter = tracked(fact(K.INPATIENT_DISCHARGE), pcp=PATEL_NPI, destination=TO_SUNNYSIDE, setting=CareSetting.SNF)
    marked = msgspec.structs.replace(encounter, marks={Mark.VIP: effect})
    rulings = desk.route(marked)
    assert {ruling.key[0]: ruling.level for ruling in rulings} == {PATEL: doctor, SUNNYSIDE: destination}
    held = [ruling.work.kind for ruling in rulings if ruling.work]
    assert set(held) == ({WorkKind.NOTICES_HELD_BACK} if effect is MarkEffect.HOLD else set())
    assert desk.route(marked) == []
