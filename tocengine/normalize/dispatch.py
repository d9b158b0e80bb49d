"""Owns which normalizer reads a message: that of its feed and format."""

from collections.abc import Iterable, Sequence

from tocengine.model.event import EventRecord
from tocengine.model.ids import FeedName
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import Source
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.ports import Normalizer


class FeedNormalizer:
    """`ports.Normalizer` for all feeds of an engine."""

    def __init__(self, normalizers: dict[tuple[FeedName, ContentType], Normalizer]) -> None:
        self._normalizers = normalizers

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        """Raises RefusedError for what cannot be normalized."""
        return self._normalizers[message.feed, message.content_type].normalize(message)


def normalizer_for(sources: Iterable[Source]) -> FeedNormalizer:
    """Raises ConfigurationError for a profile that cannot be used (time zone, visit key)."""
    normalizers: dict[tuple[FeedName, ContentType], Normalizer] = {}
    for source in sources:
        normalizers[source.feed, ContentType.HL7V2] = HL7v2Normalizer(source)
        normalizers[source.feed, ContentType.FHIR] = FhirNormalizer(source)
    return FeedNormalizer(normalizers)
