"""Owns the JSON Schemas of what the topics carry, generated from the types that write and read it.

``python -m tocengine.eventlog.schemas`` writes them into the checkout; a test fails where they differ.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from tocengine.eventlog.records import SCHEMA_URN, TransitionRecord
from tocengine.eventlog.topics import Topic
from tocengine.model.event import EventRecord
from tocengine.model.message import Quarantined

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_CONTENT: Final = {
    Topic.EVENTS: (EventRecord, "toc.event.v1", "What one message said, normalized; not yet what it means."),
    Topic.TRANSITIONS: (TransitionRecord, "toc.transition.v1", "What happened to an encounter."),
    Topic.QUARANTINE: (
        Quarantined,
        "toc.quarantined.v1",
        "A message that was set aside, with its bytes and the reason.",
    ),
}
_BUNDLE: Final = {
    "description": "A FHIR R4 Bundle of type collection: the content for exchange.",
    "type": "object",
    "required": ["resourceType", "type"],
    "properties": {"resourceType": {"const": "Bundle"}, "type": {"const": "collection"}},
}


def build() -> dict[str, dict[str, Any]]:
    """The schema of each structured topic's value, by topic: a CloudEvent in JSON."""
    return {str(topic): _envelope(topic, *content) for topic, content in _CONTENT.items()}


def write(folder: Path) -> None:
    """Writes each schema to `folder` as TOPIC.json."""
    for name, schema in build().items():
        (folder / f"{name}.json").write_text(as_text(schema), encoding="utf-8")


def as_text(schema: dict[str, Any]) -> str:
    """The form in which a schema is kept: indented, with a newline at its end."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _envelope(topic: Topic, content: type, event_type: str, description: str) -> dict[str, Any]:
    (data,), definitions = msgspec.json.schema_components([content], ref_template="#/$defs/{name}")
    if "fhir" in definitions[content.__name__]["properties"]:
        definitions[content.__name__]["properties"]["fhir"] = _BUNDLE
    attributes = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "description": "The same for every repeat of this record."},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"const": event_type},
        "time": {"type": "string", "format": "date-time", "description": "When the message was received."},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"const": SCHEMA_URN + topic},
        "data": data,
    }
    return {
        "$schema": DIALECT,
        "$id": SCHEMA_URN + topic,
        "title": str(topic),
        "description": f"{description} A CloudEvents 1.0 event in structured JSON.",
        "type": "object",
        "required": list(attributes),
        "properties": attributes,
        "$defs": definitions,
    }


if __name__ == "__main__":
    write(Path(__file__).parent.parent.parent / "schemas")
