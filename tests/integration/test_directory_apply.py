"""Applying a directory to PostgreSQL: planned, idempotent, with history, in bulk, followed by a running engine."""

import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.errors import ConfigurationError
from tocengine.model.facts import Destination
from tocengine.model.ids import FeedName, RecipientId
from tocengine.postgres import Pool
from tocengine.routing.apply import Action, Plan, apply, plan, plan_panel
from tocengine.routing.directory_file import load_directory_file
from tocengine.routing.panels import load_panel_csv
from tocengine.routing.postgres import LiveDirectory

NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
SUNNYSIDE = RecipientId("facility:sunnyside")
DIRECTORY = """\
version: 1
facilities:
  - {id: sunnyside, name: Sunnyside Rehab, type: SNF, aliases: [SUNNYSIDE]}
  - {id: meadow, name: Meadow Home, type: SNF, aliases: [MEADOW]}
panels:
  - facility: sunnyside
    members:
      - {domain: STJ, value: "0012345"}
      - {domain: STJ, value: "0012346", to: 2026-06-30}
"""


async def _apply(pool: Pool, path: Path, text: str, prune: bool = False) -> Plan:
    path.write_text(text, encoding="utf-8")
    async with pool.acquire() as connection:
        planned = await plan(connection, load_directory_file(path), prune)
        return await apply(connection, planned, "alice", NOW, PostgresAuditTrail())


async def _apply_csv(pool: Pool, path: Path, text: str, prune: bool = False) -> Plan:
    path.write_text(text, encoding="utf-8")
    async with pool.acquire() as connection:
        planned = await plan_panel(connection, load_panel_csv(path, SUNNYSIDE), prune)
        return await apply(connection, planned, "alice", NOW, PostgresAuditTrail())


async def _members(pool: Pool) -> list[str]:
    rows = await pool.fetch("select value from panel_member where retired_at is null order by value")
    return [row["value"] for row in rows]


def _shown(done: Plan) -> list[tuple[str, str]]:
    return [(change.action.value, change.recipient_id) for change in done.changes]


