"""Owns who a request is from: an API key, an access token, a pinned certificate, or this machine itself."""

import ipaddress
import math
import ssl
from collections.abc import Mapping
from time import monotonic

import msgspec
import structlog
from starlette.requests import Request

from tocengine.adapters.fhir.body import RefusedRequest
from tocengine.adapters.fhir.clients import KEY_PREFIX, Client, ClientStore
from tocengine.adapters.fhir.rates import RateLimiter
from tocengine.adapters.fhir.smart import AccessTokens, may_send
from tocengine.config import HttpSettings, listen_address
from tocengine.model.ids import FeedName
from tocengine.model.profile import Source
from tocengine.ports import Clock

_log = structlog.get_logger()


class Sender(msgspec.Struct, frozen=True):
    """Who a request is from: its feed, the sender's part of a message id, and the peer to record."""

    source: Source
    identity: str
    peer: str


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach, or is, `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Doorkeeper:
    """Tells who sends, and whether it may now."""

    def __init__(
        self,
        sources: Mapping[FeedName, Source],
        clients: ClientStore,
        tokens: AccessTokens,
        settings: HttpSettings,
        clock: Clock,
    ) -> None:
        self._sources, self._clients, self._tokens, self._clock = sources, clients, tokens, clock
        self._local = is_loopback(listen_address(settings.listen)[0])
        self._rates = RateLimiter(settings.requests_per_minute, settings.request_burst)

    async def sender(self, request: Request, *, sends: bool = True) -> Sender:
        """Raises RefusedRequest (401, 403, 429), and UnavailableError where clients cannot be known."""
        client = await self._client(request, sends=sends)
        if client is None:
            return await self._this_machine(request)
        source = self._sources.get(client.feed)
        if source is None:
            _log.error("API client names no FHIR feed", client=client.name, feed=client.feed)
            raise RefusedRequest(403, "forbidden", "The client's feed is not configured here.")
        self.count(str(client.client_id), client.requests_per_minute)
        return Sender(source, str(client.client_id), f"client:{client.name}")

    def count(self, sender: str, per_minute: int | None = None) -> None:
        """Counts a request of `sender`. Raises RefusedRequest (429) where there are too many."""
        wait = self._rates.wait_s(sender, monotonic(), per_minute)
        if wait > 0:
            headers = {"Retry-After": str(math.ceil(wait))}
            raise RefusedRequest(429, "throttled", "Too many requests.", headers, reason="rate")

    async def _client(self, request: Request, *, sends: bool) -> Client | None:
        """The client that proves itself; None where nothing is shown."""
        credential = _credential(request)
        if credential.startswith(KEY_PREFIX) or (credential and "." not in credential):
            client = await self._clients.by_key(credential)
            if client is None:
                raise unauthorized("The API key is not valid.")
            return client
        if credential:
            return await self._by_token(credential, sends=sends)
        der = client_certificate(request)
        if der is not None and (client := await self._clients.by_certificate(der)) is not None:
            return client
        return None

    async def _by_token(self, token: str, *, sends: bool) -> Client:
        granted = self._tokens.read(token, self._clock())
        known = await self._clients.by_id(granted.client_id) if granted else None
        if granted is None or known is None:
            raise unauthorized("The access token is not valid.", "invalid_token")
        if sends and not may_send(granted.scopes):
            headers = {"WWW-Authenticate": 'Bearer realm="tocengine", error="insufficient_scope"'}
            raise RefusedRequest(403, "forbidden", "The token's scopes do not allow to send.", headers, reason="scope")
        return known.client

    async def _this_machine(self, request: Request) -> Sender:
        """Without a configured client, whoever is on this machine is the one FHIR feed."""
        host = request.client.host if request.client else ""
        if not self._local or not is_loopback(host) or await self._clients.any_configured():
            raise unauthorized("An API key, an access token or a known client certificate is required.")
        if len(self._sources) != 1:
            raise unauthorized("An API key is required: there is not exactly one FHIR feed.")
        (source,) = self._sources.values()
        self.count(source.feed)
        return Sender(source, source.feed, host)


def client_certificate(request: Request) -> bytes | None:
    """The certificate (DER) the peer showed and the handshake proved, by way of the ASGI TLS extension."""
    shown = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    return ssl.PEM_cert_to_DER_cert(shown[0]) if shown else None


def unauthorized(text: str, error: str = "") -> RefusedRequest:
    """401, with how to do better (RFC 6750)."""
    challenge = 'Bearer realm="tocengine"' + (f', error="{error}"' if error else "")
    return RefusedRequest(401, "login", text, {"WWW-Authenticate": challenge})


def _credential(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("x-api-key", "").strip()
