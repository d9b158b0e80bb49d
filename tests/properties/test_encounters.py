"""Any order and duplication of a visit's messages ends in the same state and the same facts announced."""

import copy
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.fixtures.visits import CONVERTED, DIRECTORY, EXPIRED, HOME, SNF, STILL, Chronicle, Visit, at
from tests.properties.searching import examples
from tocengine.encounters.facts import COVERED_BY_DISCHARGE, carried, standing
from tocengine.encounters.fold import diff, fold
from tocengine.encounters.machine import apply
from tocengine.encounters.state import Folded
from tocengine.model.event import Event, MovementAction, NamedMovement, Processing
from tocengine.model.facts import Destination, Location, PatientClass, PatientFacts, PersonName
from tocengine.model.identity import Practitioner
from tocengine.model.ids import MessageId

VISIT = Visit()
OTHER = Visit("V200")
TRIGGERS = "A01 A02 A03 A04 A05 A06 A07 A08 A11 A12 A13 A16 A21 A22 A25 A28 A31 A38 A52 A53 A40 Z99".split()
CLOCK = at("00:00").at
MARY = PersonName("O'NEIL", ("MARY",))
PEOPLE = [
    PatientFacts(names=(MARY,), birth_date="1940-01-02"),
    PatientFacts(names=(PersonName("TRAUMA", ("T999",)),)),
    PatientFacts(deceased=True),
    PatientFacts(deceased=False),
]
SAID = st.fixed_dictionaries(
    {},
    optional={
        "disposition": st.sampled_from([None, HOME, SNF, CONVERTED, EXPIRED, STILL]),
        "destination": st.sampled_from([None, Destination("SUNNYSIDE REHAB"), Destination("MEADOW")]),
        "treating": st.sampled_from([None, Practitioner("ROE", ("ANN",))]),
        "location": st.sampled_from([Location("3N"), Location("SWB", level_of_care="swing-bed"), None]),
        "admitted": st.integers(0, 1200).map(lambda minute: at(f"{minute // 60:02}:{minute % 60:02}")),
        "discharged": st.integers(0, 1200).map(lambda minute: at(f"{minute // 60:02}:{minute % 60:02}")),
    },
)


NAMED = st.none() | st.builds(
    NamedMovement,
    ids=st.lists(st.sampled_from("1234"), min_size=1, max_size=2, unique=True).map(tuple),
    action=st.sampled_from(MovementAction),
    trigger=st.sampled_from(["", "A01", "A02", "A03", "A04"]),
    starts=st.none() | st.integers(0, 23).map(lambda hour: at(f"{hour:02}:30")),
    historic=st.booleans(),
)


REAL = st.just(Processing.PRODUCTION)
ANY = st.sampled_from([Processing.PRODUCTION, Processing.PRODUCTION, Processing.TEST, Processing.INITIAL_LOAD])


@st.composite
def histories(draw: st.DrawFn, processing: st.SearchStrategy[Processing] = REAL) -> list[Event]:
    """Up to ten events with distinct recorded times, each received when the draw says."""
    minutes = draw(st.lists(st.integers(0, 60 * 24 * 9), min_size=1, max_size=10, unique=True))
    events = []
    for number, minute in enumerate(sorted(minutes)):
        when = CLOCK + timedelta(minutes=minute)
        trigger = draw(st.sampled_from(TRIGGERS))
        visit = OTHER if draw(st.integers(0, 9)) == 0 else VISIT
        said: dict[str, Any] = draw(SAID)
        if visit is OTHER:
            said["alternate_visit"] = VISIT.key.value
        event = visit.event(
            trigger,
            "00:00",
            draw(st.sampled_from(PatientClass)),
            visit=trigger not in ("A28", "A40"),
            person=draw(st.sampled_from(PEOPLE)),
            **said,
        )
        earlier = draw(st.sampled_from([0, *minutes]))
        effective = at("00:00").at + timedelta(minutes=earlier)
        moment = replace(event.recorded, at=when, text=when.isoformat())
        events.append(
            replace(
                event,
                message_id=MessageId(UUID(int=number)),
                recorded=moment,
                effective=draw(
                    st.sampled_from([None, moment, replace(moment, at=effective, text=effective.isoformat())])
                ),
                received_at=when + timedelta(seconds=draw(st.integers(0, 100))),
                processing=draw(processing),
                movement=draw(NAMED),
            )
        )
    return events


