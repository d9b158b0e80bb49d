"""Owns the list of channels: what the engine can send through, each with the function that makes it."""

from collections.abc import Callable, Mapping

from tocengine.delivery.channels.base import Surroundings
from tocengine.delivery.channels.fhir import FhirChannel
from tocengine.delivery.channels.webhook import WebhookChannel
from tocengine.model.directory import ChannelKind
from tocengine.ports import Channel

CHANNELS: Mapping[ChannelKind, Callable[[Surroundings], Channel]] = {
    ChannelKind.WEBHOOK: WebhookChannel,
    ChannelKind.FHIR: FhirChannel,
}
"""A new channel is a file beside this one and a line here; the conformance suite finds it through this table."""


def open_channels(surroundings: Surroundings) -> Mapping[ChannelKind, Channel]:
    """Every channel, sharing one HTTP client."""
    return {kind: make(surroundings) for kind, make in CHANNELS.items()}
