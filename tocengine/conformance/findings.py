"""Owns what a conformance report is made of. It names places, reasons and codes, never other values."""

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """An error costs a notice or the message itself; a warning is what the standard or a reader would like better."""

    ERROR = "error"
    WARNING = "warning"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be. `rule` is a stable word; `location` as in ERR-2, or a path like PV1-36."""

    severity: Severity
    rule: str
    location: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """What is to be said of the `number`-th message (from 1) of a file."""

    file: str
    number: int
    message_type: str  # MSH-9 as far as it is a code
    version: str  # MSH-12.1
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity is severity for finding in self.findings)
