"""The table of domain 2.8, row by row as it stands there, against what the machine does: every cell, none left out.

A cell is the state after and what is told; `.` leaves the state and tells nothing, `!` names the flag it leaves. The
rows that the table tells apart within a state ("if it began in ED", "after 09", "the state before the leave") are rows
of their own.
"""

from typing import Any

import pytest

from tests.fixtures.visits import CONVERTED, ED, HOME, INP, OBS, OUT, PRE, STILL, Chronicle, Visit
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass

V = Visit()
Message = tuple[str, PatientClass]

COLUMNS: dict[str, list[Message]] = {
    "pre-admit": [("A05", PRE), ("A05", INP)],
    "ED": [("A01", ED), ("A04", ED)],
    "outpatient": [("A01", OUT), ("A04", OUT)],
    "admit": [("A01", INP), ("A04", INP), ("A06", INP)],
    "observation": [("A01", OBS), ("A04", OBS), ("A06", OBS)],
    "A07": [("A07", OBS)],
    "A21": [("A21", INP)],
    "A22": [("A22", INP)],
    "A03 of E": [("A03", ED)],
    "A03 of I": [("A03", INP)],
    "A03 else": [("A03", OUT), ("A03", OBS)],
    "A11": [("A11", INP), ("A11", ED), ("A11", OUT)],
    "A13": [("A13", INP), ("A13", ED), ("A13", OUT)],
    "A08 of E": [("A08", ED)],
    "A08 of I": [("A08", INP)],
    "A08 of obs.": [("A08", OBS)],
    "A08 else": [("A08", OUT)],
}

WAYS: dict[str, list[Event]] = {
    "none": [],
    "PREADMIT": [V.event("A05", "08:00", PRE)],
    "REGISTERED": [V.event("A04", "08:00", OUT)],
    "ED": [V.event("A04", "08:00", ED)],
    "OBSERVATION": [V.event("A01", "08:00", OBS)],
    "OBSERVATION from ED": [V.event("A04", "07:00", ED), V.event("A01", "08:00", OBS)],
    "INPATIENT": [V.event("A01", "08:00", INP)],
    "INPATIENT from ED": [V.event("A04", "07:00", ED), V.event("A06", "08:00", INP)],
    "ON_LEAVE": [V.event("A01", "07:00", INP), V.event("A21", "08:00", INP)],
    "ON_LEAVE from obs.": [V.event("A01", "07:00", OBS), V.event("A21", "08:00", OBS)],
    "DISCHARGED": [V.event("A01", "07:00", INP), V.event("A03", "08:00", INP, disposition=HOME)],
    "DISCHARGED from ED": [V.event("A04", "07:00", ED), V.event("A03", "08:00", ED, disposition=HOME)],
    "DISCHARGED by 09": [V.event("A04", "07:00", ED), V.event("A03", "08:00", ED, disposition=CONVERTED)],
    "CANCELLED": [V.event("A01", "07:00", INP), V.event("A11", "08:00", INP)],
}

