"""Which events of a subscription are missing, whatever order they come in."""

from hypothesis import given
from hypothesis import strategies as st

from tocengine.adapters.fhir.event_numbers import MAX_RANGES, Heard, heed, restart


def test_in_order_nothing_is_missing() -> None:
    heard = restart(0, "active")
    for number in (1, 2, 3):
        found = heed(heard, [number], number)
        assert (found.newly_missing, found.complete) == ((), False)
        heard = found.heard
    assert heard == Heard(3, (), "active")


def test_a_gap_is_found_once_and_closes_when_all_have_come() -> None:
    found = heed(Heard(2), [6], 6)
    assert (found.newly_missing, found.heard.missing) == (((3, 5),), ((3, 5),))
    found = heed(found.heard, [7], 7)
    assert found.newly_missing == ()
    found = heed(found.heard, [4], 7)
    assert (found.heard.missing, found.complete) == (((3, 3), (5, 5)), False)
    found = heed(found.heard, [3, 5], 7)
    assert (found.heard, found.complete) == (Heard(7), True)


def test_a_heartbeat_tells_of_what_did_not_come() -> None:
    assert heed(Heard(2), (), 4).newly_missing == ((3, 4),)
    assert heed(Heard(2), (), 2).newly_missing == ()


def test_what_was_before_the_first_is_not_known_to_be_missing() -> None:
    assert heed(None, [41], 41).heard == Heard(41)
    assert heed(None, (), 41).heard == Heard(41)


def test_a_handshake_starts_anew() -> None:
    assert restart(0, "requested") == Heard(0, (), "requested")


@given(st.permutations(range(1, 13)), st.sets(st.integers(1, 12)))
def test_missing_is_exactly_what_did_not_come(order: list[int], lost: set[int]) -> None:
    heard, came = restart(0, ""), []
    for number in order:
        if number not in lost:
            heard = heed(heard, [number, number], number).heard
            came.append(number)
    expected = set(range(1, max(came, default=0) + 1)) - set(came)
    assert {n for first, last in heard.missing for n in range(first, last + 1)} == expected
    assert heed(heard, sorted(expected), 0).heard.missing == ()


def test_of_too_many_gaps_the_oldest_become_one_and_none_is_forgotten() -> None:
    heard = Heard(highest=1)
    for number in range(3, 2 * MAX_RANGES + 7, 2):  # every other one is lost
        heard = heed(heard, [number], number).heard
    assert len(heard.missing) == MAX_RANGES
    assert heard.missing[0][0] == 2
    lost = range(2, heard.highest, 2)
    assert all(any(first <= number <= last for first, last in heard.missing) for number in lost)
