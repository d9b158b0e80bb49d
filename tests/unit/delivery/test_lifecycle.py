"""Outcome by outcome: what becomes of a notice, of its endpoint, and what is asked before an attempt."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.delivery_setting import make_notice, make_recipient, make_snapshot, webhook
from tocengine.delivery.breaker import EndpointStanding, EndpointStatus
from tocengine.delivery.breaker import after_attempt as endpoint_after
from tocengine.delivery.freshness import Ended, Head, Ready, Waiting, check
from tocengine.delivery.lifecycle import EndReason, Standing, after_attempt
from tocengine.delivery.window import Windows
from tocengine.model.directory import ChannelKind, Endpoint, Recipient
from tocengine.model.encounter import TransitionStatus
from tocengine.model.ids import EndpointId
from tocengine.model.notice import Failure, NoticeState, Outcome

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AGE = timedelta(hours=24)
REFUSED = Outcome(failure=Failure.TRANSIENT, delivered=False, reached=False)
LOST = Outcome(failure=Failure.AMBIGUOUS, delivered=False)


def failed(failure: Failure, **more: object) -> Outcome:
    return Outcome(failure=failure, delivered=False, **more)  # type: ignore[arg-type]


def standing(**changes: object) -> Standing:
    values: dict[str, object] = {
        "attempt": 1,
        "endpoint": 0,
        "usable": (0,),
        "possibly_told": False,
        "expires_at": NOW + AGE,
    }
    return Standing(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "usable", "state", "due_in", "told", "endpoint", "reason"),
    [
        (Outcome(), (0,), "DELIVERED", None, True, 0, None),
        (Outcome(delivered=False, status=202), (0,), "SENT", None, True, 0, None),
        (REFUSED, (0,), "QUEUED", 4, False, 0, None),
        (LOST, (0,), "QUEUED", 4, True, 0, None),
        (failed(Failure.TRANSIENT, retry_after_s=120.0, reached=False), (0,), "QUEUED", 120, False, 0, None),
        (failed(Failure.TRANSIENT, retry_after_s=1.0), (0,), "QUEUED", 4, True, 0, None),
        (failed(Failure.PAUSE, reached=False), (0, 1), "QUEUED", None, False, 0, None),
        (failed(Failure.PERMANENT, reached=False), (0, 2), "QUEUED", 0, False, 2, None),
        (failed(Failure.PERMANENT, reached=False), (0,), "FAILED", None, False, 0, EndReason.REJECTED),
        (failed(Failure.DISABLE, reached=False), (0,), "FAILED", None, False, 0, EndReason.ENDPOINT_DISABLED),
    ],
)
def test_the_table_of_outcomes(
    outcome: Outcome,
    usable: tuple[int, ...],
    state: str,
    due_in: int | None,
    told: bool,
    endpoint: int,
    reason: EndReason | None,
) -> None:
    verdict = after_attempt(standing(usable=usable), outcome, NOW, 4.0, AGE)
    due_at = None if due_in is None else NOW + timedelta(seconds=due_in)
    assert (verdict.state, verdict.due_at, verdict.possibly_told) == (state, due_at, told)
    assert (verdict.endpoint, verdict.reason) == (endpoint, reason)


def test_what_was_possibly_told_stays_so() -> None:
    assert after_attempt(standing(possibly_told=True), REFUSED, NOW, 1.0, AGE).possibly_told


def test_a_retry_is_due_no_later_than_the_notice_expires() -> None:
    soon = NOW + timedelta(seconds=1)
    assert after_attempt(standing(expires_at=soon), LOST, NOW, 60.0, AGE).due_at == soon


def rested(known: EndpointStanding, outcome: Outcome, *, probe: bool = False) -> EndpointStanding:
    return endpoint_after(known, outcome, NOW, probe=probe, threshold=3, delay_s=lambda n: 10.0 * n)


def test_the_breaker_opens_after_consecutive_failures_and_grows_by_probes() -> None:
    known = EndpointStanding()
    for _ in range(3):
        known = rested(known, LOST)
    assert known.not_before == NOW + timedelta(seconds=10)
    straggler = rested(known, LOST)
    assert straggler == known
    probed = rested(known, REFUSED, probe=True)
    assert probed.not_before == NOW + timedelta(seconds=20)
    assert rested(probed, Outcome(), probe=True) == EndpointStanding()


def test_a_refused_notice_shows_that_the_receiver_is_there() -> None:
    assert rested(EndpointStanding(failures=2), failed(Failure.PERMANENT)).failures == 0


def test_a_success_on_its_way_does_not_cut_a_retry_after_short() -> None:
    known = rested(EndpointStanding(), failed(Failure.TRANSIENT, retry_after_s=120.0))
    assert known.not_before == NOW + timedelta(seconds=120)
    assert rested(known, Outcome()).not_before == known.not_before


def test_a_paused_endpoint_stays_paused_and_a_gone_one_gone() -> None:
    paused = rested(EndpointStanding(), failed(Failure.PAUSE, detail="HTTP 401"))
    assert (paused.status, paused.reason) == (EndpointStatus.PAUSED, "HTTP 401")
    assert rested(paused, Outcome()).status is EndpointStatus.PAUSED
    assert rested(EndpointStanding(), failed(Failure.DISABLE)).status is EndpointStatus.DISABLED


FHIR = Endpoint(id=EndpointId("fhir"), channel=ChannelKind.FHIR, url="https://f.example.org/fhir")
AGREED = Endpoint(
    id=EndpointId("agreed"), channel=ChannelKind.FHIR, url="https://a.example.org/fhir", accepts_cancel=True
)
HOOK = webhook("https://h.example.org/notices", "hook")


def asked(
    recipient: Recipient | None,
    known: dict[str, EndpointStanding] | None = None,
    *,
    status: TransitionStatus = TransitionStatus.NEW,
    endpoint: int = 0,
    expires_at: datetime = NOW + AGE,
    probing: str | None = None,
) -> Ready | Waiting | Ended:
    head = Head(
        notice=make_notice(make_snapshot(), status=status),
        endpoint=endpoint,
        attempts=2,
        possibly_told=False,
        expires_at=expires_at,
    )
    return check(head, recipient, known or {}, NOW, AGE, probing)


def test_ready_at_the_first_usable_endpoint() -> None:
    found = asked(make_recipient(HOOK, FHIR))
    assert isinstance(found, Ready)
    assert (found.endpoint, found.standing.attempt, found.standing.usable) == (HOOK, 3, (0, 1))


def test_retired_recipients_and_missing_endpoints() -> None:
    assert asked(None) == Ended(NoticeState.SUPPRESSED, EndReason.NO_RECIPIENT)
    assert asked(make_recipient()) == Ended(NoticeState.FAILED, EndReason.NO_ENDPOINT)
    assert asked(make_recipient(HOOK), endpoint=1) == Ended(NoticeState.FAILED, EndReason.NO_ENDPOINT)
    disabled = {"hook": EndpointStanding(status=EndpointStatus.DISABLED)}
    assert asked(make_recipient(HOOK), disabled) == Ended(NoticeState.FAILED, EndReason.ENDPOINT_DISABLED)


@pytest.mark.parametrize("status", [TransitionStatus.CANCELLED, TransitionStatus.RETRACTED])
def test_taking_back_over_fhir_only_where_agreed(status: TransitionStatus) -> None:
    found = asked(make_recipient(FHIR, HOOK), status=status)
    assert isinstance(found, Ready)
    assert found.endpoint is HOOK
    agreed = asked(make_recipient(AGREED), status=status)
    assert isinstance(agreed, Ready)
    assert asked(make_recipient(FHIR), status=status) == Ended(NoticeState.FAILED, EndReason.CANCELLATION_NOT_SENDABLE)


def test_paused_and_resting_endpoints_are_waited_for() -> None:
    waiting = Waiting(HOOK.id, NOW + AGE)
    assert asked(make_recipient(HOOK), {"hook": EndpointStanding(status=EndpointStatus.PAUSED)}) == waiting
    resting = {"hook": EndpointStanding(not_before=NOW + timedelta(seconds=1))}
    assert asked(make_recipient(HOOK), resting) == waiting
    assert isinstance(asked(make_recipient(HOOK), resting, probing="hook"), Ready)
    assert isinstance(asked(make_recipient(HOOK), {"hook": EndpointStanding(not_before=NOW)}), Ready)


def test_a_notice_too_old_for_its_endpoint_waits_for_the_next_one_with_time_of_its_own() -> None:
    resting = {str(FHIR.id): EndpointStanding(not_before=NOW + timedelta(seconds=1))}
    assert asked(make_recipient(HOOK, FHIR), resting, expires_at=NOW) == Waiting(FHIR.id, NOW + AGE, moved=1)


def test_a_notice_too_old_goes_to_the_next_endpoint_else_to_a_person() -> None:
    assert asked(make_recipient(HOOK), expires_at=NOW) == Ended(NoticeState.FAILED, EndReason.MAX_AGE)
    found = asked(make_recipient(HOOK, FHIR), expires_at=NOW)
    assert isinstance(found, Ready)
    assert (found.endpoint, found.standing.expires_at) == (FHIR, NOW + AGE)


def test_the_window_opens_while_answers_are_quick() -> None:
    windows = Windows(8)
    assert windows.allowances() == ([], [])
    for _ in range(8):
        windows.taken("r")
    assert windows.allowances() == (["r"], [0])
    for _ in range(8):
        windows.ended("r", 0.01, answered=True)
    assert windows.allowances() == (["r"], [16])
    windows.taken("r")
    windows.ended("r", 3.0, answered=True)
    assert windows.allowances() == ([], [])
