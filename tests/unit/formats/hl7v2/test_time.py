"""HL7 times: precision, zones and the hours that daylight saving repeats or skips."""

from datetime import UTC, datetime

import pytest

from tocengine.errors import ConfigurationError
from tocengine.formats.hl7v2.time import Precision, read_stated, read_time, zone
from tocengine.model.time import Timestamp

NEW_YORK = zone("America/New_York")
NEAR = datetime(2026, 3, 1, 20, 41, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "fhir"),
    [
        ("1940", "1940"),
        ("194001", "1940-01"),
        ("20260301", "2026-03-01"),
        ("20260301-0500", "2026-03-01"),
        ("2026030115", "2026-03-01T15:00:00-05:00"),
        ("202607011535", "2026-07-01T15:35:00-04:00"),
        ("20260301153500", "2026-03-01T15:35:00-05:00"),
        ("20260301153500-0800", "2026-03-01T15:35:00-08:00"),
        ("20260301153500.1234+0530", "2026-03-01T15:35:00.1234+05:30"),
        ("2026-03-01T15:35:00Z", "2026-03-01T15:35:00+00:00"),
        ("2026-03-01", "2026-03-01"),
    ],
)
def test_precision_and_zone(text: str, fhir: str) -> None:
    read = read_time(text, NEW_YORK, NEAR)
    assert read is not None
    assert (read.text, read.assumed) == (fhir, False)


def test_a_date_starts_in_the_zone_of_the_feed() -> None:
    assert read_time("20260301", NEW_YORK, NEAR) == Timestamp("2026-03-01", datetime(2026, 3, 1, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("near", "fhir", "hour"),
    [
        (datetime(2026, 11, 1, 6, 31, 5, tzinfo=UTC), "2026-11-01T01:30:00-05:00", 6),
        (datetime(2026, 11, 1, 5, 31, 5, tzinfo=UTC), "2026-11-01T01:30:00-04:00", 5),
    ],
)
def test_the_repeated_hour_is_the_one_closest_to_the_message(near: datetime, fhir: str, hour: int) -> None:
    expected = Timestamp(fhir, datetime(2026, 11, 1, hour, 30, tzinfo=UTC), assumed=True)
    assert read_time("20261101013000", NEW_YORK, near) == expected


def test_the_skipped_hour_is_shifted_forward() -> None:
    expected = Timestamp("2026-03-08T03:30:00-04:00", datetime(2026, 3, 8, 7, 30, tzinfo=UTC), assumed=True)
    assert read_time("20260308023000", NEW_YORK, NEAR) == expected


def test_nothing_stated() -> None:
    assert read_time("", NEW_YORK, NEAR) is None
    assert read_time('""', NEW_YORK, NEAR) is None


@pytest.mark.parametrize(
    "text", ["yesterday", "20260230", "2026030125", "00000000", "20260301120000+9900", "٢٠٢٦", "00010101"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        read_time(text, zone("Asia/Tokyo"), NEAR)


def test_precisions() -> None:
    assert [read_stated(text).precision for text in ("2026", "20260301", "2026030112", "20260301120000.5")] == [
        Precision.YEAR,
        Precision.DAY,
        Precision.HOUR,
        Precision.FRACTION,
    ]


def test_unknown_zone() -> None:
    with pytest.raises(ConfigurationError):
        zone("Mars/Olympus")
