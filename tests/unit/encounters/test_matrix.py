"""Every cell of the state matrix (domain 2.8), listed here a second time and compared with what the machine does."""

import pytest

from tests.fixtures.visits import CONVERTED, ED, HOME, INP, OBS, OUT, PRE, Chronicle, Visit
from tocengine.encounters.matrix import MATRIX, cell_of
from tocengine.encounters.steps import Step
from tocengine.model.encounter import EncounterState
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass

V = Visit()

# how a visit comes to be in each state; "ED>OBSERVATION" and the like are the same state by another way
BEFORE: dict[str, list[Event]] = {
    "NONE": [],
    "PREADMIT": [V.event("A05", "08:00", INP)],
    "REGISTERED": [V.event("A04", "08:00", OUT)],
    "ED": [V.event("A04", "08:00", ED)],
    "OBSERVATION": [V.event("A01", "08:00", OBS)],
    "ED>OBSERVATION": [V.event("A04", "08:00", ED), V.event("A01", "08:30", OBS)],
    "INPATIENT": [V.event("A01", "08:00", INP)],
    "ED>INPATIENT": [V.event("A04", "08:00", ED), V.event("A06", "08:30", INP)],
    "ON_LEAVE": [V.event("A01", "08:00", INP), V.event("A21", "08:30", INP)],
    "OBSERVATION>ON_LEAVE": [V.event("A01", "08:00", OBS), V.event("A21", "08:30", OBS)],
    "DISCHARGED": [V.event("A01", "08:00", INP), V.event("A03", "08:30", INP, disposition=HOME)],
    "ED>DISCHARGED": [V.event("A04", "08:00", ED), V.event("A03", "08:30", ED, disposition=HOME)],
    "CONVERTED": [V.event("A04", "08:00", ED), V.event("A03", "08:30", ED, disposition=CONVERTED)],
    "CANCELLED": [V.event("A01", "08:00", INP), V.event("A11", "08:30", INP)],
}

PREADMIT = [("A05", INP), ("A05", PRE), ("A01", PRE)]
ED_ARRIVAL = [("A04", ED), ("A01", ED)]
OUTPATIENT = [("A04", OUT), ("A01", OUT), ("A04", PatientClass.RECURRING), ("A01", PatientClass.UNKNOWN), ("A06", OUT)]
ADMIT = [("A01", INP), ("A04", INP), ("A06", INP)]
OBSERVE = [("A01", OBS), ("A04", OBS), ("A06", OBS)]
ANY_A03 = [("A03", ED), ("A03", INP), ("A03", OUT)]
UPDATES = [("A08", ED), ("A08", INP), ("A08", OBS), ("A08", OUT), ("A31", OUT)]
LEAVES = [("A21", INP), ("A22", INP)]
STAY = "."

