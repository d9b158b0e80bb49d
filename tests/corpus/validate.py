"""Puts every notice and event of the public corpus before the HL7 instance validator: ``make validate``."""

import sys
import tempfile
from pathlib import Path

from tests.corpus.files import hl7v2_files
from tests.corpus.notices import corpus_events, corpus_notices
from tests.services.validator import missing, validate, write_bundles

LIMIT_S = 3600


def main() -> None:
    """Exits with 1 where the corpus or the validator is not here, or an error was found."""
    if why := missing() or ("" if hl7v2_files() else "the message corpus is not beside this checkout"):
        sys.exit(why)
    bundles = {**corpus_notices(), **corpus_events()}
    with tempfile.TemporaryDirectory(prefix="tocengine-validate-") as name:
        write_bundles(bundles, Path(name))
        errors = validate(Path(name), LIMIT_S)
    print("\n".join([*errors, f"{len(bundles)} bundles, {len(errors)} errors"]))
    sys.exit(bool(errors))


main()
