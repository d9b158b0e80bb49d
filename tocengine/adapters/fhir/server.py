"""Owns the FHIR endpoint: who may send, how much is read, and that nothing positive is said before it is durable."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tocengine import __version__
from tocengine.adapters.fhir.clients import ClientStore
from tocengine.adapters.fhir.request import (
    FHIR_JSON,
    Answer,
    answer_to,
    check_message,
    control_id,
    media_type_accepted,
    message_id,
    preload_models,
    refusal,
)
from tocengine.config import HttpSettings, listen_address
from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.model.ids import FeedName
from tocengine.model.message import MAX_CONTROL_ID, ContentType, Message, Problem
from tocengine.model.profile import Source
from tocengine.ports import Clock, Intake
from tocengine.telemetry import Metrics
from tocengine.web import WebServer

BODY_TIMEOUT_S = 30.0
RETRY_AFTER_S = 5
LARGE_BYTES = 128 * 1024
_log = structlog.get_logger()


class _RefusedRequest(Exception):  # noqa: N818 - an answer on its way, not a failure
    """Ends a request with an answer before any message exists."""

    def __init__(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.answer = refusal(Problem(reason=code, text=text, code=code), status)
        self.headers = dict(headers or {})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach, or is, `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def create_app(
    intake: Intake,
    sources: Mapping[FeedName, Source],
    client_store: ClientStore,
    metrics: Metrics,
    settings: HttpSettings,
    clock: Clock,
) -> Starlette:
    """The application. `sources` are the feeds with protocol "fhir", by name."""
    endpoint = _Endpoint(intake, sources, client_store, metrics, settings, clock)
    return Starlette(
        routes=[
            *(
                Route(path, endpoint.process_message, methods=["POST"])
                for path in ("/fhir/$process-message", "/fhir", "/fhir/", "/fhir/Bundle")
            ),
            Route("/fhir/metadata", _metadata(settings, clock), methods=["GET"]),
        ],
        exception_handlers={404: _plain_refusal, 405: _plain_refusal},
    )


class FhirServer:
    """Serves the FHIR endpoint in this process."""

    def __init__(self, app: Starlette, client_store: ClientStore, settings: HttpSettings, drain_s: float = 5.0) -> None:
        self._clients = client_store
        self._listen = settings.listen
        self._web = WebServer(app, settings.listen, drain_s=drain_s)

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._web.port

    async def start(self) -> None:
        """Returns when requests are accepted.

        Raises ConfigurationError where the address cannot be bound, or can be reached from elsewhere while no client
        is configured: anyone could send.
        """
        host, _ = listen_address(self._listen)
        if not is_loopback(host) and not await self._clients.any_configured():
            raise ConfigurationError(
                f"http.listen = {self._listen!r} can be reached from elsewhere and no FHIR client is configured",
                hint="tocengine clients add NAME --feed FEED, or listen on 127.0.0.1",
            )
        await asyncio.to_thread(preload_models)
        await self._web.start()

    async def stop(self) -> None:
        """Drains: no new requests; those under way are answered, within the drain time."""
        await self._web.stop()

    drain = stop


class _Endpoint:
    def __init__(
        self,
        intake: Intake,
        sources: Mapping[FeedName, Source],
        clients: ClientStore,
        metrics: Metrics,
        settings: HttpSettings,
        clock: Clock,
    ) -> None:
        self._intake = intake
        self._sources = sources
        self._clients = clients
        self._metrics = metrics
        self._max_bytes = settings.max_body_bytes
        self._local = is_loopback(listen_address(settings.listen)[0])
        self._clock = clock

    async def process_message(self, request: Request) -> Response:
        """``$process-message`` of Da Vinci Unsolicited Notifications: an HTTP status and an OperationOutcome."""
        started = perf_counter()
        feed = ""
        try:
            source, sender, peer = await self._sender(request)
            feed = source.feed
            answer = await self._take(await self._read(request), source, sender, peer)
            response = _respond(answer)
        except _RefusedRequest as refused:
            response = _respond(refused.answer, refused.headers)
        except UnavailableError as error:
            _log.warning("message not stored", feed=feed, error_type=type(error).__name__)
            response = _unavailable()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # no answer of ours may carry a trace
            _log.error("request failed", feed=feed, error_type=type(error).__name__)
            problem = Problem(reason="internal", text="The request could not be processed.", code="exception")
            response = _respond(refusal(problem, 500))
        self._metrics.answered.labels(feed, str(response.status_code)).inc()
        if feed:
            self._metrics.answer_seconds.labels(feed).observe(perf_counter() - started)
        return response

    async def _take(self, body: bytes, source: Source, sender: str, peer: str) -> Answer:
        message = Message(
            message_id=message_id(source.feed, sender, body),
            feed=source.feed,
            facility=source.facility.id,
            content_type=ContentType.FHIR,
            control_id=control_id(body)[:MAX_CONTROL_ID],
            received_at=self._clock(),
            body=body,
            peer=peer,
        )
        if len(body) > LARGE_BYTES:  # checking takes about 0.2 ms a kilobyte; others go on meanwhile
            error = await asyncio.to_thread(check_message, body)
        else:
            error = check_message(body)
        if error is None:
            return answer_to(await self._intake.accept(message))
        try:
            await self._intake.refuse(message, error)
        except UnavailableError:  # the sender learns what is wrong all the same, and will send it again corrected
            _log.warning("refused message not kept", feed=source.feed, reason=error.problem.reason)
        return refusal(error.problem, error.http_status, f"message {message.message_id}")

    async def _sender(self, request: Request) -> tuple[Source, str, str]:
        """The feed a request belongs to, the sender's part of the message id, and the peer to record."""
        key = _api_key(request)
        if key:
            client = await self._clients.authenticate(key)
            if client is None:
                raise _unauthorized("The API key is not valid.")
            source = self._sources.get(client.feed)
            if source is None:
                _log.error("API client names no FHIR feed", client=client.name, feed=client.feed)
                raise _RefusedRequest(403, "forbidden", "The client's feed is not configured here.")
            return source, str(client.client_id), f"client:{client.name}"
        host = request.client.host if request.client else ""
        if not self._local or not is_loopback(host) or await self._clients.any_configured():
            raise _unauthorized("An API key is required.")
        if len(self._sources) != 1:
            raise _unauthorized("An API key is required: there is not exactly one FHIR feed.")
        (source,) = self._sources.values()
        return source, source.feed, host

    async def _read(self, request: Request) -> bytes:
        """The body, never more of it than the limit, never slower than the timeout."""
        headers = request.headers
        if not media_type_accepted(headers.get("content-type", ""), headers.get("content-encoding", "")):
            raise _RefusedRequest(415, "not-supported", f"Send {FHIR_JSON}, UTF-8, not compressed.")
        if "async" in request.query_params or "response-url" in request.query_params:
            raise _RefusedRequest(422, "not-supported", "Notifications are processed without a response message.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for part in request.stream():
                    size += len(part)
                    if size > self._max_bytes:
                        raise self._too_large()
                    parts.append(part)
        except TimeoutError:
            raise _RefusedRequest(408, "timeout", "The body did not arrive in time.", {"Connection": "close"}) from None
        return b"".join(parts)

    def _too_large(self) -> _RefusedRequest:
        text = f"The body is larger than {self._max_bytes} bytes."
        return _RefusedRequest(413, "too-long", text, {"Connection": "close"})


def _api_key(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("x-api-key", "").strip()


def _unauthorized(text: str) -> _RefusedRequest:
    return _RefusedRequest(401, "login", text, {"WWW-Authenticate": 'Bearer realm="tocengine"'})


def _respond(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers=dict(headers or {}), media_type=FHIR_JSON)


def _unavailable() -> Response:
    problem = Problem(reason="unavailable", text="The message could not be stored. Send it again.", code="transient")
    return _respond(refusal(problem, 503), {"Retry-After": str(RETRY_AFTER_S)})


async def _plain_refusal(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    problem = Problem(reason="not_here", text="There is no such operation here.", code="not-supported")
    return _respond(refusal(problem, status), getattr(error, "headers", None))


def _metadata(settings: HttpSettings, clock: Clock) -> Callable[[Request], Awaitable[Response]]:
    operation = {
        "name": "process-message",
        "definition": "http://hl7.org/fhir/OperationDefinition/MessageHeader-process-message",
        "documentation": f"At most {settings.max_body_bytes} bytes. 202 once durable; no response message.",
    }
    body = orjson.dumps(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": clock().isoformat(timespec="seconds"),
            "kind": "instance",
            "software": {"name": "tocengine", "version": __version__},
            "implementation": {"description": "Takes Da Vinci unsolicited notifications (admit, transfer, discharge)."},
            "fhirVersion": "4.0.1",
            "format": [FHIR_JSON],
            "implementationGuide": [
                "http://hl7.org/fhir/us/davinci-alerts/ImplementationGuide/hl7.fhir.us.davinci-alerts|1.1.0"
            ],
            "rest": [
                {
                    "mode": "server",
                    "security": {"description": "Authorization: Bearer KEY, one key per client and feed."},
                    "operation": [operation],
                }
            ],
        }
    )

    async def metadata(_request: Request) -> Response:
        return Response(body, media_type=FHIR_JSON)

    return metadata
