"""Owns ZBE: which movement a message is about, by the id its sender gives it (IHE PAM)."""

from tocengine.formats.hl7v2.datatypes import EI
from tocengine.model.event import MovementAction, NamedMovement
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading, clean

HISTORIC = "Z99"
"""The trigger of an update or cancel of an earlier movement; which one it was is in ZBE-6."""


def read(reading: Reading) -> NamedMovement | None:
    """The movement of ZBE, or None where the message has none or names no id or action."""
    segment = reading.segment("ZBE")
    if not segment:
        return None
    ids = []
    for repetition in segment[1]:
        found = EI.read(repetition)
        if value := clean(found.value):
            authority = clean(found.namespace or found.universal_id)
            ids.append(f"{authority}:{value}" if authority else value)
    action = segment[4].text.strip().upper()
    if not ids or action not in tuple(MovementAction):
        reading.flag("unreadable:ZBE")
        return None
    starts = reading.time(segment[2], "ZBE-2")
    return NamedMovement(
        ids=tuple(dict.fromkeys(ids)),
        action=MovementAction(action),
        trigger=clean(segment[6].text).upper(),
        starts=starts if isinstance(starts, Timestamp) else None,
        historic=segment[5].text.strip().upper() == "Y",
    )
