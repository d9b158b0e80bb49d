"""Owns what a message says of privacy: hints that a person has asked for care with what is told of them (domain 1.3).

They are raised as flags. What may be told is decided by preferences and policy, not here: a hint alone neither opens
nor closes anything.
"""

from tocengine.normalize.reading import Reading

PROTECTED = (("PD1", 12), ("PV2", 22))
"""Fields that say yes where access is protected."""
CARE = (
    ("PD1", 11, frozenset({"U", "N/A"})),
    ("PV2", 21, frozenset({"U", "N/A"})),
    ("PV1", 16, frozenset({"N", "NO", "0"})),
)
"""Publicity (table 0215) and VIP fields, with the values that ask for nothing."""


def read(reading: Reading) -> None:
    """Flags ``privacy:FIELD`` per hint, and ``privacy:ARV``, ``privacy:CON`` for restrictions and consents."""
    for name, number in PROTECTED:
        field = reading.segment(name)[number]
        if field and field.text.strip().upper() == "Y":
            reading.flag(f"privacy:{name}-{number}")
    for name, number, nothing in CARE:
        field = reading.segment(name)[number]
        if field and (said := field.component(1).strip().upper()) and said not in nothing:
            reading.flag(f"privacy:{name}-{number}")
    for name in ("ARV", "CON"):
        if reading.segments(name):
            reading.flag(f"privacy:{name}")
