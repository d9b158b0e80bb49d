"""What a person is asked about keys, which questions answer themselves, and what the audit log keeps of all of it."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.integration.scenarios.hospital import PATEL, Hospital
from tests.integration.scenarios.setting import Setting
from tests.integration.scenarios.test_identity import ARRIVED, OTHER, owner, rekeys
from tocengine.model.identity import AccountKey, PatientKey, VisitKey


async def closed(town: Setting) -> list[tuple[str, str]]:
    """(kind, who closed it) of the work items that are no longer open."""
    rows = await town.pool.fetch("select kind, closed_by from work_item where closed_at is not null order by kind")
    return [(row["kind"], row["closed_by"]) for row in rows]


async def audited(town: Setting, *actions: str) -> list[dict[str, Any]]:
    """The details of the audit records of some actions, in order."""
    query = "select detail from audit_record where action = any($1) order by xid, audit_id"
    return [json.loads(row["detail"]) for row in await town.pool.fetch(query, list(actions))]


def number(mrn: str) -> str:
    return str(PatientKey("STJ", mrn).patient_id)


def visit(value: str) -> str:
    return str(VisitKey("STJ", value).encounter_id)


def account(value: str) -> str:
    return str(AccountKey("STJ", value).account_id)


# --- questions that answer themselves


@pytest.mark.parametrize("how", ["A40", "A45"])
async def test_a_contradiction_is_no_longer_asked_about_once_it_is_none(
    panels: Setting,
    hospital: Hospital,
    how: str,
) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="33"))
    await panels.hear(hospital.says("A08", "10:10", "E", "V1", mrn="34", pcp=PATEL))
    assert await panels.work() == ["ENCOUNTER_FLAGGED"]
    if how == "A40":
        await panels.hear(hospital.merges("10:20", into="33", prior="34"))
    else:
        await panels.hear(rekeys(hospital, "A45", "10:20", mrn="34", prior="33", visit=("V1", "")))
    assert await panels.work() == []
    assert await closed(panels) == [("ENCOUNTER_FLAGGED", "tocengine")]
    assert "patient_contradicts_visit" not in await panels.flags("V1")


@pytest.mark.parametrize("together", [False, True])
async def test_a_refused_merge_is_no_longer_asked_about_once_the_two_are_one(
    panels: Setting,
    hospital: Hospital,
    together: bool,
) -> None:
    said = [
        hospital.merges("10:00", into="22", prior="A"),
        hospital.merges("10:10", into="11", prior="A"),
        hospital.merges("10:20", into="11", prior="22"),
    ]
    await (panels.hear(*said[:2]) if not together else panels.receive(*said))
    if together:
        await panels.route()
    else:
        assert await panels.work() == ["MERGE_REFUSED"]
        await panels.hear(said[2])
    assert await panels.work() == []
    assert await closed(panels) == ([] if together else [("MERGE_REFUSED", "tocengine")])


async def test_a_reversed_merge_stays_a_question(panels: Setting, hospital: Hospital) -> None:
    await panels.hear(hospital.merges("10:00", into="22", prior="11"))
    await panels.hear(hospital.merges("10:10", into="11", prior="22"))
    await panels.hear(hospital.merges("10:20", into="33", prior="22"))
    assert await panels.work() == ["MERGE_REFUSED"]


@pytest.mark.parametrize("how", ["A45", "A40"])
async def test_a_refused_move_is_no_longer_asked_about_once_it_is_done(
    panels: Setting,
    hospital: Hospital,
    how: str,
) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="33"))
    await panels.hear(rekeys(hospital, "A45", "10:30", mrn="22", visit=("V300", "")))
    assert await panels.work() == ["MERGE_REFUSED"]
    if how == "A45":
        await panels.hear(rekeys(hospital, "A45", "10:40", mrn="22", prior="33", visit=("V300", "")))
    else:
        await panels.hear(hospital.merges("10:40", into="33", prior="11"))
    assert await owner(panels, "V300") == "22"
    assert await panels.work() == []


async def test_a_move_that_came_before_somebody_elses_visit_is_asked_about(
    panels: Setting,
    hospital: Hospital,
) -> None:
    await panels.hear(rekeys(hospital, "A45", "10:30", mrn="22", visit=("V300", "")))
    await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="33").arriving("10:40"))
    assert await owner(panels, "V300") == "33"
    assert await panels.work() == ["MERGE_REFUSED"]


async def test_what_was_asked_of_a_merged_visit_is_asked_of_the_one_that_survives(
    panels: Setting,
    hospital: Hospital,
) -> None:
    await panels.hear(hospital.says("A04", "10:00", "E", "V1", mrn="11"))
    await panels.hear(hospital.says("A03", "10:20", "E", "V1", mrn="11", disposition="01"))
    await panels.hear(hospital.says("A08", "10:30", "E", "V1", mrn="11", disposition='""'))
    assert await panels.work() == ["ENCOUNTER_FLAGGED"]
    await panels.hear(rekeys(hospital, "A42", "10:40", visit=("V1", "V2")))
    rows = await panels.pool.fetch("select encounter_id::text from work_item where closed_at is null")
    assert [row["encounter_id"] for row in rows] == [visit("V2")]


# --- the audit log


async def test_the_audit_log_keeps_what_every_message_said_of_keys_and_what_came_of_it(
    panels: Setting,
    hospital: Hospital,
) -> None:
    second = f"PID|2||{hospital.key('99')}"
    await panels.hear(
        hospital.says("A04", "10:00", "E", "V300", mrn="11", pid={18: "H11"}),
        rekeys(hospital, "A45", "10:10", mrn="22", visit=("V300", ""), account=("H11", "H22"), name=OTHER),
        rekeys(hospital, "A50", "10:20", mrn="22", prior="22", visit=("V300", "V301")),
        rekeys(hospital, "A49", "10:30", mrn="22", prior="22", account=("H22", "H23")),
        rekeys(hospital, "A47", "10:40", mrn="23", prior="22"),
        hospital.says("A24", "10:50", visit="", mrn="23", more=(second,)),
        hospital.says("A37", "11:00", visit="", mrn="23", more=(second,)),
        rekeys(hospital, "A40", "11:10", mrn="22", prior="23"),
    )
    said = [keys for detail in await audited(panels, "MESSAGE_TRACKED") for keys in detail.get("keys", ())]
    assert [keys["kind"] for keys in said] == [
        "MOVE", "VISIT", "ACCOUNT", "PATIENT", "LINK", "UNLINK", "PATIENT",
    ]  # fmt: skip
    assert said[0] == {
        "kind": "MOVE",
        "prior": number("11"),
        "surviving": number("22"),
        "visit": visit("V300"),
        "account": account("H11"),
    }
    assert said[2] == {
        "kind": "ACCOUNT",
        "prior": account("H22"),
        "surviving": account("H23"),
    }
    assert await audited(panels, "ENCOUNTER_MOVED") == [{"prior": number("11"), "surviving": number("22")}]
    assert await audited(panels, "VISIT_MERGED") == [{"prior": visit("V300"), "surviving": visit("V301")}]
    assert await audited(panels, "PATIENT_MERGED") == [{"prior": number("22"), "surviving": number("23")}]
    assert await audited(panels, "MERGE_REFUSED") == [
        {"kind": "PATIENT", "prior": number("23"), "surviving": number("22")}
    ]


async def test_the_audit_log_shows_nobody(panels: Setting, hospital: Hospital) -> None:
    assert await panels.hear(hospital.says("A04", "10:00", "E", "V300", mrn="11", name="BRANDT^MAX")) == [ARRIVED]
    await panels.hear(rekeys(hospital, "A45", "10:10", mrn="22", visit=("V300", ""), name=OTHER))
    rows = await panels.pool.fetch("select action, detail from audit_record")
    text = " ".join(row["detail"].decode() for row in rows)
    assert Counter(row["action"] for row in rows)["ENCOUNTER_MOVED"] == 1
    for secret in ("V300", "BRANDT", "VOSS"):
        assert secret not in text
