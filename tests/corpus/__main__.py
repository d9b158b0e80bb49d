"""Sends the public message corpus through a running engine and writes docs/corpus.md."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.corpus.files import fhir_files, hl7v2_files
from tests.corpus.report import render
from tests.corpus.running import send_corpus

PAGE = Path(__file__).resolve().parents[2] / "docs" / "corpus.md"


def main() -> None:
    """Exits with 1 where the corpus is not beside the checkout."""
    hl7v2, fhir = hl7v2_files(), fhir_files()
    if not hl7v2:
        sys.exit("the message corpus is not beside this checkout (TOCENGINE_CORPUS names another place)")
    with tempfile.TemporaryDirectory(prefix="tocengine-corpus-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # a PostgreSQL started by root has to pass through
        run = asyncio.run(send_corpus(folder, hl7v2, fhir))
    PAGE.write_text(render(run), encoding="utf-8")


main()
