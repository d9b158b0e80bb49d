"""The story of a visit as `tocengine encounter show` tells it, and the record that somebody read it."""

import asyncio
import json
from pathlib import Path

from typer.testing import CliRunner, Result

from tests.integration.scenarios.hospital import SNF, Hospital
from tests.integration.scenarios.setting import Setting
from tests.integration.scenarios.test_identity import rekeys
from tocengine.cli import app


async def command(configuration: Path, *arguments: str) -> Result:
    """`tocengine encounter show ARGUMENTS`, on a loop of its own."""
    call = ["encounter", "show", *arguments, "--config", str(configuration)]
    return await asyncio.to_thread(CliRunner().invoke, app, call)


async def shown(configuration: Path, *arguments: str) -> dict[str, object]:
    result = await command(configuration, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def lines(story: dict[str, object], what: str) -> list[str]:
    timeline = story["timeline"]
    assert isinstance(timeline, list)
    return [line["text"] for line in timeline if line["what"] == what]


async def viewed(town: Setting) -> list[tuple[str, str]]:
    """(actor, encounter id) of every look at a record."""
    rows = await town.pool.fetch("select actor, encounter_id from audit_record where action = 'RECORD_VIEWED'")
    return [(row["actor"], str(row["encounter_id"])) for row in rows]


async def test_the_number_that_was_merged_tells_the_story_of_the_visit_that_survives(
    town: Setting, hospital: Hospital, configuration: Path
) -> None:
    await town.hear(
        hospital.says("A04", "10:00", "E", "V1"),
        rekeys(hospital, "A42", "10:30", mrn="0012345", prior="0012345", visit=("V1", "V2")),
        hospital.says("A06", "11:00", "I", "V1"),
    )
    await town.deliver()
    old, new = await shown(configuration, "V1"), await shown(configuration, "V2")
    assert old == new
    assert (new["visit_number"], new["merged"], new["state"]) == ("V2", ["STJ|V1"], "INPATIENT")
    said = lines(new, "message")
    assert [line.split()[0] for line in said] == ["A04", "A42", "A06"]
    assert "under V1" in said[0]
    assert said[0].endswith("NONE -> ED")
    assert said[2].endswith("ED -> INPATIENT")
    assert sorted(line.split()[0] for line in lines(new, "decision")) == ["ED_REGISTRATION", "INPATIENT_ADMIT"]
    assert len(lines(new, "notice")) == 2


async def test_the_timeline_says_what_was_told_and_what_was_not_and_why(
    town: Setting, hospital: Hospital, configuration: Path
) -> None:
    discharge = hospital.says("A03", "15:00", disposition=SNF, destination="SUNNYSIDE REHAB")
    await town.hear(discharge, hospital.says("A01", "09:00").arriving("15:10"))
    await town.hear(hospital.says("A08", "15:20", mrn="77", name="VOSS^PETER", pid={30: "Y"}))
    story = await shown(configuration, "V100")
    assert story["flags"] == ["patient_contradicts_visit"]
    messages = lines(story, "message")
    assert "late: folded anew" in messages[1]
    timeline = story["timeline"]
    assert isinstance(timeline, list)
    flags = {line["text"][:3]: line.get("flags") for line in timeline if line["what"] == "message"}
    assert flags == {"A03": ["implicit_open"], "A01": None, "A08": ["patient_contradicts_visit"]}
    decisions = lines(story, "decision")
    assert any("facility:sunnyside (DESTINATION): NEW: notice" in line for line in decisions)
    assert any("INPATIENT_ADMIT" in line and "not told: COVERED_BY_DISCHARGE" in line for line in decisions)


async def test_a_visit_that_was_moved_twice_speaks_of_its_owner(
    town: Setting, hospital: Hospital, configuration: Path
) -> None:
    await town.hear(
        hospital.says("A04", "10:00", "E", "V1", mrn="11"),
        rekeys(hospital, "A45", "10:10", mrn="22", prior="11", visit=("V1", "")),
        rekeys(hospital, "A45", "10:20", mrn="33", prior="22", visit=("V1", "")),
        hospital.says("A08", "10:30", "E", "V1", mrn="33"),
        hospital.says("A31", "10:40", visit="", mrn="11"),
    )
    story = await shown(configuration, "V1")
    assert (story["patient"], story["flags"]) == ("STJ|33", [])
    assert [line.split()[0] for line in lines(story, "message")] == ["A04", "A45", "A45", "A08"]


async def test_which_hospitals_visit_is_meant(town: Setting, hospital: Hospital, configuration: Path) -> None:
    valley = Hospital(authority="VALLEY", system="VALLEYADT")
    await town.hear(hospital.says("A01", "10:00"), valley.says("A04", "10:00", "E"))
    assert (await command(configuration, "V100")).exit_code == 2
    assert (await shown(configuration, "V100", "--domain", "VALLEY"))["state"] == "ED"
    assert (await shown(configuration, "V100", "--domain", "STJ"))["state"] == "INPATIENT"
    assert (await command(configuration, "V100", "--domain", "NOWHERE")).exit_code == 1
    assert (await command(configuration, "V999")).exit_code == 1


async def test_every_look_leaves_its_record_and_a_miss_leaves_none(
    town: Setting, hospital: Hospital, configuration: Path
) -> None:
    await town.hear(hospital.says("A01", "10:00"))
    await command(configuration, "V999")
    assert await viewed(town) == []
    table = await command(configuration, "V100")
    assert "Visit STJ|V100 of patient STJ|0012345 at stj" in table.stdout
    encounter_id = (await shown(configuration, "V100"))["encounter_id"]
    looks = await viewed(town)
    assert [each for _, each in looks] == [encounter_id] * 2
    assert all(actor.startswith("user:") for actor, _ in looks)
