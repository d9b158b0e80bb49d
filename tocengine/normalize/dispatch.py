"""Owns which normalizer reads a message: that of its feed and format, with the codes its feed's sender uses."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tocengine.errors import UnsupportedError
from tocengine.model.event import EventRecord
from tocengine.model.ids import FeedName
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.profile import Source
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.ports import Normalizer


class FeedNormalizer:
    """`ports.Normalizer` for all feeds of an engine."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Raises ConfigurationError for a profile that cannot be used (time zone, visit key)."""
        self._sources = {source.feed: source for source in sources}
        self._normalizers: dict[tuple[FeedName, ContentType], Normalizer] = {}
        for source in self._sources.values():
            self._read_as(source)

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        """Raises RefusedError for what cannot be normalized."""
        normalizer = self._normalizers.get((message.feed, message.content_type))
        if normalizer is None:
            raise UnsupportedError(Problem(reason="feed_unknown", text="The feed is not configured", code="207"))
        return normalizer.normalize(message)

    def learn(self, codes: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
        """From the next message on, local codes mean what `codes` says: feed -> table -> code -> meaning."""
        for source in list(self._sources.values()):
            of_feed = codes.get(source.feed, {})
            if of_feed != source.local_codes:
                self._read_as(msgspec.structs.replace(source, local_codes=of_feed))

    def _read_as(self, source: Source) -> None:
        self._sources[source.feed] = source
        self._normalizers[source.feed, ContentType.HL7V2] = HL7v2Normalizer(source)
        self._normalizers[source.feed, ContentType.FHIR] = FhirNormalizer(source)