ROWS: dict[str, dict[str, str]] = {
    "none": {
        "pre-admit": "PREADMIT",
        "ED": "ED ED_REGISTRATION",
        "outpatient": "REGISTERED",
        "admit": "INPATIENT INPATIENT_ADMIT",
        "observation": "OBSERVATION OBSERVATION_START",
        "A07": "OBSERVATION !implicit_open",  # "implicit": opened by its class, in silence
        "A21": "ON_LEAVE !implicit_open",
        "A22": "INPATIENT !implicit_open",
        "A03 of E": "DISCHARGED ED_DISCHARGE !implicit_open",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE !implicit_open",
        "A03 else": "DISCHARGED !implicit_open",
        "A11": ".",
        "A13": ".",
        "A08 of E": "ED ED_REGISTRATION !implicit_open",
        "A08 of I": "INPATIENT INPATIENT_ADMIT !implicit_open",
        "A08 of obs.": "OBSERVATION !implicit_open",
        "A08 else": "REGISTERED !implicit_open",
    },
    "PREADMIT": {
        "pre-admit": ".",
        "ED": "ED ED_REGISTRATION",
        "outpatient": "REGISTERED",
        "admit": "INPATIENT INPATIENT_ADMIT",
        "observation": "OBSERVATION OBSERVATION_START",
        "A07": ".",
        "A21": ".",
        "A22": ".",
        "A03 of E": "DISCHARGED ED_DISCHARGE !implicit_open",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE !implicit_open",
        "A03 else": "DISCHARGED",
        "A11": "CANCELLED",
        "A13": ".",
        "A08 of E": ".",
        "A08 of I": ".",
        "A08 of obs.": ".",
        "A08 else": ".",
    },
    "REGISTERED": {
        "pre-admit": ".",
        "ED": "ED ED_REGISTRATION",
        "outpatient": ".",
        "admit": "INPATIENT INPATIENT_ADMIT",
        "observation": "OBSERVATION OBSERVATION_START",
        "A07": ".",
        "A21": ".",
        "A22": ".",
        "A03 of E": "DISCHARGED ED_DISCHARGE !implicit_open",  # the class decides; see docs/ambiguities.md
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE !implicit_open",
        "A03 else": "DISCHARGED",
        "A11": "CANCELLED",
        "A13": ".",
        "A08 of E": "ED ED_REGISTRATION",
        "A08 of I": "INPATIENT INPATIENT_ADMIT",
        "A08 of obs.": ".",
        "A08 else": ".",
    },
    "ED": {
        "pre-admit": ".",
        "ED": ".",
        "outpatient": ". !outpatient_during_ed",
        "admit": "INPATIENT INPATIENT_ADMIT",
        "observation": "OBSERVATION OBSERVATION_START",
        "A07": ".",
        "A21": ". !unexpected_leave",
        "A22": ". !unexpected_leave",
        "A03 of E": "DISCHARGED ED_DISCHARGE",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE !implicit_open",
        "A03 else": "DISCHARGED ED_DISCHARGE",
        "A11": "CANCELLED ED_CANCELLED",
        "A13": ".",
        "A08 of E": ".",
        "A08 of I": "INPATIENT INPATIENT_ADMIT",
        "A08 of obs.": ".",
        "A08 else": ".",
    },
    "OBSERVATION": {
        "pre-admit": ".",
        "ED": ".",
        "outpatient": ".",
        "admit": "INPATIENT INPATIENT_ADMIT",
        "observation": ".",
        "A07": ".",
        "A21": "ON_LEAVE",
        "A22": ".",
        "A03 of E": "DISCHARGED",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE !implicit_open",
        "A03 else": "DISCHARGED",
        "A11": "CANCELLED ADMIT_CANCELLED",
        "A13": ".",
        "A08 of E": ".",
        "A08 of I": "INPATIENT INPATIENT_ADMIT",
        "A08 of obs.": ".",
        "A08 else": ".",
    },
    "INPATIENT": {
        "pre-admit": ".",
        "ED": ".",
        "outpatient": ".",
        "admit": ".",
        "observation": "OBSERVATION INPATIENT_REVERSED",
        "A07": "OBSERVATION INPATIENT_REVERSED",
        "A21": "ON_LEAVE",
        "A22": ".",
        "A03 of E": "DISCHARGED INPATIENT_DISCHARGE",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE",
        "A03 else": "DISCHARGED INPATIENT_DISCHARGE",
        "A11": "CANCELLED ADMIT_CANCELLED",
        "A13": ".",
        "A08 of E": ".",
        "A08 of I": ".",
        "A08 of obs.": "OBSERVATION INPATIENT_REVERSED",
        "A08 else": ".",
    },
    "ON_LEAVE": {
        "pre-admit": ".",
        "ED": ".",
        "outpatient": ".",
        "admit": ".",
        "observation": ".",
        "A07": ".",
        "A21": ".",
        "A22": "INPATIENT",
        "A03 of E": "DISCHARGED INPATIENT_DISCHARGE",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE",
        "A03 else": "DISCHARGED INPATIENT_DISCHARGE",
        "A11": "CANCELLED ADMIT_CANCELLED",
        "A13": ".",
        "A08 of E": ".",
        "A08 of I": ".",
        "A08 of obs.": ".",
        "A08 else": ".",
    },
    "DISCHARGED": {
        "pre-admit": ".",
        "ED": ".",
        "outpatient": ".",
        "admit": "INPATIENT DISCHARGE_CANCELLED !reopened",
        "observation": "OBSERVATION INPATIENT_REVERSED DISCHARGE_CANCELLED !reopened",
        "A07": ".",
        "A21": ". !unexpected_leave",
        "A22": ". !unexpected_leave",
        "A03 of E": ". INPATIENT_DISCHARGE_CORRECTED",  # its class is watched (2.4)
        "A03 of I": ".",
        "A03 else": ". INPATIENT_DISCHARGE_CORRECTED",
        "A11": "CANCELLED ADMIT_CANCELLED",
        "A13": "INPATIENT DISCHARGE_CANCELLED",
        "A08 of E": ". INPATIENT_DISCHARGE_CORRECTED",
        "A08 of I": ".",
        "A08 of obs.": ". INPATIENT_DISCHARGE_CORRECTED",
        "A08 else": ". INPATIENT_DISCHARGE_CORRECTED",
    },
    "CANCELLED": {
        "pre-admit": ".",
        "ED": "ED ED_REGISTRATION !reopened",
        "outpatient": "REGISTERED !reopened",
        "admit": "INPATIENT INPATIENT_ADMIT !reopened",
        "observation": "OBSERVATION OBSERVATION_START !reopened",
        "A07": ".",
        "A21": ".",
        "A22": ".",
        "A03 of E": ".",
        "A03 of I": ".",
        "A03 else": ".",
        "A11": ".",
        "A13": ".",
        "A08 of E": ". !update_of_cancelled_visit",
        "A08 of I": ". !update_of_cancelled_visit",
        "A08 of obs.": ". !update_of_cancelled_visit",
        "A08 else": ". !update_of_cancelled_visit",
    },
}
ROWS |= {
    "OBSERVATION from ED": ROWS["OBSERVATION"]
    | {
        "A03 of E": "DISCHARGED ED_DISCHARGE",
        "A03 else": "DISCHARGED ED_DISCHARGE",
        "A11": "ED ADMIT_CANCELLED",
    },
    "INPATIENT from ED": ROWS["INPATIENT"] | {"A11": "ED ADMIT_CANCELLED"},
    "ON_LEAVE from obs.": ROWS["ON_LEAVE"]
    | {
        "admit": "INPATIENT INPATIENT_ADMIT",
        "A22": "OBSERVATION",
        "A03 of E": "DISCHARGED",
        "A03 of I": "DISCHARGED INPATIENT_DISCHARGE !implicit_open",
        "A03 else": "DISCHARGED",
    },
    "DISCHARGED from ED": ROWS["DISCHARGED"]
    | {
        "admit": "INPATIENT DISCHARGE_CANCELLED INPATIENT_ADMIT !reopened",
        "observation": "OBSERVATION DISCHARGE_CANCELLED OBSERVATION_START !reopened",
        "A03 of E": ".",
        "A03 of I": ". ED_DISCHARGE_CORRECTED",
        "A03 else": ". ED_DISCHARGE_CORRECTED",
        "A11": "CANCELLED ED_CANCELLED",
        "A13": "ED DISCHARGE_CANCELLED",
        "A08 of E": ".",
        "A08 of I": ". ED_DISCHARGE_CORRECTED",
        "A08 of obs.": ". ED_DISCHARGE_CORRECTED",
        "A08 else": ". ED_DISCHARGE_CORRECTED",
    },
    "DISCHARGED by 09": ROWS["DISCHARGED"]
    | {
        "admit": "INPATIENT INPATIENT_ADMIT",
        "A03 of E": ".",
        "A03 else": ".",
        "A11": "CANCELLED ED_CANCELLED",
        "A13": "ED",
        "A08 of E": ".",
        "A08 of obs.": ".",
        "A08 else": ".",
    },
}
"""What the table says of the same state in these cases, and otherwise as of the state."""

