"""Visits whose patients, accounts and numbers are merged, moved and linked, in any order, batching and repetition."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from tests.fixtures.visits import CONVERTED, HOME, SNF, Visit, at
from tests.properties.searching import examples
from tests.properties.town import DIRECTORY, Town, batches, state_of
from tocengine.encounters.facts import standing
from tocengine.encounters.holdback import Window
from tocengine.encounters.rows import Row
from tocengine.model.encounter import TransitionKind
from tocengine.model.event import AccountMerge, Event, Link, Merge, Move, Rekeying, VisitMerge
from tocengine.model.facts import Destination, PatientClass, PatientFacts
from tocengine.model.identity import AccountKey, PatientKey, VisitKey
from tocengine.model.ids import FeedName, MessageId, RecipientId

K = TransitionKind
ARRIVALS = (K.ED_REGISTRATION, K.INPATIENT_ADMIT, K.OBSERVATION_START)
ENDINGS = (K.ED_DISCHARGE, K.INPATIENT_DISCHARGE, K.PATIENT_EXPIRED)
DAY = at("08:00").at
HEARD = at("22:00").at
CLASSES = (PatientClass.EMERGENCY, PatientClass.INPATIENT, PatientClass.OBSERVATION)
NUMBERS = st.sampled_from("ABCD")
VISITS = st.sampled_from(["V1", "V2", "V3", "V4"])
ACCOUNTS = st.sampled_from(["H1", "H2"])
OWNER = {"V1": "A", "V2": "B", "V3": "C", "V4": "A"}


def patient(number: str) -> PatientKey:
    return PatientKey("STJ", number)


def account(number: str) -> AccountKey:
    return AccountKey("STJ", number)


@st.composite
def of_a_visit(draw: st.DrawFn) -> Event:
    """A message of a visit, mostly under its owner's number."""
    number = draw(VISITS)
    mrn = OWNER[number] if draw(st.integers(0, 5)) else draw(NUMBERS)
    said: dict[str, Any] = {}
    trigger = draw(
        st.sampled_from(["A01", "A01", "A04", "A04", "A06", "A03", "A03", "A08", "A11", "A13", "A02", "A07"])
    )
    if trigger == "A03":
        said["disposition"] = draw(st.sampled_from([HOME, SNF, CONVERTED]))
        if said["disposition"] is SNF:
            said["destination"] = Destination(draw(st.sampled_from(["SUNNYSIDE REHAB", "MEADOW"])))
    if not draw(st.integers(0, 2)):
        said["account_number"] = draw(ACCOUNTS) + OWNER[number]
    if not draw(st.integers(0, 5)):
        said["alternate_visit"] = draw(VISITS)
    return Visit(number, mrn).event(trigger, "08:00", draw(st.sampled_from(CLASSES)), **said)


@st.composite
def of_keys(draw: st.DrawFn) -> Event:
    """A merge, move, new number or link."""
    one, other = draw(st.lists(NUMBERS, min_size=2, max_size=2, unique=True))
    kind = draw(st.sampled_from(["A40", "A40", "A42", "A42", "A41", "A43", "A44", "A45", "A45", "A24", "A37"]))
    said = Visit("", one).statement(kind, "08:00")
    if kind == "A40":
        return replace(said, merges=(Merge(prior=patient(other), surviving=patient(one)),))
    if kind == "A42":
        prior, surviving = draw(st.lists(VISITS, min_size=2, max_size=2, unique=True))
        merged = VisitMerge(prior=VisitKey("STJ", prior), surviving=VisitKey("STJ", surviving))
        return replace(said, patient=patient(OWNER[surviving]), rekeying=Rekeying(visits=(merged,)))
    if kind == "A41":
        return replace(
            said, rekeying=Rekeying(accounts=(AccountMerge(prior=account("H1" + one), surviving=account("H2" + one)),))
        )
    if kind in ("A24", "A37"):
        link = Link(one=patient(one), other=patient(other), stands=kind == "A24")
        return replace(said, rekeying=Rekeying(links=(link,)))
    move = Move(
        prior=patient(other),
        surviving=patient(one),
        visit=VisitKey("STJ", draw(VISITS)) if kind == "A45" else None,
        account=account(draw(ACCOUNTS) + other) if kind == "A44" else None,
    )
    return replace(said, rekeying=Rekeying(moves=(move,)))


@st.composite
def days(draw: st.DrawFn, keys: st.SearchStrategy[Event] | None = None) -> list[Event]:
    """Three to twelve messages about four visits, each recorded at a time of its own, all received in the evening."""
    said = draw(st.lists(st.one_of(of_a_visit(), of_a_visit(), keys or of_keys()), min_size=3, max_size=12))
    minutes = draw(st.lists(st.integers(0, 720), min_size=len(said), max_size=len(said), unique=True))
    events = []
    for number, (event, minute) in enumerate(zip(said, minutes, strict=True)):
        when = DAY + timedelta(minutes=minute)
        moment = replace(event.recorded, at=when, text=when.isoformat())
        events.append(replace(event, message_id=MessageId(UUID(int=number)), recorded=moment, received_at=HEARD))
    return sorted(events, key=lambda event: event.recorded.at)