# (before, steps, state after, what is said outwardly)
CELLS: list[tuple[str, list[tuple[str, PatientClass]], str, str]] = [
    ("NONE", PREADMIT, "PREADMIT", ""),
    ("NONE", ED_ARRIVAL, "ED", "ED_REGISTRATION"),
    ("NONE", OUTPATIENT, "REGISTERED", ""),
    ("NONE", ADMIT, "INPATIENT", "INPATIENT_ADMIT"),
    ("NONE", OBSERVE, "OBSERVATION", "OBSERVATION_START"),
    ("NONE", [("A07", OBS)], "OBSERVATION", ""),
    ("NONE", [("A07", OUT)], "REGISTERED", ""),
    ("NONE", [("A21", INP)], "ON_LEAVE", ""),
    ("NONE", [("A22", INP)], "INPATIENT", ""),
    ("NONE", [("A03", INP)], "DISCHARGED", "INPATIENT_DISCHARGE"),
    ("NONE", [("A03", ED)], "DISCHARGED", "ED_DISCHARGE"),
    ("NONE", [("A03", OUT)], "DISCHARGED", ""),
    (
        "NONE",
        [("A11", INP), ("A13", INP), ("A02", INP), ("A12", INP), ("A52", INP), ("A53", INP), ("A38", INP)],
        "NONE",
        "",
    ),
    ("NONE", [("A08", ED)], "ED", "ED_REGISTRATION"),
    ("NONE", [("A08", INP)], "INPATIENT", "INPATIENT_ADMIT"),
    ("NONE", [("A08", OBS)], "OBSERVATION", ""),
    ("NONE", [("A08", OUT)], "REGISTERED", ""),
    ("NONE", [("A08", PRE)], "PREADMIT", ""),
    #
    ("PREADMIT", [*PREADMIT, *LEAVES, ("A07", OUT), ("A13", INP), *UPDATES, ("A02", INP)], "PREADMIT", ""),
    ("PREADMIT", ED_ARRIVAL, "ED", "ED_REGISTRATION"),
    ("PREADMIT", OUTPATIENT, "REGISTERED", ""),
    ("PREADMIT", ADMIT, "INPATIENT", "INPATIENT_ADMIT"),
    ("PREADMIT", OBSERVE, "OBSERVATION", "OBSERVATION_START"),
    ("PREADMIT", [("A03", ED)], "DISCHARGED", "ED_DISCHARGE"),
    ("PREADMIT", [("A03", INP)], "DISCHARGED", "INPATIENT_DISCHARGE"),
    ("PREADMIT", [("A03", OUT)], "DISCHARGED", ""),
    ("PREADMIT", [("A11", INP), ("A38", INP)], "CANCELLED", ""),
    #
    ("REGISTERED", [*PREADMIT, *OUTPATIENT, *LEAVES, ("A07", OUT), ("A13", OUT), ("A08", OUT), ("A02", OUT)], STAY, ""),
    ("REGISTERED", [*ED_ARRIVAL, ("A08", ED)], "ED", "ED_REGISTRATION"),
    ("REGISTERED", [*ADMIT, ("A08", INP)], "INPATIENT", "INPATIENT_ADMIT"),
    ("REGISTERED", OBSERVE, "OBSERVATION", "OBSERVATION_START"),
    ("REGISTERED", [("A03", OUT)], "DISCHARGED", ""),
    ("REGISTERED", [("A11", OUT)], "CANCELLED", ""),
    #
    ("ED", [*PREADMIT, *ED_ARRIVAL, *OUTPATIENT, *LEAVES, ("A07", OUT), ("A13", ED), ("A02", ED)], STAY, ""),
    ("ED", [("A08", ED), ("A08", OUT), ("A08", OBS)], STAY, ""),
    ("ED", [*ADMIT, ("A08", INP)], "INPATIENT", "INPATIENT_ADMIT"),
    ("ED", OBSERVE, "OBSERVATION", "OBSERVATION_START"),
    ("ED", [("A03", ED), ("A03", OUT)], "DISCHARGED", "ED_DISCHARGE"),
    ("ED", [("A03", INP)], "DISCHARGED", "INPATIENT_DISCHARGE"),
    ("ED", [("A11", ED)], "CANCELLED", "ED_CANCELLED"),
    #
    (
        "OBSERVATION",
        [*PREADMIT, *ED_ARRIVAL, *OUTPATIENT, *OBSERVE, ("A07", OUT), ("A13", OBS), ("A22", OBS)],
        STAY,
        "",
    ),
    ("OBSERVATION", [("A08", ED), ("A08", OUT), ("A08", OBS)], STAY, ""),
    ("OBSERVATION", [*ADMIT, ("A08", INP)], "INPATIENT", "INPATIENT_ADMIT"),
    ("OBSERVATION", [("A21", OBS), ("A53", OBS)], "ON_LEAVE", ""),
    ("OBSERVATION", [("A03", OBS)], "DISCHARGED", ""),
    ("OBSERVATION", [("A11", OBS)], "CANCELLED", "ADMIT_CANCELLED"),
    ("ED>OBSERVATION", [("A03", OBS)], "DISCHARGED", "ED_DISCHARGE"),
    ("ED>OBSERVATION", [("A11", OBS)], "ED", "ADMIT_CANCELLED"),
    #
    (
        "INPATIENT",
        [*PREADMIT, *ED_ARRIVAL, *OUTPATIENT, *ADMIT, ("A22", INP), ("A13", INP), ("A02", INP), ("A12", INP)],
        STAY,
        "",
    ),
    ("INPATIENT", [("A08", ED), ("A08", INP), ("A08", OUT)], STAY, ""),
    ("INPATIENT", [*OBSERVE, ("A07", OBS), ("A08", OBS)], "OBSERVATION", "INPATIENT_REVERSED"),
    ("INPATIENT", [("A07", OUT)], "REGISTERED", "INPATIENT_REVERSED"),
    ("INPATIENT", [("A21", INP), ("A53", INP)], "ON_LEAVE", ""),
    ("INPATIENT", ANY_A03, "DISCHARGED", "INPATIENT_DISCHARGE"),
    ("INPATIENT", [("A11", INP)], "CANCELLED", "ADMIT_CANCELLED"),
    ("ED>INPATIENT", [("A11", INP)], "ED", "ADMIT_CANCELLED"),
    #
    (
        "ON_LEAVE",
        [*PREADMIT, *ED_ARRIVAL, *OUTPATIENT, *ADMIT, *OBSERVE, ("A07", OUT), ("A21", INP), ("A13", INP)],
        STAY,
        "",
    ),
    ("ON_LEAVE", UPDATES, STAY, ""),
    ("ON_LEAVE", [("A22", INP), ("A52", INP)], "INPATIENT", ""),
    ("ON_LEAVE", ANY_A03, "DISCHARGED", "INPATIENT_DISCHARGE"),
    ("ON_LEAVE", [("A11", INP)], "CANCELLED", "ADMIT_CANCELLED"),
    ("OBSERVATION>ON_LEAVE", ADMIT, "INPATIENT", "INPATIENT_ADMIT"),
    ("OBSERVATION>ON_LEAVE", [("A22", OBS)], "OBSERVATION", ""),
    #
    ("DISCHARGED", [*PREADMIT, *ED_ARRIVAL, *OUTPATIENT, *LEAVES, ("A07", OUT), ("A02", INP), ("A03", INP)], STAY, ""),
    ("DISCHARGED", [("A08", INP), ("A31", INP)], STAY, ""),
    ("DISCHARGED", [("A08", OUT)], STAY, "INPATIENT_DISCHARGE_CORRECTED"),
    ("DISCHARGED", ADMIT, "INPATIENT", "DISCHARGE_CANCELLED"),
    ("DISCHARGED", [("A11", INP)], "CANCELLED", "ADMIT_CANCELLED"),
    ("DISCHARGED", [("A13", INP)], "INPATIENT", "DISCHARGE_CANCELLED"),
    ("ED>DISCHARGED", [("A11", ED)], "CANCELLED", "ED_CANCELLED"),
    ("ED>DISCHARGED", [("A13", ED)], "ED", "DISCHARGE_CANCELLED"),
    (
        "CONVERTED",
        [("A01", ED), ("A01", OUT), ("A01", INP), ("A01", OBS), ("A04", INP)],
        "INPATIENT",
        "INPATIENT_ADMIT",
    ),
    ("CONVERTED", [("A04", ED), ("A04", OUT)], "DISCHARGED", ""),
    #
    ("CANCELLED", [*PREADMIT, *LEAVES, *UPDATES, ("A07", OUT), ("A11", INP), ("A13", INP), ("A02", INP)], STAY, ""),
    ("CANCELLED", [("A03", ED), ("A03", OUT)], STAY, ""),
    ("CANCELLED", ED_ARRIVAL, "ED", "ED_REGISTRATION"),
    ("CANCELLED", OUTPATIENT, "REGISTERED", ""),
    ("CANCELLED", ADMIT, "INPATIENT", "INPATIENT_ADMIT"),
    ("CANCELLED", OBSERVE, "OBSERVATION", "OBSERVATION_START"),
]


