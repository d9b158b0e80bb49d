"""Every kind of notice the engine renders passes our checks, our schema, the R4B models and the HL7 validator."""

import importlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import orjson
import pytest

from tests.fixtures.adt import adt, movement, normalized, pv1, segment
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tests.services.validator import write_bundles
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.schema import validator
from tocengine.model.directory import Level
from tocengine.model.encounter import EncounterState, TransitionKind, TransitionStatus
from tocengine.model.event import EventRecord
from tocengine.model.ids import NoticeId, derive
from tocengine.model.notice import Basis

EVN = "EVN||20260301154100-0500||||20260301153500-0500"
RICH = movement(
    "A03",
    {
        8: "^BLACK^JO",
        10: "SUR",
        14: "4",
        36: "83",
        37: "MEADOW HOUSE",
        44: "20260226101500-0500",
        45: "20260301153500-0500",
    },
    "PV2|||R07.9^Chest pain^I10",
    "ROL|1|AD|CP|1234567893^PATEL^RAVI^^^^^^NPI|20260227|20260301|||||9 MILL LN^^UTICA^^^^H|^WPN^PH^^1^315^5550142",
    "DG1|1||I509^Heart failure^I10|||A|||||||||||||20260227",
    "DG1|2||^Fall at home||20260226|W",
    "AL1|1|DA|PCN^Penicillin^L|SV|Rash~Hives|20200101",
    "AL1|2||NKA",
    segment(
        "IN1",
        {
            1: "1",
            2: "MCR^Plan A",
            3: "0001",
            4: "EVERGREEN HEALTH",
            5: "1 MAIN ST^^ALBANY^NY^12207^USA",
            7: "^WPN^PH^^1^518^5550100",
            12: "20250101",
            13: "20261231",
            15: "SEL",
            17: "SEL",
            49: "AB123",
        },
    ),
    "NK1|1|VOSS^PETER|SPO^Spouse|9 OAK RD^^UTICA^NY^13502|^PRN^PH^^1^315^5550199",
    "NK1|2|SUNRISE LLC|EMR",
    pid="PID|1||00777^^^STJ^MR||VOSS^HELENA^T^^^^L||19510304|F|||4 PINE ST^^UTICA^NY^13501^^H||^PRN^CP^^1^315^5550111"
    "||||||||||||||||20260301150000-0500|Y",
)
BARE = adt("A01", EVN, "PID|1||88^^^STJ^MR", pv1({3: "", 7: "9999999999^UNKNOWN^PROVIDER"}))


def _render(record: EventRecord, state: EncounterState, **changed: object) -> bytes:
    told = notice(record.summary, notice_id=NoticeId(derive("n", str(changed), record.summary.trigger)), **changed)
    tracked = snapshot(record.summary, state)
    if len(tracked.phases) == 1 and state is EncounterState.INPATIENT:
        start = record.summary.recorded
        tracked = msgspec.structs.replace(tracked, phases=(("EMERGENCY", start), ("INPATIENT", start)))
    return render_notification(told, tracked, bytes(record.fhir), SUNNYSIDE, URL, ENGINE)


def notices() -> dict[str, bytes]:
    """One notice of each kind, level and status."""
    rich, bare = normalized(RICH), normalized(BARE)
    found = {
        f"discharge-{level}": _render(rich, EncounterState.DISCHARGED, level=level, basis=(Basis.PANEL,))
        for level in Level
    }
    admit = TransitionKind.INPATIENT_ADMIT
    for level in Level:
        found[f"admit-{level}"] = _render(bare, EncounterState.INPATIENT, kind=admit, fact_kind=admit, level=level)
    found["discharge-to-destination"] = _render(rich, EncounterState.DISCHARGED)
    earlier = NoticeId(derive("n", "earlier"))
    found["cancelled"] = _render(
        rich,
        EncounterState.INPATIENT,
        kind=TransitionKind.DISCHARGE_CANCELLED,
        status=TransitionStatus.CANCELLED,
        supersedes=earlier,
    )
    found["retracted"] = _render(rich, EncounterState.DISCHARGED, status=TransitionStatus.RETRACTED, supersedes=earlier)
    expired = TransitionKind.PATIENT_EXPIRED
    found["expired"] = _render(rich, EncounterState.INPATIENT, kind=expired, fact_kind=expired)
    return found


@pytest.mark.parametrize("name", sorted(notices()))
def test_a_notice_passes_our_own_checks_and_schema(name: str) -> None:
    bundle = orjson.loads(notices()[name])
    assert check_bundle(bundle) == []
    assert [error.message for error in validator().iter_errors(bundle)] == []


def test_every_resource_is_a_valid_r4b_model() -> None:
    for name, body in notices().items():
        for entry in orjson.loads(body)["entry"]:
            kind = entry["resource"]["resourceType"]
            model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
            assert model.model_validate(entry["resource"]), (name, kind)


@pytest.mark.java
@pytest.mark.timeout(600)  # on a busy machine Java takes minutes to start
def test_the_hl7_validator_finds_no_error_in_any_notice(
    fhir_validate: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    write_bundles(notices(), tmp_path)
    assert fhir_validate(tmp_path) == []