def everybody_holds_what_stands(town: Town) -> None:
    """Nobody holds, or is about to, what does not stand, and never two endings of one visit."""
    for row in town.surviving():
        facts = town.facts(row)
        ends: set[RecipientId] = set()
        for recipient_id, kind, occurrence in town.holding(row):
            fact = facts.get((kind, occurrence))
            assert fact is not None, f"{recipient_id} holds {kind} {occurrence} of {row.visit}, which does not stand"
            if kind in ENDINGS and not fact.covered_by:
                assert recipient_id not in ends, f"{recipient_id} holds two endings of {row.visit}"
                ends.add(recipient_id)


def ended(town: Town) -> set[tuple[str, str, str, bytes]]:
    """What is held of endings that stand. An arrival heard of after its end is told to nobody, and a discharge that was
    told before it turned out to be a conversion stays told."""
    found = set()
    for row in town.surviving():
        covered = {fact.kind for fact in standing(row.body.folded, DIRECTORY) if fact.covered_by}
        for (recipient_id, kind, _), watched in town.holding(row).items():
            if kind in ENDINGS and kind not in covered:
                found.add((str(recipient_id), row.visit.value, kind.value, watched))
    return found


def stands(row: Row) -> set[tuple[str, bytes]]:
    return {(fact.kind.value, fact.watched) for fact in standing(row.body.folded, DIRECTORY)}


def run(town: Town, events: list[Event], sizes: list[int], delivers: Callable[[int], bool]) -> Town:
    for number, batch in enumerate(batches(events, sizes)):
        town.take(*batch)
        everybody_holds_what_stands(town)
        if delivers(number):
            town.deliver()
    town.deliver()
    return town


SIZES = st.lists(st.integers(1, 4), max_size=12)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_any_order_and_repetition_ends_in_the_same_state_with_the_same_told(data: st.DataObject) -> None:
    events = data.draw(days())
    arriving = data.draw(st.permutations(events))
    again = data.draw(st.lists(st.sampled_from(events), max_size=3))
    straight = run(Town(), events, [], lambda number: True)
    delivers = data.draw(st.lists(st.booleans(), min_size=20, max_size=20))
    shuffled = run(Town(), [*arriving, *again], data.draw(SIZES), lambda number: delivers[number])

    assert state_of(shuffled) == state_of(straight)
    for row, other in zip(straight.surviving(), shuffled.surviving(), strict=True):
        assert stands(row) == stands(other)
    assert ended(shuffled) == ended(straight)


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_the_log_read_again_from_its_start_says_nothing_new(data: st.DataObject) -> None:
    """Early messages are held back for thirty seconds; what comes when, and in which batch, is the log's affair."""
    arriving = data.draw(st.permutations(data.draw(days())))
    seconds = 0
    log = []
    for event in arriving:
        seconds += data.draw(st.integers(0, 40))
        log.append(replace(event, received_at=HEARD + timedelta(seconds=seconds)))
    window = Window(by_feed={FeedName("stj-adt"): timedelta(seconds=30)})
    first, second = Town(window), Town(window)
    for event in log:
        first.take(event)
    for batch in batches(log, data.draw(SIZES)):
        second.take(*batch)

    assert state_of(second) == state_of(first)
    assert [len(town.waiting) for town in (first, second)] == [len(first.waiting)] * 2
    told = first.told()
    first.deliver()
    for batch in batches(log, data.draw(SIZES)):
        first.take(*batch)
    assert first.told() == told
    for batch in batches([replace(event, revision=1) for event in log], data.draw(SIZES)):
        first.take(*batch)
    if not second.waiting:
        assert first.told() == told


class Hearing(RuleBasedStateMachine):
    """Messages come in any order and batching, and notices leave in between."""

    def __init__(self) -> None:
        super().__init__()
        self.town = Town()
        self.heard: list[Event] = []

    @rule(events=days())
    def hears(self, events: list[Event]) -> None:
        fresh = [
            replace(event, message_id=MessageId(UUID(int=len(self.heard) + number)))
            for number, event in enumerate(events)
        ]
        self.heard += fresh
        self.town.take(*fresh)

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def hears_again(self, data: st.DataObject) -> None:
        self.town.take(replace(data.draw(st.sampled_from(self.heard)), revision=data.draw(st.integers(0, 2))))

    @rule()
    def is_delivered(self) -> None:
        self.town.deliver()

    @invariant()
    def nobody_holds_what_does_not_stand(self) -> None:
        everybody_holds_what_stands(self.town)