def _each() -> list[tuple[str, str, PatientClass, str, str]]:
    return [
        (before, trigger, patient_class, after, said)
        for before, steps, after, said in CELLS
        for trigger, patient_class in steps
    ]


@pytest.mark.parametrize(
    ("before", "trigger", "patient_class", "after", "said"),
    _each(),
    ids=[f"{before}-{trigger}-{cls}" for before, trigger, cls, _, _ in _each()],
)
def test_cell(before: str, trigger: str, patient_class: PatientClass, after: str, said: str) -> None:
    chronicle = Chronicle(V)
    chronicle.tell(*BEFORE[before])
    held = chronicle.state

    spoken = [kind for _, kind in chronicle.tell(V.event(trigger, "09:00", patient_class))]

    assert chronicle.state == (held if after == STAY else after)
    assert spoken == ([said] if said else [])


def test_the_setups_are_what_they_say() -> None:
    for name, events in BEFORE.items():
        chronicle = Chronicle(V)
        chronicle.tell(*events)
        expected = "DISCHARGED" if name == "CONVERTED" else name.rpartition(">")[2]
        assert chronicle.state == expected, name


def test_every_state_has_a_row_and_every_other_step_keeps_it() -> None:
    assert set(MATRIX) == set(EncounterState)
    for state in EncounterState:
        for step in (Step.PERSON, Step.LINK, Step.IGNORE, Step.MOVE):
            assert cell_of(state, step).state is None


@pytest.mark.parametrize("trigger", ["A20", "A09", "A15", "A60", "Z99", ""])
def test_other_triggers_move_nothing(trigger: str) -> None:
    for events in BEFORE.values():
        chronicle = Chronicle(V)
        chronicle.tell(*events)
        held = chronicle.state
        assert chronicle.tell(V.event(trigger, "09:00", INP)) == []
        assert chronicle.state == held


def test_an_event_that_is_not_handled_yet_is_flagged_only() -> None:
    chronicle = Chronicle(V)
    assert chronicle.tell(V.event("A01", "09:00", INP, handled=False)) == []
    assert chronicle.state == "NONE"
    assert chronicle.body.folded.flags == ("not_handled",)


COLUMNS = {
    "pre-admit": PREADMIT,
    "ED arrival": ED_ARRIVAL,
    "outpatient": OUTPATIENT,
    "admit": ADMIT,
    "observation": OBSERVE,
    "A07": [("A07", OUT), ("A07", OBS)],
    "leave": [("A21", INP), ("A21", OBS)],
    "return": [("A22", INP), ("A22", OBS)],
    "discharge": [*ANY_A03, ("A03", OBS)],
    "cancel arrival": [("A11", ED), ("A11", INP), ("A11", OBS), ("A11", OUT)],
    "cancel discharge": [("A13", ED), ("A13", INP), ("A13", OBS), ("A13", OUT)],
    "update": UPDATES,
}
"""The columns of the table in domain 2.8, as the messages that are in them."""


@pytest.mark.parametrize("state", [state.value for state in EncounterState if state is not EncounterState.MERGED])
def test_no_cell_of_the_table_is_left_out(state: str) -> None:
    listed = {step for before, steps, _, _ in CELLS if _state(before) == state for step in steps}
    assert [name for name, steps in COLUMNS.items() if not listed.intersection(steps)] == []


def _state(before: str) -> str:
    return "DISCHARGED" if before == "CONVERTED" else before.rpartition(">")[2]
