"""The fuzz target on its seeds, on each input that once broke it, and on cut and spliced ones."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.target import SEEDS, run

FOUND = sorted(path for path in (Path(__file__).parents[1] / "fuzz" / "found").iterdir() if path.suffix != ".md")


@pytest.mark.parametrize("body", SEEDS)
def test_seeds(body: bytes) -> None:
    run(body)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_is_mended(path: Path) -> None:
    run(path.read_bytes())


@given(st.sampled_from(SEEDS), st.sampled_from(SEEDS), st.integers(0, 400), st.integers(0, 400), st.binary(max_size=6))
def test_spliced_seeds(first: bytes, second: bytes, end: int, start: int, between: bytes) -> None:
    run(first[:end] + between + second[start:])
