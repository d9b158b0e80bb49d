"""Whatever happens to an encounter and whenever notices leave, no recipient ends up holding two stories."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.properties.searching import examples
from tests.unit.routing.building import MEADOW, PATEL, PATEL_NPI, SUNNYSIDE, Desk, K, at, fact, hit, tracked
from tocengine.model.encounter import EncounterState, Fact, TrackedEncounter, TransitionKind, TransitionStatus
from tocengine.model.facts import CareSetting, Destination
from tocengine.model.identity import PatientKey
from tocengine.model.notice import NoticeState
from tocengine.routing.matching import PanelHit

S = TransitionStatus
KINDS = (K.ED_REGISTRATION, K.INPATIENT_ADMIT, K.INPATIENT_DISCHARGE)
HOURS = {K.ED_REGISTRATION: -9, K.INPATIENT_ADMIT: -5, K.INPATIENT_DISCHARGE: 0}
DESTINATIONS = {SUNNYSIDE: "SUNNYSIDE REHAB", MEADOW: "MEADOW"}
PERSONS = (PatientKey("STJ", "11"), PatientKey("STJ", "22"))


class Routing(RuleBasedStateMachine):
    """Facts come, change and go; recipients come and go; notices are sent, or perhaps sent, or wait."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.facts: dict[TransitionKind, tuple[int, int]] = {}  # occurrence, version
        self.used: dict[TransitionKind, int] = {}
        self.cancelled: list[tuple[Fact, TransitionKind]] = []
        self.destination = SUNNYSIDE
        self.pcp, self.member, self.sensitive = True, False, False
        self.person = PERSONS[0]
        self.messages = 0

    def _fact(self, kind: TransitionKind) -> Fact:
        occurrence, version = self.facts[kind]
        return fact(kind, occurrence, effective=at(HOURS[kind]), watched=b"v%d" % version)

    def _encounter(self) -> TrackedEncounter:
        return tracked(
            *(self._fact(kind) for kind in KINDS if kind in self.facts),
            cancelled=tuple(self.cancelled),
            state=EncounterState.DISCHARGED if K.INPATIENT_DISCHARGE in self.facts else EncounterState.INPATIENT,
            destination=Destination(text=DESTINATIONS[self.destination]),
            setting=CareSetting.SNF,
            pcp=PATEL_NPI if self.pcp else None,
            sensitivity=("SUD",) if self.sensitive else (),
            keys=(self.person,),
            message=f"m{self.messages}",
        )

    def _hits(self) -> tuple[PanelHit, ...]:
        return (hit(MEADOW),) if self.member and self.person == PERSONS[0] else ()

    @rule(kind=st.sampled_from(KINDS))
    def happens(self, kind: TransitionKind) -> None:
        if kind not in self.facts:
            self.used[kind] = self.used.get(kind, 0) + 1
            self.facts[kind] = self.used[kind], 1

    @rule(kind=st.sampled_from(KINDS), version=st.integers(1, 3))
    def is_corrected(self, kind: TransitionKind, version: int) -> None:
        if kind in self.facts:
            self.facts[kind] = self.facts[kind][0], version

    @rule(kind=st.sampled_from(KINDS))
    def is_cancelled(self, kind: TransitionKind) -> None:
        if kind in self.facts:
            self.cancelled.append((self._fact(kind), K.ADMIT_CANCELLED))
            del self.facts[kind]

    @rule(destination=st.sampled_from(sorted(DESTINATIONS)))
    def goes_elsewhere(self, destination: str) -> None:
        self.destination = next(d for d in DESTINATIONS if d == destination)
        if K.INPATIENT_DISCHARGE in self.facts:
            occurrence, _ = self.facts[K.INPATIENT_DISCHARGE]
            self.facts[K.INPATIENT_DISCHARGE] = occurrence, 10 + len(destination)

    @rule(pcp=st.booleans(), member=st.booleans(), sensitive=st.booleans())
    def others_are_concerned(self, pcp: bool, member: bool, sensitive: bool) -> None:
        self.pcp, self.member, self.sensitive = pcp, member, sensitive

    @rule(person=st.sampled_from(PERSONS))
    def belongs_to(self, person: PatientKey) -> None:
        self.person = person

    @rule(
        state=st.sampled_from(
            [
                (NoticeState.DELIVERED, True),
                (NoticeState.SENDING, True),
                (NoticeState.QUEUED, True),
                (NoticeState.FAILED, False),
            ]
        )
    )
    def leaves(self, state: tuple[NoticeState, bool]) -> None:
        self.desk.deliver(state=state[0], possibly_told=state[1])

    @rule()
    def is_routed(self) -> None:
        self.messages += 1
        encounter = self._encounter()
        self.desk.route(encounter, *self._hits())
        again = self.desk.route(encounter, *self._hits())
        assert again == [], "deciding again without a change says something"
        self.cancelled.clear()
        self._everybody_holds_what_stands()

    def _everybody_holds_what_stands(self) -> None:
        entries = self.desk.ledger()
        for (recipient_id, kind, occurrence), entry in entries.items():
            holds = entry.told
            if entry.pending is not None:
                holds = None if entry.pending.status in (S.CANCELLED, S.RETRACTED) else entry.pending
            if holds is None:
                continue
            standing = self.facts.get(kind)
            assert standing is not None, f"{recipient_id} holds {kind}, which does not stand"
            assert standing[0] == occurrence
            wanted = recipient_id == PATEL and self.pcp
            if wanted:
                assert holds.watched == b"v%d" % standing[1]

    @precondition(lambda self: bool(self.desk.order))
    @invariant()
    def statuses_alternate(self) -> None:
        """Per recipient and fact: told before it is corrected or taken back, and not told twice without that."""
        holding: dict[tuple[str, TransitionKind, int], bool] = {}
        for notice_id in self.desk.order:
            notice = self.desk.notices[notice_id]
            state, possibly_told = self.desk.states[notice_id]
            if state in (NoticeState.SUPERSEDED, NoticeState.CANCELLED) and not possibly_told:
                continue
            key = (notice.recipient_id, notice.fact_kind, notice.occurrence)
            if notice.status is S.NEW:
                assert not holding.get(key), "told as new twice"
                holding[key] = True
            elif notice.status is S.UPDATED:
                assert holding.get(key), "corrected without having been told"
            else:
                for other in [other for other in holding if other[0] == key[0] and self._spoken_of(notice_id, other)]:
                    holding[other] = False

    def _spoken_of(self, notice_id: object, key: tuple[str, TransitionKind, int]) -> bool:
        return any(
            row.notice_id == notice_id and (row.recipient_id, row.fact_kind, row.occurrence) == key
            for row in self.desk.rows
        )


Routing.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
TestRouting = Routing.TestCase
