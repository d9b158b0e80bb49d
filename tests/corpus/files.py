"""Owns how a file of the public message corpus goes on the wire: as MLLP frames, or as one HTTP body."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.adt import SHARED
from tocengine.formats.hl7v2.files import messages_in
from tocengine.formats.mllp import frame

CORPUS = Path(os.environ.get("TOCENGINE_CORPUS", SHARED / "corpus"))


@dataclass(frozen=True)
class CorpusFile:
    """One file of a source; `source` is the folder it stands in."""

    path: Path
    source: str

    def stream(self) -> bytes:
        """The bytes a sender would write: the file itself where it has MLLP marks.

        A batch goes as one frame, several messages as a frame each, and what has no header at all as one frame.
        """
        whole = self.path.read_bytes()
        if b"\x0b" in whole:
            return whole
        bodies = messages_in(whole) or [whole]
        return b"".join(frame(body) for body in bodies)


def hl7v2_files() -> list[CorpusFile]:
    """Every HL7 v2 file, the inputs of the pairs too; empty where the corpus is not here."""
    messages = [CorpusFile(path, path.relative_to(CORPUS / "hl7v2").parts[0]) for path in _below("hl7v2")]
    pairs = [
        CorpusFile(path, f"{path.relative_to(CORPUS / 'pairs').parts[0]} (pairs)")
        for path in _below("pairs")
        if path.suffix == ".hl7"
    ]
    return messages + pairs


def fhir_files() -> list[CorpusFile]:
    """Every FHIR file; empty where the corpus is not here."""
    return [CorpusFile(path, path.relative_to(CORPUS / "fhir").parts[0]) for path in _below("fhir")]


def _below(folder: str) -> list[Path]:
    return sorted(path for path in (CORPUS / folder).rglob("*") if path.is_file())
