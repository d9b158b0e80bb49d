"""How a destination in a message becomes a recipient of the directory."""

import pytest

from tests.unit.routing.building import FEED, MEADOW, PATEL, PATEL_NPI, SUNNYSIDE, recipient
from tocengine.model.directory import Alias
from tocengine.model.facts import Destination
from tocengine.model.ids import FeedName, RecipientId
from tocengine.routing.directory import Directory, Problem, normalized_alias

EAST = RecipientId("facility:east")
DIRECTORY = Directory(
    3,
    (
        recipient(SUNNYSIDE, npi="1999000015", ccn="335123", aliases=("Sunnyside Rehab", Alias("SUN01", FEED))),
        recipient(MEADOW, npi="1999000031", ccn="335124", aliases=("Meadow", "The Home")),
        recipient(EAST, npi="1999000031", ccn="335125", aliases=("Meadow", Alias("SUN01", "other-feed"))),
        recipient(PATEL, npi=PATEL_NPI, aliases=("Patel",)),
    ),
)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Destination(npi="1999000015"), SUNNYSIDE),
        (Destination(ccn="335124"), MEADOW),
        (Destination(text="  SUNNYSIDE   rehab. "), SUNNYSIDE),
        (Destination(text="SUN01"), SUNNYSIDE),
        (Destination(text="Sunnyside"), Problem.UNKNOWN),
        (Destination(text="MEADOW"), Problem.AMBIGUOUS),
        (Destination(npi="1999000031"), Problem.AMBIGUOUS),
        (Destination(npi="1999000031", ccn="335125"), EAST),
        (Destination(npi="1999000031", text="The Home"), MEADOW),
        (Destination(npi="1999000031", ccn="335123"), Problem.AMBIGUOUS),  # narrowed, never widened
        (Destination(npi="1999000049", text="Sunnyside Rehab"), SUNNYSIDE),
        (Destination(npi=PATEL_NPI), Problem.UNKNOWN),  # a practitioner is no place
        (Destination(text="--"), Problem.NOT_NAMED),
        (Destination(date="20260301"), Problem.NOT_NAMED),
    ],
)
def test_resolution_order(destination: Destination, expected: RecipientId | Problem) -> None:
    match = DIRECTORY.match(FEED, destination)
    if isinstance(expected, Problem):
        assert (match.recipient_id, match.problem) == (None, expected)
    else:
        assert match.recipient_id == expected
    assert DIRECTORY.resolve(FEED, destination) == match.recipient_id


def test_alias_of_a_feed_counts_for_that_feed_alone() -> None:
    assert DIRECTORY.resolve(FeedName("other-feed"), Destination(text="sun01")) == EAST
    assert DIRECTORY.resolve(FeedName("third-feed"), Destination(text="sun01")) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("St. Mary's Home", "ST MARY S HOME", True),
        ("RÉSIDENCE", "résidence", True),
        ("A & B", "A B", True),
        ("Sunnyside", "Sunny Side", False),
        ("", "__", True),
    ],
)
def test_spelling(one: str, other: str, same: bool) -> None:
    assert (normalized_alias(one) == normalized_alias(other)) is same
