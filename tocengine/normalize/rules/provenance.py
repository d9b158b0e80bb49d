"""Owns EVN and MSH as the Provenance of what a message says: who said it, when it was recorded and when it happened."""

from tocengine.formats.fhir.ids import resource_id
from tocengine.formats.fhir.resources import (
    AUTHOR,
    TERMINOLOGY,
    Resource,
    coding,
    concept,
    identifier,
    local_system,
    reference,
)
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading


def read(reading: Reading, event: Segment, recorded: Timestamp, part: int) -> None:
    """The Provenance of the Encounter, or of the Patient where no visit is named (HL7 v2-to-FHIR, EVN and MSH)."""
    target = reading.encounter.get("id") or reading.patient.get("id")
    if not target:
        return
    message = reading.message
    stated = recorded.text if len(recorded.text) > len("2026-03-01") else message.received_at.isoformat()
    said: Resource = {
        "resourceType": "Provenance",
        "id": resource_id("provenance", str(message.message_id), str(part)),
        "target": [reference(str(target))],
    }
    occurred = reading.time(event[6], "EVN-6")
    if isinstance(occurred, Timestamp):
        said["occurredDateTime"] = occurred.text
    said["recorded"] = stated
    if reading.row is not None:
        said["activity"] = concept(coding(TERMINOLOGY + "v2-0003", reading.trigger))
    said["agent"] = [{"type": AUTHOR, "who": reference(reading.facility_id)}]
    if control := " ".join(message.control_id.split()):
        system = local_system("feed", message.feed, "control-id")
        said["entity"] = [{"role": "source", "what": {"identifier": identifier(system, control)}}]
    reading.add(said)
