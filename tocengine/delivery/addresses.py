"""Owns where an endpoint's notices go: its URL, headers and secrets, with every reference resolved."""

from collections.abc import Callable
from datetime import datetime, timedelta

from tocengine.delivery.channels.webhook import secret_bytes
from tocengine.errors import ConfigurationError
from tocengine.model.directory import Endpoint
from tocengine.ports import Address

ResolveSecret = Callable[[str], str]
"""Turns ``env:NAME`` and ``file:PATH`` into their content, anything else into itself. Raises ConfigurationError."""

_KEPT = timedelta(seconds=30)
_REFERENCES = ("env:", "file:")


class AddressBook:
    """Addresses of endpoints, resolved again when the directory changes them and at intervals (rotated files)."""

    def __init__(self, resolve: ResolveSecret) -> None:
        self._resolve = resolve
        self._known: dict[str, tuple[Endpoint, datetime, Address | None]] = {}

    def address(self, endpoint: Endpoint, now: datetime) -> Address | None:
        """None where a secret or header cannot be resolved: nothing can be sent there until that is put right."""
        kept = self._known.get(endpoint.id)
        if kept is not None and kept[1] > now and (kept[0] is endpoint or kept[0] == endpoint):
            return kept[2]
        try:
            address = self._resolved(endpoint)
        except (ConfigurationError, ValueError, OSError):
            address = None
        self._known[endpoint.id] = (endpoint, now + _KEPT, address)
        return address

    def forget(self, endpoint_id: str) -> None:
        """The next attempt resolves the endpoint's secrets anew."""
        self._known.pop(endpoint_id, None)

    def _resolved(self, endpoint: Endpoint) -> Address:
        return Address(
            endpoint_id=endpoint.id,
            url=endpoint.url,
            secrets=tuple(secret_bytes(self._text(secret)) for secret in endpoint.secrets),
            headers={name: self._text(value) for name, value in endpoint.headers.items()},
            timeout_s=endpoint.timeout_s,
        )

    def _text(self, value: str) -> str:
        return self._resolve(value).strip() if value.startswith(_REFERENCES) else value
