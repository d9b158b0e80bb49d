"""`tocengine check`: what it prints and its exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.fixtures.adt import movement
from tocengine.cli import app
from tocengine.starter import write_starter

GOOD = movement("A03", {36: "03", 37: "SUNNYSIDE", 44: "20260225"})


def check(*arguments: object, config: Path | None = None) -> Result:
    options = ["--config", str(config or "nowhere.toml")]
    return CliRunner().invoke(app, ["check", *map(str, arguments), *options])


def test_a_folder_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "good.hl7").write_bytes(GOOD)
    done = check(tmp_path)
    assert done.exit_code == 0, done.output
    assert "1 messages, 0 errors" in done.output
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "bad.hl7").write_bytes(movement("A03", {19: ""}))
    done = check(tmp_path)
    assert done.exit_code == 1
    assert "visit_key_missing" in done.output
    assert "PV1^1^19" in done.output


def test_json_has_a_line_for_each_message(tmp_path: Path) -> None:
    path = tmp_path / "two.hl7"
    path.write_bytes(GOOD + movement("A03", {19: ""}))
    lines = [json.loads(line) for line in check(path, "--json").stdout.splitlines()]
    assert [line["number"] for line in lines] == [1, 2]
    assert "visit_key_missing" in {finding["rule"] for finding in lines[1]["findings"]}


def test_warnings_fail_only_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "warned.hl7"
    path.write_bytes(movement("A03", {36: "ZZ9"}))
    assert check(path).exit_code == 0
    assert check(path, "--strict").exit_code == 1


@pytest.mark.parametrize("arguments", [("nowhere.hl7",), (".", "--feed", "none")])
def test_what_cannot_be_checked_is_a_usage_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    write_starter(tmp_path)
    assert check(*arguments, config=tmp_path / "tocengine.toml").exit_code == 2
    assert check(tmp_path / "empty").exit_code == 2