Hearing.TestCase.settings = settings(max_examples=examples(20), stateful_step_count=12, deadline=None)
TestHearing = Hearing.TestCase


# --- what the search found


def _recorded(event: Event) -> Event:
    return replace(event, received_at=HEARD)


def _both_ways(*arriving: Event) -> tuple[Town, Town]:
    """The same messages in the order they were recorded, and as they come here."""
    heard = [_recorded(event) for event in arriving]
    straight = run(Town(), sorted(heard, key=lambda event: event.recorded.at), [], lambda number: True)
    return straight, run(Town(), heard, [], lambda number: True)


def _converts(number: str, mrn: str, clock: str) -> Event:
    return Visit(number, mrn).event("A03", clock, PatientClass.EMERGENCY, disposition=CONVERTED)


def test_a_late_first_word_on_whose_a_visit_is_parts_it_from_the_visits_of_the_other() -> None:
    straight, shuffled = _both_ways(
        _converts("V3", "C", "08:00"),
        Visit("V4", "C").event("A04", "11:14", PatientClass.INPATIENT),
        Visit("V4", "A").event("A08", "08:49", PatientClass.OBSERVATION),
    )
    assert state_of(shuffled) == state_of(straight)


def test_a_late_first_word_on_whose_a_visit_is_brings_what_was_said_of_that_person() -> None:
    died = PatientFacts(deceased=True)
    straight, shuffled = _both_ways(
        Visit("", "A").statement("A31", "08:26", person=died),
        Visit("V1", "D").event("A04", "08:47", PatientClass.EMERGENCY),
        Visit("V1", "A").event("A01", "08:00", PatientClass.EMERGENCY),
    )
    assert state_of(shuffled) == state_of(straight)


def test_the_visit_that_survives_says_whose_it_is_even_if_heard_of_last() -> None:
    merged = VisitMerge(prior=VisitKey("STJ", "V2"), surviving=VisitKey("STJ", "V1"))
    straight, shuffled = _both_ways(
        Visit("V1", "A").event("A01", "18:07", PatientClass.INPATIENT),
        Visit("V2", "D").event("A04", "11:20", PatientClass.EMERGENCY),
        replace(Visit("", "A").statement("A42", "08:13"), rekeying=Rekeying(visits=(merged,))),
    )
    assert state_of(shuffled) == state_of(straight)


def test_an_update_that_implies_an_admission_counts_beside_other_stays() -> None:
    straight, shuffled = _both_ways(
        Visit("V4", "A").event("A08", "17:25", PatientClass.INPATIENT),
        Visit("V1", "A").event("A01", "13:29", PatientClass.INPATIENT),
    )
    assert state_of(shuffled) == state_of(straight)


def test_a_merge_that_an_earlier_one_refuses_leaves_nobody_with_what_is_not_theirs() -> None:
    straight, shuffled = _both_ways(
        replace(Visit("", "A").statement("A40", "19:19"), merges=(Merge(prior=patient("B"), surviving=patient("A")),)),
        Visit("V3", "A").event("A01", "17:21", PatientClass.INPATIENT),
        Visit("V3", "C").event("A03", "19:55", PatientClass.OBSERVATION, disposition=HOME),
        replace(Visit("", "C").statement("A40", "08:55"), merges=(Merge(prior=patient("B"), surviving=patient("C")),)),
    )
    assert ended(shuffled) == ended(straight)


def test_two_links_to_a_visit_nobody_has_described_may_come_in_one_batch() -> None:
    town = Town()
    town.take(
        *(
            _recorded(Visit(number, "C").event("A01", clock, PatientClass.INPATIENT, alternate_visit="V4"))
            for number, clock in (("V1", "08:00"), ("V2", "11:59"))
        )
    )
    town.take(_recorded(Visit("V4", "C").event("A04", "07:00", PatientClass.EMERGENCY)))
    assert {row.body.folded.state.value for row in town.surviving()} == {"INPATIENT", "ED"}


def test_a_message_that_says_nothing_of_its_visit_may_be_the_first_of_two_in_one_batch() -> None:
    """A movement that is only stored (Z99 that inserts one) leaves the visit undescribed: the next one folds anew."""
    town = Town()
    town.take(
        _recorded(Visit("V1", "A").event("Z99", "08:00", PatientClass.INPATIENT)),
        _recorded(Visit("V1", "A").event("A01", "08:05", PatientClass.INPATIENT)),
        _recorded(Visit("V1", "A").event("A08", "08:10", PatientClass.INPATIENT)),
    )
    assert [row.body.folded.state.value for row in town.surviving()] == ["INPATIENT"]
