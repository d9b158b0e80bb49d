"""What a Z99 takes out from beneath later movements, or states anew, counts as never stated, or as stated so."""

from datetime import timedelta
from uuid import UUID

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.fixtures.visits import ED, INP, OBS, OUT, PRE, Chronicle, Visit, at
from tests.properties.searching import examples
from tocengine.encounters.fold import fold
from tocengine.encounters.machine import apply
from tocengine.encounters.movements import ARRIVED
from tocengine.encounters.state import Folded
from tocengine.model.event import Event, MovementAction, NamedMovement
from tocengine.model.facts import PatientClass
from tocengine.model.ids import MessageId

VISIT = Visit()
CLASSES = st.sampled_from([ED, INP, OBS, OUT, PRE])
ARRIVALS = ("A01", "A04", "A06")
SAID = st.one_of(
    st.tuples(st.sampled_from([*ARRIVALS, "A05", "A08", "A21", "A03"]), CLASSES),
    st.tuples(st.just("A07"), st.sampled_from([ED, OBS, OUT])),
)


def stated(number: int, trigger: str, patient_class: PatientClass) -> Event:
    """The message of the movement `number`, an hour after the one before."""
    event = VISIT.event(trigger, "00:00", patient_class)
    when = at("06:00").at + timedelta(hours=number)
    return replace(
        event,
        message_id=MessageId(UUID(int=number)),
        recorded=replace(event.recorded, at=when, text=when.isoformat()),
        received_at=when,
        movement=NamedMovement(ids=(str(number),), action=MovementAction.INSERT),
    )


def about(target: Event, action: MovementAction, patient_class: PatientClass) -> Event:
    """The Z99 that comes at the end of the day and names the movement `target` stated."""
    assert target.movement is not None
    named = NamedMovement(ids=target.movement.ids, action=action, trigger=target.trigger)
    return replace(VISIT.event("Z99", "23:00", patient_class), message_id=MessageId(UUID(int=99)), movement=named)


@st.composite
def movements(draw: st.DrawFn) -> list[Event]:
    """Messages each of which moves the patient once."""
    events: list[Event] = []
    state = Folded(visit=VISIT.key)
    for trigger, patient_class in draw(st.lists(SAID, min_size=6, max_size=12)):
        event = stated(len(events), trigger, patient_class)
        after, _ = apply(state, event)
        named = [movement.ids for movement in after.movements if movement.ids]
        if named == [(str(number),) for number in range(len(events) + 1)]:
            state = after
            events.append(event)
    assume(len(events) > 1)
    return events


def counts(events: list[Event]) -> object:
    """The state, and each fact that is told and stands, with its time."""
    chronicle = Chronicle(VISIT)
    chronicle.tell(*events)
    facts = sorted((fact.kind.value, fact.effective.at) for fact in chronicle.standing())
    assert facts == sorted((e.fact.kind.value, e.fact.effective.at) for e in chronicle.body.announced)
    return chronicle.state, facts


@settings(max_examples=examples(150), deadline=None)
@given(movements(), st.data())
def test_a_movement_that_is_struck_was_never_stated(events: list[Event], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(events[:-1]))
    others = [event for event in events if event is not target]
    began = fold(VISIT.key, events).movements
    if target is events[0]:  # a discharge or leave of a visit that never began goes with it
        assume(next(each for each in began if each.ids == ("1",)).state in ARRIVED)
    now, never = counts([*events, about(target, MovementAction.CANCEL, INP)]), counts(others)
    assert now == never


@settings(max_examples=examples(150), deadline=None)
@given(movements(), CLASSES, st.data())
def test_an_arrival_that_is_given_another_class_was_always_of_it(
    events: list[Event], patient_class: PatientClass, data: st.DataObject
) -> None:
    arrivals = [event for event in events if event.trigger in ARRIVALS]
    assume(arrivals)
    target = data.draw(st.sampled_from(arrivals))
    as_now = [
        stated(events.index(event), event.trigger, patient_class) if event is target else event for event in events
    ]
    now, so = counts([*events, about(target, MovementAction.UPDATE, patient_class)]), counts(as_now)
    assert now == so
