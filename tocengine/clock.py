"""Owns the wall clock. Whatever asks the time is given this, so that tests can give it another."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
