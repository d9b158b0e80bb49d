"""Owns the engine's one notion of a point in time as a sender stated it."""

from datetime import datetime

import msgspec


class Timestamp(msgspec.Struct, frozen=True, omit_defaults=True):
    """A time as stated, kept with the precision it was stated in.

    `text` is a FHIR R4 dateTime: a date stays a date, anything with a time carries seconds and an offset
    (https://hl7.org/fhir/R4/datatypes.html#dateTime). `at` is the aware instant used for ordering; of a
    date it is the start of that day in the feed's zone. `assumed` marks a zone or an ambiguous hour that
    the engine had to choose (flag `tz_assumed`).
    """

    text: str
    at: datetime
    assumed: bool = False
