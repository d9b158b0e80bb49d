"""Owns the outside judge of FHIR content: the HL7 instance validator, where it and Java are there."""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.fixtures.adt import SHARED

VALIDATE = SHARED / "fhir-validator" / "validate"


def missing() -> str:
    """What the validator lacks here; "" where it can run."""
    if not VALIDATE.is_file():
        return "the HL7 validator lies beside the repository"
    return "" if shutil.which("java") and shutil.which("mvn") else "the HL7 validator needs Java 17 and Maven"


def validate(folder: Path, timeout_s: float = 600) -> list[str]:
    """Errors the HL7 instance validator finds in the files of a folder; its start takes most of a short run."""
    done = subprocess.run([str(VALIDATE), str(folder)], capture_output=True, text=True, timeout=timeout_s)
    assert "files," in done.stdout, done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line.startswith("ERROR")]


def write_bundles(bundles: Mapping[str, bytes], folder: Path) -> None:
    """A file for each bundle, by its name, for `validate` to read."""
    for name, body in bundles.items():
        (folder / f"{name.replace('/', '-')}.json").write_bytes(body)


@pytest.fixture(scope="session")
def fhir_validate() -> Callable[[Path], list[str]]:
    """`validate`; skips where it cannot run."""
    if why := missing():
        pytest.skip(why)
    return validate
