"""Fuzzes `target.run` under coverage guidance (atheris, libFuzzer): ``make fuzz``, 60 s unless SECONDS says otherwise.

Further arguments go to libFuzzer; a file replays one input. What breaks is kept in `found/`.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tocengine.formats", "tocengine.normalize"], enable_loader_override=False):
    from tests.fuzz import target

FOUND = Path(__file__).parent / "found"
DEFAULTS = ("-max_total_time=60", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={FOUND}/")


def main() -> None:
    """Starts from the seeds and from what was found before. Ends with libFuzzer's status."""
    with tempfile.TemporaryDirectory(prefix="tocengine-fuzz-") as folder:
        for number, seed in enumerate(target.SEEDS):
            Path(folder, f"seed-{number}").write_bytes(seed)
        given = sys.argv[1:]
        corpus = [] if any(not each.startswith("-") for each in given) else [folder, str(FOUND)]
        atheris.Setup([sys.argv[0], *DEFAULTS, *given, *corpus], target.run)
        atheris.Fuzz()


main()
