"""Who may connect, and what connections may hold together."""

import pytest

from tocengine.adapters.mllp.admission import FAIR_BYTES, Admission, Budget, Closed, plain_address


def test_counts_by_address_and_in_all() -> None:
    admission = Admission(3, 2)
    for address in ("10.0.0.1", "10.0.0.1"):
        assert admission.refusal(address) is None
        admission.enter(address)
    assert admission.refusal("10.0.0.1") is Closed.ADDRESS_LIMIT
    admission.enter("10.0.0.2")
    assert admission.refusal("10.0.0.3") is Closed.LIMIT
    admission.leave("10.0.0.1")
    assert admission.refusal("10.0.0.1") is None
    assert admission.count == 2


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.20.3.4", True), ("10.21.0.1", False), ("fd00::7", True), ("::1", False), ("no address", False)],
)
def test_networks(address: str, allowed: bool) -> None:
    refusal = Admission(9, 9, ["10.20.0.0/16", "fd00::/8"]).refusal(address)
    assert refusal is (None if allowed else Closed.ADDRESS_NOT_ALLOWED)


@pytest.mark.parametrize(
    ("seen", "plain"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("10.0.0.1", "10.0.0.1"), ("", "")],
)
def test_addresses_are_read_as_people_write_them(seen: str, plain: str) -> None:
    assert plain_address(seen) == plain


def test_beyond_the_budget_only_the_oldest_large_one_grows() -> None:
    budget: Budget[str] = Budget(3 * FAIR_BYTES)
    budget.hold("small", FAIR_BYTES)
    budget.hold("first", 2 * FAIR_BYTES)
    budget.hold("second", 2 * FAIR_BYTES)
    assert [budget.may_grow(each) for each in ("small", "first", "second")] == [True, True, False]
    budget.hold("first", 0)
    assert budget.may_grow("second")
    assert budget.total == 3 * FAIR_BYTES
