"""Owns what the demo saw, and when that counts as proof."""

from collections import Counter
from dataclasses import dataclass, field

from tocengine.simulation.day import Expected


@dataclass
class Findings:
    """What the demo saw, and whether it is what the script asked for."""

    answers: Counter[str] = field(default_factory=Counter)
    missing: list[Expected] = field(default_factory=list)
    repeated: list[Expected] = field(default_factory=list)
    unexpected: list[Expected] = field(default_factory=list)
    status: dict[str, object] = field(default_factory=dict)
    audit: dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Every expected notice arrived exactly once, nothing else did, and the audit verifies."""
        return not (self.missing or self.repeated or self.unexpected) and bool(self.audit.get("intact"))
