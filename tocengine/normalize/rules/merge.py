"""Owns MRG: which patient key ceases to be used in favour of which."""

from tocengine.model.event import Merge
from tocengine.normalize.reading import Reading, refuse
from tocengine.normalize.rules.patient import identifiers


def read(reading: Reading) -> tuple[Merge, ...]:
    """PID-3 survives, each medical record number of MRG-1 becomes its alias (A40 and its deprecated kin).

    Raises ContentError where either side is missing. A number merged into itself says nothing.
    """
    surviving = reading.patient_key
    if surviving is None:
        raise refuse("patient_id_missing", "A merge names no surviving patient", "PID^1^3")
    found: list[Merge] = []
    named = False
    for segment in reading.segments("MRG"):
        _, prior = identifiers(reading, (segment[1],))
        named = named or prior is not None
        if prior is not None and prior != surviving and all(prior != merge.prior for merge in found):
            found.append(Merge(prior=prior, surviving=surviving))
    if not found and not named:
        raise refuse("prior_id_missing", "A merge names no prior patient", "MRG^1^1")
    return tuple(found)
