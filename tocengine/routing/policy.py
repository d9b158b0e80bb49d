"""Owns what is allowed and wanted: the filters between a candidate and a notice, each with its reason code.

In the order of domain 5.2: source and test traffic, kind of event, age, match, consent, sensitivity, subscription,
endpoint; shadow comes last, so that a parallel run shows what would have been decided.
"""

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from tocengine.model.directory import Level, Recipient
from tocengine.model.encounter import EncounterState, Fact, TrackedEncounter, TransitionKind
from tocengine.model.facts import MarkEffect
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.notice import Basis, ReasonCode
from tocengine.model.profile import SendingFacility
from tocengine.routing.matching import Candidate

K = TransitionKind
DEFAULT_KINDS = frozenset(
    {K.ED_REGISTRATION, K.INPATIENT_ADMIT, K.ED_DISCHARGE, K.INPATIENT_DISCHARGE, K.PATIENT_EXPIRED}
)
"""The outward kinds a subscription without `events` gets (42 CFR 482.24(d) and domain 5.0)."""
OPT_IN_KINDS = frozenset({K.OBSERVATION_START})
OUTWARD_KINDS = DEFAULT_KINDS | OPT_IN_KINDS
"""Facts that may be told at all. Locations, leaves and the like stay inside (domain 5.0)."""

HISTORIC = timedelta(days=7)
OPEN_STATES = frozenset(
    {EncounterState.ED, EncounterState.OBSERVATION, EncounterState.INPATIENT, EncounterState.ON_LEAVE}
)
SILENT_ORIGINS = frozenset({ReasonCode.TEST_MESSAGE, ReasonCode.INITIAL_LOAD, ReasonCode.SHADOW})
"""Reasons that stay with a fact: what was loaded silently is not told when the feed goes live (domain 2.9)."""


class RoutePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decisions depend on."""

    facilities: Mapping[FacilityId, SendingFacility] = msgspec.field(default_factory=dict)
    late_after_h: Mapping[FeedName, int] = msgspec.field(default_factory=dict)  # 24 where not named
    max_age: timedelta = timedelta(hours=24)  # how long a notice is tried

    def late_after(self, feed: FeedName) -> timedelta:
        """How long after its effective time a fact that becomes known is told as late."""
        return timedelta(hours=self.late_after_h.get(feed, 24))


class Verdict(msgspec.Struct, frozen=True):
    """Send at `level`, or the reason not to."""

    reason: ReasonCode | None
    level: Level = Level.COP_MIN


def suppression(tracked: TrackedEncounter) -> ReasonCode | None:
    """Why nothing of this encounter is told to anybody as the source stands; None where it may be."""
    if tracked.suppressed and tracked.suppressed != ReasonCode.SHADOW:
        return ReasonCode(tracked.suppressed)
    return None


def in_shadow(tracked: TrackedEncounter) -> bool:
    """Whether the feed does everything except sending."""
    return tracked.shadow or tracked.suppressed == ReasonCode.SHADOW


def is_late(tracked: TrackedEncounter, fact: Fact, policy: RoutePolicy) -> bool:
    """Known more than `late_after_h` after it happened; the engine's own delays do not count."""
    known_at = tracked.snapshot.received_at
    return known_at - fact.effective.at > policy.late_after(tracked.snapshot.feed)


def is_historic(tracked: TrackedEncounter, fact: Fact) -> bool:
    """Known more than seven days after it happened, of a stay that is over: recorded, not told."""
    if tracked.snapshot.state in OPEN_STATES:
        return False
    return tracked.snapshot.received_at - fact.effective.at > HISTORIC


def held_back(tracked: TrackedEncounter) -> bool:
    """Whether the sender marked patient or visit so that nothing is told until a person has looked."""
    return MarkEffect.HOLD in tracked.marks.values()


def _limited(tracked: TrackedEncounter) -> bool:
    return any(effect is not MarkEffect.NOTE for effect in tracked.marks.values())


def level_for(tracked: TrackedEncounter, basis: tuple[Basis, ...], recipient: Recipient) -> Level:
    """How much this recipient may see: of a stay with a sensitivity tag or a mark only the destination gets more than
    the minimum, until consent data exists (domain 1.3)."""
    if (tracked.sensitivity or tracked.part2 or _limited(tracked)) and Basis.DESTINATION not in basis:
        return Level.COP_MIN
    return recipient.subscription.level


def judge(
    tracked: TrackedEncounter,
    fact: Fact,
    candidate: Candidate,
    recipient: Recipient | None,
    *,
    told: bool,
    covered: ReasonCode | None = None,
) -> Verdict:
    """What becomes of `fact` for `candidate`. `told` says that it holds an earlier version of the fact: then its
    subscription and the fact's age no longer count, for they would leave it with an untruth."""
    reason = suppression(tracked) or covered
    if reason is None and not told and is_historic(tracked, fact):
        reason = ReasonCode.LATE_HISTORIC
    if reason is None:
        reason = candidate.blocked
    if reason is None and tracked.part2:
        reason = ReasonCode.PART2_NO_CONSENT
    if reason is None and held_back(tracked):
        reason = ReasonCode.PRIVACY_MARKED
    if reason is not None or recipient is None:
        return Verdict(reason or ReasonCode.NO_ENDPOINT)
    if not told and fact.kind not in (recipient.subscription.events or DEFAULT_KINDS):
        return Verdict(ReasonCode.EVENT_NOT_SUBSCRIBED)
    if not recipient.endpoints:
        return Verdict(ReasonCode.NO_ENDPOINT)
    if in_shadow(tracked):
        return Verdict(ReasonCode.SHADOW)
    return Verdict(None, level_for(tracked, candidate.basis, recipient))
