"""Owns which repeating segments of a message replace what is known, and which come to it (`snapshot_segments`)."""

from tocengine.formats.fhir.chart import ADDS
from tocengine.normalize.reading import Reading

_STATED_BY = {
    "DG1": ("Condition", "Encounter.diagnosis"),
    "AL1": ("AllergyIntolerance",),
    "IN1": ("Coverage",),
    "NK1": ("RelatedPerson", "Patient.contact"),
    "PR1": ("Procedure",),
    "OBX": ("Observation",),
}
"""Segment -> the resources and elements that it alone states."""


def mark(reading: Reading) -> None:
    """Notes what the message adds to instead of replacing it (`chart.ADDS`).

    Persons named by insurance alone (IN1-16) are not all who are related to the patient: without NK1 they add.
    """
    snapshots = reading.source.profile.snapshot_segments
    added = [
        element
        for name, elements in _STATED_BY.items()
        if name not in snapshots and reading.segments(name)
        for element in elements
    ]
    if reading.segments("IN1") and not reading.segments("NK1"):
        added.append("RelatedPerson")
    reading.cleared += [mark for element in added if (mark := ADDS + element) not in reading.cleared]