def told(chronicle: Chronicle) -> set[tuple[str, bytes]]:
    """What stands as announced."""
    return {(entry.fact.kind.value, entry.fact.watched) for entry in chronicle.body.announced}


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_arrival_order_and_repeats_change_neither_state_nor_facts(data: st.DataObject) -> None:
    events = data.draw(histories(ANY))
    arriving = data.draw(st.permutations(events))
    in_order, shuffled = Chronicle(VISIT), Chronicle(VISIT)
    in_order.tell(*events)
    shuffled.tell(*arriving)

    assert shuffled.body.folded == in_order.body.folded == fold(VISIT.key, events)
    assert told(shuffled) == told(in_order)
    assert told(shuffled) == {(fact.kind.value, fact.watched) for fact in shuffled.standing()}


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_apply_never_raises_whatever_comes_after_whatever(data: st.DataObject) -> None:
    state = Folded(visit=VISIT.key)
    for event in data.draw(st.permutations(data.draw(histories()))):
        before = copy.deepcopy(state)
        after, _ = apply(state, event)
        assert state == before
        state = after


@settings(max_examples=examples(200), deadline=None)
@given(histories(ANY))
def test_what_is_carried_over_stands_as_it_was_announced(events: list[Event]) -> None:
    chronicle = Chronicle(VISIT)
    for event in events:
        before = chronicle.body
        chronicle.tell(event)
        after = chronicle.body.folded
        kept = before.announced[: carried(before, after)]
        for entry, fact in zip(kept, standing(after, DIRECTORY), strict=False):
            assert replace(fact, occurrence=entry.fact.occurrence, covered_by=entry.fact.covered_by) == entry.fact
            assert entry.folded == fact.occurrence
            assert entry.fact.covered_by in (fact.covered_by, COVERED_BY_DISCHARGE)
        assert chronicle.body.announced[: len(kept)] == kept


def test_an_arrival_is_carried_over_when_the_patient_is_discharged() -> None:
    chronicle = Chronicle(VISIT)
    chronicle.tell(VISIT.event("A01", "08:00", PatientClass.INPATIENT))
    before = chronicle.body
    chronicle.tell(VISIT.event("A03", "10:00", PatientClass.INPATIENT, disposition=HOME))
    assert carried(before, chronicle.body.folded) == 1
    known_now = VISIT.event("A08", "11:00", PatientClass.INPATIENT, person=PEOPLE[1])
    assert carried(chronicle.body, apply(chronicle.body.folded, known_now)[0]) == 0


@settings(max_examples=examples(100), deadline=None)
@given(histories())
def test_folding_anew_says_nothing(events: list[Event]) -> None:
    chronicle = Chronicle(VISIT)
    chronicle.tell(*events)
    for event in events:
        folded = fold(VISIT.key, events)
        encounter_id = VISIT.key.encounter_id
        again = diff(encounter_id, chronicle.body, folded, event, DIRECTORY)
        assert not again.transitions
        assert again.body == chronicle.body


@settings(max_examples=examples(200), deadline=None)
@given(histories())
def test_what_was_announced_is_corrected_or_taken_back_and_never_twice(events: list[Event]) -> None:
    """Per fact, statements follow each other: NEW, any number of UPDATED, at most one CANCELLED, and nothing after."""
    chronicle = Chronicle(VISIT)
    chronicle.tell(*events)
    live: set[object] = set()
    for transition in chronicle.told:
        match transition.status.value:
            case "NEW":
                assert transition.supersedes is None
                live.add(transition.transition_id)
            case _:
                assert transition.supersedes in live
                live.discard(transition.supersedes)
                if transition.status.value == "UPDATED":
                    live.add(transition.transition_id)
    standing = {entry.transition_id for entry in chronicle.body.announced if not entry.fact.covered_by}
    assert standing <= live
