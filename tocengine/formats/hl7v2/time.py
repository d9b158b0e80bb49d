"""Owns the way from an HL7 v2 time to a point in time: precision kept, zone applied, daylight saving resolved."""

import re
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from tocengine.errors import ConfigurationError
from tocengine.model.remembering import remembered
from tocengine.model.time import Timestamp


class Precision(StrEnum):
    """How exactly a time was stated."""

    YEAR = "year"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"
    MINUTE = "minute"
    SECOND = "second"
    FRACTION = "fraction"


_STATED: Final = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)"
    r"(?:\.(?P<fraction>\d{1,9}))?)?)?)?)?)?\s*(?P<offset>[+-]\d{4}|Z)?",
    re.ASCII,
)
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d(?:\.\d{1,9})?))?\s*(Z|[+-]\d\d:?\d\d)?)?)?", re.ASCII
)
_PRECISIONS: Final = tuple(Precision)


class StatedTime(msgspec.Struct, frozen=True):
    """The parts of a stated time. `wall` is naive, absent parts at their least; `offset` is None if not stated."""

    wall: datetime
    precision: Precision
    fraction: str = ""
    offset: timedelta | None = None


@remembered(4096)
def read_stated(text: str) -> StatedTime:
    """``YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]`` (HL7 v2.5.1 section 2A.77); ISO 8601 is tolerated.

    Raises ValueError, without the text in it, for what is no time or no day of the calendar.
    """
    match = _STATED.fullmatch(text.strip())
    if match is None:
        iso = _ISO.fullmatch(text.strip())
        match = _STATED.fullmatch("".join(part.replace(":", "") for part in iso.groups() if part)) if iso else None
    if match is None:
        raise ValueError("not an HL7 time")
    parts = match.groupdict()
    stated = [name for name in _PRECISIONS if parts[name] is not None]
    number = {name: int(parts[name] or 0) for name in _PRECISIONS[:6]}
    fraction = parts["fraction"] or ""
    try:
        wall = datetime(  # noqa: DTZ001 - the zone is applied afterwards
            number[Precision.YEAR],
            number[Precision.MONTH] if parts["month"] else 1,
            number[Precision.DAY] if parts["day"] else 1,
            number[Precision.HOUR],
            number[Precision.MINUTE],
            number[Precision.SECOND],
            int(fraction[:6].ljust(6, "0")) if fraction else 0,
        )
        offset = _offset(parts["offset"])
    except ValueError:
        raise ValueError("not a time of the calendar") from None
    return StatedTime(wall, stated[-1], fraction, offset)


def _offset(text: str | None) -> timedelta | None:
    if text is None:
        return None
    if text == "Z":
        return timedelta()
    hours, minutes = int(text[1:3]), int(text[3:5])
    if hours > 14 or minutes > 59:
        raise ValueError("offset")
    return timedelta(hours=hours, minutes=minutes) * (-1 if text[0] == "-" else 1)


def zone(name: str) -> ZoneInfo:
    """The IANA time zone `name`. Raises ConfigurationError for one nobody knows."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(f"unknown time zone {name!r}", hint="use an IANA name: America/New_York") from None


def read_time(text: str, time_zone: ZoneInfo, near: datetime) -> Timestamp | None:
    """The point in time `text` states, or None where it is empty or ``""``.

    A stated offset counts; else the feed's `time_zone`. In the hour that a zone repeats in autumn the reading
    closest to `near` (the aware time of MSH-7, or of receipt) is taken; an hour it skips in spring is shifted
    forward; both are marked `assumed`. A date stays a date. Raises ValueError for what is no time.
    """
    if not text or text == '""':
        return None
    stated = read_stated(text)
    if stated.precision in (Precision.YEAR, Precision.MONTH, Precision.DAY):
        return _date(stated, time_zone)
    if stated.offset is not None:
        return _instant(stated, stated.wall.replace(tzinfo=_fixed(stated.offset)), assumed=False)
    chosen, assumed = _in_zone(stated.wall, time_zone, near)
    return _instant(stated, chosen, assumed=assumed)


@lru_cache(maxsize=64)
def _fixed(offset: timedelta) -> timezone:
    return timezone(offset)


def _date(stated: StatedTime, time_zone: ZoneInfo) -> Timestamp:
    length = {Precision.YEAR: 4, Precision.MONTH: 7}.get(stated.precision, 10)
    return Timestamp(stated.wall.date().isoformat()[:length], _to_utc(stated.wall.replace(tzinfo=time_zone)))


def _instant(stated: StatedTime, moment: datetime, *, assumed: bool) -> Timestamp:
    text = moment.replace(microsecond=0).isoformat()
    if stated.fraction:  # as many digits as were stated
        text = f"{text[:19]}.{stated.fraction}{text[19:]}"
    return Timestamp(text, _to_utc(moment), assumed)


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # the first and the last day datetime knows
        raise ValueError("not a time of the calendar") from None


def _in_zone(wall: datetime, time_zone: ZoneInfo, near: datetime) -> tuple[datetime, bool]:
    """`wall` in the zone, and whether a choice had to be made."""
    first, second = wall.replace(tzinfo=time_zone), wall.replace(tzinfo=time_zone, fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    if before == after or before is None or after is None:
        return first, False
    if before < after:  # skipped in spring: read with the offset that held before, show with the one that holds
        return _to_utc(wall.replace(tzinfo=_fixed(before))).astimezone(time_zone), True
    closest = min((first, second), key=lambda each: abs((_to_utc(each) - near).total_seconds()))
    return closest, True
