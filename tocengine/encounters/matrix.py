"""Owns the state matrix of domain 2.8 as data: for every state and step what is done, the state after, the fact.

Rows are the state before, columns the step. A cell that is not listed keeps the state: the event is stored and what it
says of patient and visit is laid over what is known. `machine` carries the cells out.
"""

from enum import StrEnum

import msgspec

from tocengine.encounters.steps import Step
from tocengine.model.encounter import EncounterState, TransitionKind


class Action(StrEnum):
    """What a cell does to the stack of movements."""

    KEEP = "KEEP"
    ENTER = "ENTER"  # a movement to the cell's state
    IMPLY = "IMPLY"  # open by class, because something we never heard must have happened
    REVERSE = "REVERSE"  # the admission is taken back, the patient stays
    LEAVE = "LEAVE"
    RETURN = "RETURN"
    CLOSE = "CLOSE"  # discharge, through the cell's state if that was never heard of
    REOPEN = "REOPEN"  # an arrival after a discharge
    CANCEL = "CANCEL"  # take off the arrival that is named, else the last
    CANCEL_CLOSE = "CANCEL_CLOSE"
    EXPECT = "EXPECT"
    UNEXPECT = "UNEXPECT"
    AMEND = "AMEND"  # change the movement that is named
    STRIKE = "STRIKE"  # take out the movement that is named, and no other
    UNDERLYING = "UNDERLYING"  # as in the state before the leave


class Cell(msgspec.Struct, frozen=True):
    """One cell: `state` after, the `fact` raised, the `flag` left on the encounter."""

    action: Action = Action.KEEP
    state: EncounterState | None = None
    fact: TransitionKind | None = None
    flag: str = ""


S, K, A = EncounterState, TransitionKind, Action

KEEP = Cell()
ED = Cell(A.ENTER, S.ED, K.ED_REGISTRATION)
ADMIT = Cell(A.ENTER, S.INPATIENT, K.INPATIENT_ADMIT)
OBSERVE = Cell(A.ENTER, S.OBSERVATION, K.OBSERVATION_START)
REGISTER = Cell(A.ENTER, S.REGISTERED)
PREADMIT = Cell(A.ENTER, S.PREADMIT)
CANCEL = Cell(A.CANCEL)
END = Cell(A.CLOSE)  # an outpatient visit ends: nothing to tell
END_ED = Cell(A.CLOSE, None, K.ED_DISCHARGE)
END_ED_UNHEARD = Cell(A.CLOSE, S.ED, K.ED_DISCHARGE, "implicit_open")
END_STAY = Cell(A.CLOSE, None, K.INPATIENT_DISCHARGE)
END_STAY_UNHEARD = Cell(A.CLOSE, S.INPATIENT, K.INPATIENT_DISCHARGE, "implicit_open")
STILL_PATIENT = Cell(flag="still_patient")
UNEXPECTED = Cell(flag="unexpected_leave")
IMPLICIT = Cell(A.IMPLY, flag="implicit_open")
REOPEN = Cell(A.REOPEN, flag="reopened")
EXPECT = Cell(A.EXPECT, None, K.DISCHARGE_PENDING)

