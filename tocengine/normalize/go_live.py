"""Owns what of a feed is history: what took effect before it went live is loaded and never told."""

from datetime import datetime

from tocengine.model.event import Processing
from tocengine.model.profile import SourceProfile
from tocengine.model.time import Timestamp


class GoLive:
    """When a feed went live (profile: go_live_at); without that, always."""

    def __init__(self, profile: SourceProfile) -> None:
        self._at = datetime.fromisoformat(profile.go_live_at) if profile.go_live_at else None

    def processing(self, stated: Processing, when: Timestamp) -> Processing:
        """`stated`, or INITIAL_LOAD for production traffic about what took effect before."""
        before = self._at is not None and when.at < self._at
        return Processing.INITIAL_LOAD if before and stated is Processing.PRODUCTION else stated
