"""Which message of a file, and as which feed, `tocengine explain` reads."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.fixtures.adt import movement
from tocengine.cli import app
from tocengine.starter import write_starter


@pytest.fixture
def two(tmp_path: Path) -> Path:
    file = tmp_path / "two.hl7"
    file.write_bytes(movement("A01", {2: "I"}) + b"\r" + movement("A03", {2: "I"}))
    return file


def explained(file: Path, *options: str) -> Result:
    folder = file.parent / "engine"
    if not folder.exists():
        write_starter(folder)
    return CliRunner().invoke(app, ["explain", str(file), "--config", str(folder / "tocengine.toml"), *options])


def test_it_is_said_which_message_of_a_file_is_read(two: Path) -> None:
    result = explained(two)
    assert "Message 1 of 2" in result.stderr
    assert "ADT A01" in result.stdout
    assert "ADT A03" in explained(two, "--number", "2").stdout
    result = explained(two, "--number", "3")
    assert (result.exit_code, "has 2 messages" in result.stderr) == (2, True)


def test_a_feed_of_fhir_reads_no_hl7_v2(two: Path) -> None:
    result = explained(two, "--feed", "stj-fhir")
    assert result.exit_code == 2
    assert "no feed 'stj-fhir' of HL7 v2; configured: stj-adt" in result.stderr
