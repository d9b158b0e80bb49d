"""Owns the folded state of an encounter: what its row keeps and what one more event needs.

Everything in `Folded` is a function of the encounter's events in canonical order and of nothing else; what was
announced of it, which depends on when they came, is kept apart in `EncounterBody`.
"""

from datetime import datetime

import msgspec
from msgspec import UNSET

from tocengine.encounters.steps import Step
from tocengine.model.encounter import Adopted, EncounterState, Fact, TransitionKind
from tocengine.model.event import Processing
from tocengine.model.facts import EncounterFacts, Location, Marks, PatientFacts
from tocengine.model.identity import VisitKey
from tocengine.model.ids import FacilityId, FeedName, MessageId, TransitionId
from tocengine.model.time import Timestamp

OrderKey = tuple[datetime, int, datetime, str]

UPON_ARRIVAL = frozenset(
    {EncounterState.REGISTERED, EncounterState.ED, EncounterState.OBSERVATION, EncounterState.INPATIENT}
)
"""States an arrival or admission leads to: what A11 takes back."""
SILENT = {Processing.INITIAL_LOAD: "INITIAL_LOAD", Processing.TEST: "TEST_MESSAGE"}
"""Why a fact that such a message raises is not told."""


class Movement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A movement in force. The movements of an encounter are a stack: a cancel takes off its target and all above.

    `state` is held while the movement is on top, `kind` the fact it raised. `effective` is when it took effect, as
    told; `anchor` the stated admit or discharge time from which a change of more than 15 minutes is measured.
    """

    state: EncounterState
    step: Step | None = None  # as which it was stated
    effective: Timestamp
    recorded: Timestamp
    received_at: datetime  # when it came to count: on receipt, or when it was no longer held back
    message_id: MessageId
    anchor: Timestamp | None = None
    kind: TransitionKind | None = None
    occurrence: int = 0
    implied: bool = False  # never stated by a message of its own
    reversed: bool = False  # A07 took the admission back: its fact no longer stands
    treating: bool = False  # a treating practitioner was known while it was on top
    silent: str = ""  # INITIAL_LOAD, TEST_MESSAGE: the fact is not told, and why
    ids: tuple[str, ...] = ()  # the sender's names for it (ZBE-1)


class Moved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bed move: where the patient lay `before` it, and the ids its sender gives it."""

    before: Location | None
    recorded: datetime
    ids: tuple[str, ...] = ()


class BeganAs(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ED visit an inpatient visit grew out of: what of it belongs to the stay."""

    visit: VisitKey
    arrived: Timestamp
    sensitivity: tuple[str, ...] = ()
    part2: bool = False
    marks: Marks = msgspec.field(default_factory=dict)


class Folded(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state an encounter's events fold into. Changed only by `machine.apply`, which works on a copy; what
    `joining` adds of other visits (`became_stay`, `began_as`) is renewed after every step that may change it."""

    visit: VisitKey | None = None
    movements: tuple[Movement, ...] = ()
    patient: PatientFacts = PatientFacts()
    encounter: EncounterFacts = EncounterFacts()
    expired: Movement | None = None
    expected: Movement | None = None  # a pending discharge (A16)
    raised: dict[TransitionKind, int] = msgspec.field(default_factory=dict)  # how often a fact of the kind arose
    struck: tuple[datetime, ...] = ()  # times of arrivals that were cancelled: their cancel may come again
    cancelled_at: datetime | None = None  # when the last A11 was recorded
    dead_on_arrival: bool = False  # a donor visit: neither an admission nor a death to tell of
    converted: bool = False  # an inpatient visit names this one as where it came from
    became_stay: VisitKey | None = None  # the inpatient visit this ED visit turned into, as the two let see
    began_as: BeganAs | None = None  # the same from the other side
    moves: tuple[Moved, ...] = ()
    struck_ids: tuple[str, ...] = ()  # of movements that were cancelled by name: their cancel may come again
    sensitivity: tuple[str, ...] = ()
    part2: bool = False
    flags: tuple[str, ...] = ()
    events: int = 0  # with content for the chart
    last: OrderKey | None = None
    rehearsal: bool = False  # nothing but test messages so far
    feed: FeedName = FeedName("")  # of the last event about this visit, as are the next five
    facility: FacilityId = FacilityId("")
    trigger: str = ""
    control_id: str = ""
    silent: str = ""
    shadow: bool = False

    @property
    def top(self) -> Movement | None:
        """The movement that holds the state."""
        return self.movements[-1] if self.movements else None

    @property
    def state(self) -> EncounterState:
        """Where the encounter stands: what its last movement in force led to."""
        if self.movements:
            return self.movements[-1].state
        return EncounterState.NONE if self.cancelled_at is None else EncounterState.CANCELLED

    @property
    def underlying(self) -> EncounterState:
        """The state, looking through a leave of absence and a discharge."""
        for movement in reversed(self.movements):
            if movement.state not in (EncounterState.ON_LEAVE, EncounterState.DISCHARGED):
                return movement.state
        return self.state

    @property
    def closed_at(self) -> datetime | None:
        """When the visit ended, by its own time."""
        top = self.top
        return top.effective.at if top and top.state is EncounterState.DISCHARGED else None

    @property
    def opened_at(self) -> datetime | None:
        """When the visit began, by its own time."""
        return self.movements[0].effective.at if self.movements else None

    @property
    def location(self) -> Location | None:
        """Where the patient lies, if known."""
        location = self.encounter.location
        return None if location is UNSET else location


class Announced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact as it was last handed to routing. Its occurrence is fixed then; `folded` is the one it folds to now, and 0
    where it was announced of a visit that has only now been merged into this one."""

    fact: Fact
    folded: int
    transition_id: TransitionId | None = None  # None: covered, so nothing was said


class EncounterBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `encounter.body` keeps."""

    folded: Folded = msgspec.field(default_factory=Folded)
    announced: tuple[Announced, ...] = ()
    used: dict[TransitionKind, int] = msgspec.field(default_factory=dict)  # highest occurrence announced so far
    adopted: tuple[Adopted, ...] = ()
