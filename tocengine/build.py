"""Owns how this engine was built: its version, and whether what reads messages is machine code (decision 0017)."""

from importlib.machinery import PathFinder
from pathlib import Path

from tocengine import __version__

_WITNESS = "tocengine.normalize.reading"  # a build compiles all of its modules or none, so one tells


def kind(package: Path = Path(__file__).parent) -> str:
    """``compiled`` or ``interpreted``. Nothing is imported for it: not every role has a use for that module."""
    found = PathFinder.find_spec(_WITNESS, [str(package / "normalize")])
    if found is None or found.origin is None:
        raise ImportError(f"{_WITNESS} is not where it belongs", name=_WITNESS)
    return "interpreted" if found.origin.endswith(".py") else "compiled"


def described() -> str:
    """What ``tocengine --version`` shows: ``0.1.0 (interpreted)``."""
    return f"{__version__} ({kind()})"
