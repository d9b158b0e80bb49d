"""Owns the outside judge of FHIR content: the HL7 instance validator, where it and Java are there."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.adt import SHARED

VALIDATE = SHARED / "fhir-validator" / "validate"


@pytest.fixture(scope="session")
def fhir_validate() -> Callable[[Path], list[str]]:
    """Errors the HL7 instance validator finds in the files of a folder; skips where it cannot run."""
    if not VALIDATE.is_file():
        pytest.skip("the HL7 validator lies beside the repository")
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("the HL7 validator needs Java 17 and Maven")

    def validate(folder: Path) -> list[str]:
        done = subprocess.run([str(VALIDATE), str(folder)], capture_output=True, text=True, timeout=600)
        assert "files," in done.stdout, done.stderr[-2000:]
        return [line for line in done.stdout.splitlines() if line.startswith("ERROR")]

    return validate
