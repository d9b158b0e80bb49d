"""Owns the FHIR stage benchmark: CPU per Bundle of checking and of normalizing, over discharges that differ."""

from datetime import UTC, datetime

from tests.benchmarks.timing import Row, row
from tests.unit.adapters.fhir.bundles import Bundle, bundle, encoded
from tests.unit.adapters.fhir.written import document, transaction
from tocengine.adapters.fhir.request import check_message
from tocengine.formats.fhir.json_body import read_json
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import SendingFacility, Source, SourceProfile
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.simulation.load.visits import VARIANTS

_SOURCE = Source(
    feed=FeedName("stj-fhir"),
    facility=SendingFacility(id=FacilityId("stj"), name="St. Jude Hospital"),
    profile=SourceProfile(),
)


def measure_bundles() -> list[Row]:
    """One row per stage of a Da Vinci discharge of nine resources, and what the other kinds cost."""
    normalizer = FhirNormalizer(_SOURCE)
    discharges = [_numbered(number) for number in range(VARIANTS)]
    bodies = [encoded(each) for each in discharges]
    messages = [_message(body) for body in bodies]
    written = [encoded(transaction(each)) for each in discharges]
    documents = [_message(encoded(document(each))) for each in discharges]
    return [
        row("decode, depth, doubled names", lambda: [read_json(body) for body in bodies]),
        row("check (rules and R4B models)", lambda: [check_message(body) for body in bodies]),
        row("normalize, serialize", lambda: [normalizer.normalize(message) for message in messages]),
        row("check a transaction", lambda: [check_message(body) for body in written]),
        row("normalize a document", lambda: [normalizer.normalize(message) for message in documents]),
    ]


def _numbered(number: int) -> Bundle:
    made = bundle()
    made["id"] = f"b-{number}"
    made["entry"][1]["resource"]["identifier"][0]["value"] = f"V{number}"
    return made


def _message(body: bytes) -> Message:
    return Message(
        message_id=MessageId(derive("benchmark", body)),
        feed=_SOURCE.feed,
        facility=_SOURCE.facility.id,
        content_type=ContentType.FHIR,
        control_id="1",
        received_at=datetime.now(UTC),
        body=body,
    )
