"""What is tried again passes the door as its sender would have to pass it today."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from tests.unit.adapters.fhir.bundles import bundle, encoded
from tocengine.config_file import load_config
from tocengine.model.ids import FacilityId, FeedName, MessageId
from tocengine.model.message import ContentType, Message
from tocengine.reprocessing.workshop import readmission
from tocengine.starter import write_starter


def _message(body: bytes) -> Message:
    return Message(
        message_id=MessageId(uuid4()),
        feed=FeedName("stj-fhir"),
        facility=FacilityId("stj"),
        content_type=ContentType.FHIR,
        control_id="1",
        received_at=datetime(2026, 3, 1, tzinfo=UTC),
        body=body,
    )


def test_a_bundle_that_the_door_refuses_is_refused_again(tmp_path: Path) -> None:
    settings, _ = write_starter(tmp_path / "new")
    again = readmission(load_config(settings, {}))
    _, refusal = again(_message(encoded(bundle(foo=1))))
    assert refusal is not None
    assert refusal.problem.location.endswith("foo")
    assert again(_message(encoded(bundle())))[1] is None