MATRIX: dict[EncounterState, dict[Step, Cell]] = {
    S.NONE: {
        Step.PREADMIT: PREADMIT,
        Step.ED_ARRIVAL: ED,
        Step.OUTPATIENT: REGISTER,
        Step.ADMIT: ADMIT,
        Step.OBSERVATION: OBSERVE,
        Step.REVERSE: IMPLICIT,
        Step.LEAVE: IMPLICIT,
        Step.RETURN: IMPLICIT,
        Step.DISCHARGE: Cell(A.CLOSE, S.REGISTERED, None, "implicit_open"),
        Step.DISCHARGE_EMERGENCY: END_ED_UNHEARD,
        Step.DISCHARGE_INPATIENT: END_STAY_UNHEARD,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.UPDATE: IMPLICIT,
        Step.UPDATE_EMERGENCY: Cell(A.IMPLY, None, K.ED_REGISTRATION, "implicit_open"),
        Step.UPDATE_INPATIENT: Cell(A.IMPLY, None, K.INPATIENT_ADMIT, "implicit_open"),
        Step.UPDATE_OBSERVATION: IMPLICIT,
        Step.UPDATE_PREADMIT: IMPLICIT,
        Step.EXPECT_DISCHARGE: IMPLICIT,
    },
    S.PREADMIT: {
        Step.CANCEL_PREADMIT: CANCEL,
        Step.ED_ARRIVAL: ED,
        Step.OUTPATIENT: REGISTER,
        Step.ADMIT: ADMIT,
        Step.OBSERVATION: OBSERVE,
        Step.DISCHARGE: END,
        Step.DISCHARGE_EMERGENCY: END_ED_UNHEARD,
        Step.DISCHARGE_INPATIENT: END_STAY_UNHEARD,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
    },
    S.REGISTERED: {
        Step.ED_ARRIVAL: ED,
        Step.ADMIT: ADMIT,
        Step.OBSERVATION: OBSERVE,
        Step.DISCHARGE: END,
        Step.DISCHARGE_EMERGENCY: END_ED_UNHEARD,
        Step.DISCHARGE_INPATIENT: END_STAY_UNHEARD,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
        Step.UPDATE_EMERGENCY: ED,
        Step.UPDATE_INPATIENT: ADMIT,
    },
    S.ED: {
        Step.OUTPATIENT: Cell(flag="outpatient_during_ed"),
        Step.ADMIT: ADMIT,
        Step.OBSERVATION: OBSERVE,
        Step.LEAVE: UNEXPECTED,
        Step.RETURN: UNEXPECTED,
        Step.DISCHARGE: END_ED,
        Step.DISCHARGE_EMERGENCY: END_ED,
        Step.DISCHARGE_INPATIENT: END_STAY_UNHEARD,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
        Step.UPDATE_INPATIENT: ADMIT,
        Step.EXPECT_DISCHARGE: EXPECT,
        Step.CANCEL_EXPECTED: Cell(A.UNEXPECT),
    },
    S.OBSERVATION: {
        Step.ADMIT: ADMIT,
        Step.LEAVE: Cell(A.LEAVE, S.ON_LEAVE),
        Step.CANCEL_RETURN: Cell(A.LEAVE, S.ON_LEAVE),
        Step.DISCHARGE: END_ED,  # the machine tells it only where the visit began in the ED
        Step.DISCHARGE_EMERGENCY: END_ED,
        Step.DISCHARGE_INPATIENT: END_STAY_UNHEARD,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
        Step.UPDATE_INPATIENT: ADMIT,
        Step.EXPECT_DISCHARGE: EXPECT,
        Step.CANCEL_EXPECTED: Cell(A.UNEXPECT),
    },
    S.INPATIENT: {
        Step.ED_ARRIVAL: Cell(flag="arrival_during_stay"),
        Step.OUTPATIENT: Cell(flag="arrival_during_stay"),
        Step.OBSERVATION: Cell(A.REVERSE),
        Step.REVERSE: Cell(A.REVERSE),
        Step.LEAVE: Cell(A.LEAVE, S.ON_LEAVE),
        Step.CANCEL_RETURN: Cell(A.LEAVE, S.ON_LEAVE),
        Step.DISCHARGE: END_STAY,
        Step.DISCHARGE_EMERGENCY: END_STAY,
        Step.DISCHARGE_INPATIENT: END_STAY,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
        Step.UPDATE_OBSERVATION: Cell(A.REVERSE),
        Step.EXPECT_DISCHARGE: EXPECT,
        Step.CANCEL_EXPECTED: Cell(A.UNEXPECT),
    },
    S.ON_LEAVE: {
        Step.ADMIT: Cell(A.UNDERLYING),
        Step.RETURN: Cell(A.RETURN),
        Step.CANCEL_LEAVE: Cell(A.RETURN),
        Step.DISCHARGE: Cell(A.UNDERLYING),
        Step.DISCHARGE_EMERGENCY: Cell(A.UNDERLYING),
        Step.DISCHARGE_INPATIENT: Cell(A.UNDERLYING),
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
    },
    S.DISCHARGED: {
        Step.ED_ARRIVAL: REOPEN,
        Step.OUTPATIENT: REOPEN,
        Step.ADMIT: REOPEN,
        Step.OBSERVATION: REOPEN,
        Step.LEAVE: UNEXPECTED,
        Step.RETURN: UNEXPECTED,
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.CANCEL_ARRIVAL: CANCEL,
        Step.CANCEL_DISCHARGE: Cell(A.CANCEL_CLOSE),
    },
    S.CANCELLED: {
        Step.ED_ARRIVAL: Cell(A.ENTER, S.ED, K.ED_REGISTRATION, "reopened"),
        Step.OUTPATIENT: Cell(A.ENTER, S.REGISTERED, None, "reopened"),
        Step.ADMIT: Cell(A.ENTER, S.INPATIENT, K.INPATIENT_ADMIT, "reopened"),
        Step.OBSERVATION: Cell(A.ENTER, S.OBSERVATION, K.OBSERVATION_START, "reopened"),
        Step.STILL_PATIENT: STILL_PATIENT,
        Step.UPDATE: Cell(flag="update_of_cancelled_visit"),
        Step.UPDATE_EMERGENCY: Cell(flag="update_of_cancelled_visit"),
        Step.UPDATE_INPATIENT: Cell(flag="update_of_cancelled_visit"),
        Step.UPDATE_OBSERVATION: Cell(flag="update_of_cancelled_visit"),
        Step.UPDATE_PREADMIT: Cell(flag="update_of_cancelled_visit"),
    },
    S.MERGED: {},
}
"""A01/A04 of class I while DISCHARGED reopens only if it took effect later, or after a conversion (`machine`)."""

IN_EVERY_STATE = {Step.AMEND: Cell(A.AMEND), Step.STRIKE: Cell(A.STRIKE)}


def cell_of(state: EncounterState, step: Step) -> Cell:
    """The cell; one that is not listed keeps the state."""
    return MATRIX[state].get(step) or IN_EVERY_STATE.get(step, KEEP)