async def test_planning_changes_nothing(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(DIRECTORY, encoding="utf-8")
    async with pool.acquire() as connection:
        planned = await plan(connection, load_directory_file(path))
    assert _shown(planned) == [("add", "facility:sunnyside"), ("add", "facility:meadow")]
    assert [(panel.recipient_id, panel.added) for panel in planned.panels] == [(SUNNYSIDE, 2)]
    assert await pool.fetchval("select count(*) from directory_object") == 0
    assert await _members(pool) == []


async def test_applying_again_changes_nothing(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    assert not (await _apply(pool, path, DIRECTORY)).is_empty
    again = await _apply(pool, path, DIRECTORY)
    assert again.is_empty
    assert await pool.fetchval("select version from directory_version") == 1
    rows = await pool.fetch("select action, actor from audit_record")
    assert [(row["action"], row["actor"]) for row in rows] == [("DIRECTORY_APPLIED", "alice")]


async def test_change_keeps_the_earlier_version(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    await _apply(pool, path, DIRECTORY)
    done = await _apply(pool, path, DIRECTORY.replace("Meadow Home", "Meadow House"))
    (change,) = done.changes
    assert (change.action, change.recipient_id, change.fields) == (Action.CHANGE, "facility:meadow", ("name",))
    rows = await pool.fetch("select version, retired_at from directory_object where id = 'meadow' order by version")
    assert [(row["version"], row["retired_at"]) for row in rows] == [(1, NOW), (2, None)]


async def test_missing_object_stays_unless_pruned(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    await _apply(pool, path, DIRECTORY)
    without = "".join(line for line in DIRECTORY.splitlines(keepends=True) if "meadow" not in line)
    kept = await _apply(pool, path, without)
    assert kept.is_empty
    assert _shown(kept) == [("missing", "facility:meadow")]
    pruned = await _apply(pool, path, without, prune=True)
    assert _shown(pruned) == [("retire", "facility:meadow")]
    back = await _apply(pool, path, DIRECTORY)
    assert _shown(back) == [("add", "facility:meadow")]
    assert await pool.fetchval("select max(version) from directory_object where id = 'meadow'") == 2


async def test_panel_changes_keep_history(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    await _apply(pool, path, DIRECTORY)
    other = DIRECTORY.replace("2026-06-30", "2026-07-31").replace('"0012345"', '"0099999"')
    kept = await _apply(pool, path, other)
    assert [(p.added, p.changed, p.missing) for p in kept.panels] == [(1, 1, 1)]
    assert await _members(pool) == ["0012345", "0012346", "0099999"]
    await _apply(pool, path, other, prune=True)
    assert await _members(pool) == ["0012346", "0099999"]
    assert await pool.fetchval("select count(*) from panel_member") == 4


async def test_plan_made_before_another_change_is_refused(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(DIRECTORY, encoding="utf-8")
    async with pool.acquire() as connection:
        planned = await plan(connection, load_directory_file(path))
        await _apply(pool, tmp_path / "other.yaml", DIRECTORY.replace("Meadow Home", "Meadow House"))
        with pytest.raises(ConfigurationError, match="plan again"):
            await apply(connection, planned, "bob", NOW, PostgresAuditTrail())


async def test_panel_of_somebody_unknown_is_refused_with_its_line(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r":6: there is no facility nowhere"):
        await _apply(
            pool, tmp_path / "directory.yaml", DIRECTORY.replace("- facility: sunnyside", "- facility: nowhere")
        )


async def test_panel_from_csv(pool: Pool, tmp_path: Path) -> None:
    await _apply(pool, tmp_path / "directory.yaml", DIRECTORY)
    path = tmp_path / "panel.csv"
    text = "domain,value,family,given,birth_date,sex,from,to\nSTJ,0012345,O'NEIL,MARY,19400102,F,2026-01-01,\n"
    done = await _apply_csv(pool, path, text + '"STJ","77,1",,,,,,\n')
    assert [(p.added, p.changed, p.missing) for p in done.panels] == [(1, 1, 1)]
    assert await _members(pool) == ["0012345", "0012346", "77,1"]
    assert (await _apply_csv(pool, path, text + '"STJ","77,1",,,,,,\n')).is_empty


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("domain,number\n", r':1: there is no column "number"'),
        ("domain,family\n", r':1: the column "value" is missing'),
        ("domain,value\nSTJ\n", r":2: the row has 1 values"),
        ("domain,value\nSTJ,1\n\nSTJ,\n", r":4: a member needs"),
        ("domain,value,from\nSTJ,1,March\n", r':2: "from" and "to" are dates'),
        ("domain,value\nSTJ,1\nSTJ,2\nSTJ,1\n", r":4: this member is already in line 2"),
        ('domain,value\nSTJ,"1\n', r"is not CSV"),
    ],
)
async def test_bad_csv_changes_nothing(pool: Pool, tmp_path: Path, text: str, expected: str) -> None:
    await _apply(pool, tmp_path / "directory.yaml", DIRECTORY)
    with pytest.raises(ConfigurationError, match=expected):
        await _apply_csv(pool, tmp_path / "panel.csv", text)
    assert await _members(pool) == ["0012345", "0012346"]


async def test_large_panel_goes_in_bulk(pool: Pool, tmp_path: Path) -> None:
    await _apply(pool, tmp_path / "directory.yaml", DIRECTORY)
    rows = "".join(f"STJ,{number:07}\n" for number in range(20_000))
    started = time.process_time()
    done = await _apply_csv(pool, tmp_path / "panel.csv", "domain,value\n" + rows)
    assert time.process_time() - started < 10, "row by row"
    assert done.panels[0].added == 19_998
    assert len(await _members(pool)) == 20_000


async def test_running_engine_follows(pool: Pool, tmp_path: Path) -> None:
    clock = 0.0
    live = LiveDirectory(pool, 1.0, lambda: clock)
    await live.refresh()
    feed, destination = FeedName("stj-adt"), Destination(text="Sunnyside")
    assert live.resolve(feed, destination) is None
    await _apply(pool, tmp_path / "directory.yaml", DIRECTORY)
    await live.refresh()
    assert live.resolve(feed, destination) is None, "checked at most every refresh_s"
    clock = 1.1
    await live.refresh()
    assert live.resolve(feed, destination) == SUNNYSIDE
    assert live.recipient(SUNNYSIDE) is not None


async def test_only_one_version_can_be_in_force(pool: Pool, tmp_path: Path) -> None:
    await _apply(pool, tmp_path / "directory.yaml", DIRECTORY)
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute(
            "insert into directory_object select kind, id, 9, body, applied_at, applied_by from directory_object"
        )


async def test_opt_outs_are_retired_only_by_a_file_that_lists_them(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"

    async def in_force() -> list[tuple[str, str]]:
        query = (
            "select recipient_id, value from panel_member where recipient_id like 'opt-out:%' and retired_at is null"
        )
        return [tuple(row) for row in await pool.fetch(query + " order by 1, 2")]

    everybody, one = '{domain: STJ, value: "1"}', '{domain: STJ, value: "2", facility: meadow}'
    done = await _apply(pool, path, f"{DIRECTORY}opt_outs: [{everybody}, {one}]\n")
    assert {panel.recipient_id: panel.added for panel in done.panels if panel.recipient_id != SUNNYSIDE} == {
        "opt-out:": 1,
        "opt-out:facility:meadow": 1,
    }
    both = [("opt-out:", "1"), ("opt-out:facility:meadow", "2")]
    await _apply(pool, path, DIRECTORY, prune=True)
    assert await in_force() == both
    await _apply(pool, path, f"{DIRECTORY}opt_outs: [{everybody}]\n")
    assert await in_force() == both
    await _apply(pool, path, f"{DIRECTORY}opt_outs: [{everybody}]\n", prune=True)
    assert await in_force() == both[:1]
    with pytest.raises(ConfigurationError, match="there is no facility nowhere"):
        await _apply(pool, path, f"{DIRECTORY}opt_outs: [{{domain: STJ, value: A, facility: nowhere}}]\n")
