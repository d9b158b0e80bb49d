"""Owns how a file of the public message corpus goes on the wire: as MLLP frames, or as one HTTP body."""

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.fixtures.adt import SHARED

CORPUS = Path(os.environ.get("TOCENGINE_CORPUS", SHARED / "corpus"))
_MESSAGE = re.compile(rb"(?:(?<=[\r\n\x0b])|\A)(?:\xef\xbb\xbf)?MSH[^\w\s]")
_BATCH = re.compile(rb"\s*(?:\xef\xbb\xbf)?[FB]HS[^\w\s]")


@dataclass(frozen=True)
class CorpusFile:
    """One file of a source; `source` is the folder it stands in."""

    path: Path
    source: str

    def stream(self) -> tuple[bytes, int]:
        """The bytes a sender would write, and how many frames they are; -1 where the file itself has MLLP marks.

        A batch goes as one frame, several messages as a frame each, and what has no header at all as one frame.
        """
        whole = self.path.read_bytes()
        if b"\x0b" in whole:
            return whole, -1
        bodies = [whole] if _BATCH.match(whole) else messages_in(whole) or [whole]
        return b"".join(b"\x0b" + body + b"\x1c\r" for body in bodies), len(bodies)


def messages_in(content: bytes) -> list[bytes]:
    """The messages of a file that may hold several, from one header to the next; none where it has no header."""
    starts = [match.start() for match in _MESSAGE.finditer(content)]
    return [content[start:end] for start, end in pairwise([*starts, len(content)])]


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
