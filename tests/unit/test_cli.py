"""The command line: every command of the table can be loaded, and none is loaded for another."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tocengine.cli import COMMANDS, app

RUNNER = CliRunner()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does(name: str) -> None:
    told = RUNNER.invoke(app, [name, "--help"])
    assert told.exit_code == 0, told.output
    assert f"Usage: tocengine {name}" in told.output


def test_the_help_lists_the_commands_in_their_order() -> None:
    told = RUNNER.invoke(app, ["--help"], terminal_width=200).output
    places = [told.index(f"\n│ {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_a_mistyped_command_is_answered_with_a_suggestion() -> None:
    told = RUNNER.invoke(app, ["trac"])
    assert told.exit_code == 2
    assert "Did you mean 'trace'?" in told.output


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("trace", {"tocengine.app", "tocengine.simulation", "aiohttp", "uvicorn"}),
        ("run", {"tocengine.app", "tocengine.normalize", "tocengine.simulation", "aiohttp"}),  # as the supervisor does
    ],
)
def test_a_command_does_not_load_the_engine_it_does_not_run(name: str, without: set[str]) -> None:
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom tocengine.cli import app\n"
        f"CliRunner().invoke(app, ['{name}', '--help'])\n"
        f"print(sorted({without!r} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("role", "without"),
    [
        ("ingest", {"tocengine.encounters.postgres", "tocengine.delivery", "tocengine.adapters.fhir.server"}),
        ("route", {"tocengine.adapters", "tocengine.normalize", "tocengine.delivery.worker", "aiohttp"}),
        ("deliver", {"tocengine.adapters", "tocengine.normalize", "tocengine.encounters.postgres"}),
    ],
)
def test_a_role_does_not_load_the_stages_of_another(role: str, without: set[str]) -> None:
    program = f"import sys, tocengine.app, tocengine.roles.{role}\nprint(sorted({without!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
