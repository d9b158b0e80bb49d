"""Owns fields that a sender keeps in segments of its own (Zxx): read as the standard fields its profile names. Pure."""

from collections.abc import Mapping
from itertools import pairwise

from tocengine.formats.hl7v2.parser import HL7Message


def filled(hl7: HL7Message, paths: Mapping[str, str]) -> HL7Message:
    """`hl7` with standard fields (``PV1-36``) that are empty taken from `paths` (to ``ZPV-2``), patient by patient.

    What was sent in the standard field wins; a segment the message lacks is not made up. The bytes stay as they came.
    """
    separator = hl7.delimiters.field
    rows = [line.split(separator) for line in hl7.lines]
    names = [row[0].strip() for row in rows]
    if not any(name.startswith("Z") for name in names):
        return hl7
    patients = [place for place, name in enumerate(names) if name == "PID"]
    bounds = [0, *patients[1:], len(rows)]
    for start, end in pairwise(bounds):
        group = dict(zip(names[start:end][::-1], rows[start:end][::-1], strict=True))  # the first of each name
        for standard, own in paths.items():
            _fill(group, standard, own)
    lines = [separator.join(row) for row in rows]
    return HL7Message(hl7.body, lines, hl7.coding, hl7.flags)


def _fill(group: Mapping[str, list[str]], standard: str, own: str) -> None:
    (name, _, number), (own_name, _, own_number) = standard.partition("-"), own.partition("-")
    target, source, place = group.get(name), group.get(own_name, []), int(number)
    value = source[int(own_number)] if int(own_number) < len(source) else ""
    if target is None or not value:
        return
    target += [""] * (place + 1 - len(target))
    target[place] = target[place] or value