ONLY_AFTER_09 = [("A01", ED), ("A01", OUT), ("A01", OBS), ("A06", OBS)]
"""An A01 of whatever class is the admission that 09 announced; what merely registers is not."""

CELLS = [
    (row, column, trigger, patient_class)
    for row in ROWS
    for column, messages in COLUMNS.items()
    for trigger, patient_class in messages
    if row != "DISCHARGED by 09" or column not in ("ED", "outpatient", "observation")
]


def after(row: str, event: Event) -> tuple[str, set[str], set[str], str]:
    """The state, what is told, the flags that are new, and the state before."""
    chronicle = Chronicle(V)
    chronicle.tell(*WAYS[row])
    before, flags = chronicle.state, set(chronicle.body.folded.flags)
    told = {kind for _, kind in chronicle.tell(event)}
    return chronicle.state, told, set(chronicle.body.folded.flags) - flags, before


@pytest.mark.parametrize(("row", "column", "trigger", "patient_class"), CELLS)
def test_cell(row: str, column: str, trigger: str, patient_class: PatientClass) -> None:
    state, told, flags, before = after(row, V.event(trigger, "09:00", patient_class))
    wanted, *rest = ROWS[row][column].split()
    assert state == (before if wanted == "." else wanted)
    assert told == {word for word in rest if not word.startswith("!")}
    assert {f"!{flag}" for flag in flags} >= {word for word in rest if word.startswith("!")}


@pytest.mark.parametrize(("trigger", "patient_class"), ONLY_AFTER_09)
def test_after_09_an_a01_is_the_admission_whatever_its_class(trigger: str, patient_class: PatientClass) -> None:
    state, told, _, _ = after("DISCHARGED by 09", V.event(trigger, "09:00", patient_class))
    assert (state, told) == ("INPATIENT", {"INPATIENT_ADMIT"})


@pytest.mark.parametrize("row", WAYS)
@pytest.mark.parametrize(("trigger", "said"), [("A02", {}), ("A12", {}), ("A03", {"disposition": STILL})])
def test_bed_moves_and_interim_bills_move_no_state(row: str, trigger: str, said: dict[str, Any]) -> None:
    state, told, flags, before = after(row, V.event(trigger, "09:00", INP, **said))
    assert (state, told) == (before, set())
    assert trigger != "A03" or "still_patient" in flags


def test_every_row_and_column_is_there() -> None:
    assert set(ROWS) == set(WAYS)
    assert all(list(row) == list(COLUMNS) for row in ROWS.values())
