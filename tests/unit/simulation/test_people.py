"""Invented people have numbers that pass the checks real ones pass."""

from hypothesis import given
from hypothesis import strategies as st

from tocengine.simulation.people import Population, npi


@given(st.integers(0, 99_999))
def test_npis_have_a_right_check_digit(base: int) -> None:
    digits = [int(digit) for digit in reversed("80840" + npi(base))]
    doubled = [value if index % 2 == 0 else sum(divmod(2 * value, 10)) for index, value in enumerate(digits)]
    assert sum(doubled) % 10 == 0


def test_a_population_never_draws_the_same_patient_twice() -> None:
    population = Population(3)
    assert len({population.person().mrn for _ in range(500)}) == 500
    assert Population(3).person() == Population(3).person()
