"""Owns the FHIR endpoint: what each request gets, and that nothing positive is said before it is durable."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import perf_counter

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tocengine.adapters.fhir.authentication import Doorkeeper, Sender, is_loopback
from tocengine.adapters.fhir.body import RefusedRequest, read_body
from tocengine.adapters.fhir.clients import ClientStore
from tocengine.adapters.fhir.metadata import capability_statement, smart_configuration
from tocengine.adapters.fhir.request import (
    FHIR_JSON,
    Answer,
    answer_to,
    check_message,
    control_id,
    information,
    message_id,
    preload_models,
    refusal,
    subscription_bundle,
)
from tocengine.adapters.fhir.smart import AccessTokens
from tocengine.adapters.fhir.subscriptions import Subscriptions
from tocengine.adapters.fhir.tokens import TokenEndpoint
from tocengine.adapters.fhir.tracking import TrackingLinks, message_status
from tocengine.adapters.intake import LARGE_BYTES
from tocengine.config import HttpSettings, listen_address
from tocengine.errors import ConfigurationError, RefusedError, UnavailableError
from tocengine.formats.fhir.json_body import BodyLimits
from tocengine.formats.fhir.resources import Resource
from tocengine.formats.fhir.subscriptions import EVENTS, read_status
from tocengine.model.ids import FeedName
from tocengine.model.message import MAX_CONTROL_ID, ContentType, Message, Problem
from tocengine.model.profile import Source
from tocengine.ports import Clock, Intake
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics, origin_of
from tocengine.tls import ListenerTls
from tocengine.web import WebServer

RETRY_AFTER_S = 5
_INTAKE_PATHS = ("/fhir/$process-message", "/fhir", "/fhir/", "/fhir/Bundle")
_log = structlog.get_logger()
Work = Callable[[Request], Awaitable[tuple[Answer, str]]]
"""What a request asks for: its answer, and the feed it is counted for."""


def create_app(
    intake: Intake,
    sources: Mapping[FeedName, Source],
    client_store: ClientStore,
    pool: Pool,
    metrics: Metrics,
    settings: HttpSettings,
    clock: Clock,
    subscriptions: Subscriptions,
    *,
    base_url: str,
    secret: bytes,
) -> Starlette:
    """The application.

    `sources` are the feeds with protocol "fhir", by name; `base_url` is the FHIR base as partners see it; `secret`
    is the same in every process of the engine: tokens and message addresses are signed with keys made from it.
    """
    tokens = AccessTokens(secret, base_url)
    doorkeeper = Doorkeeper(sources, client_store, tokens, settings, clock)
    links = TrackingLinks(secret, base_url)
    endpoint = _Endpoint(intake, doorkeeper, links, subscriptions, pool, settings, clock)
    token_endpoint = TokenEndpoint(client_store, tokens, doorkeeper, base_url, clock)
    answers = _Answers(metrics)
    return Starlette(
        routes=[
            *(Route(path, answers.to(endpoint.take_in), methods=["POST"]) for path in _INTAKE_PATHS),
            Route("/fhir/message/{name}", answers.to(endpoint.status), methods=["GET"]),
            Route("/fhir/auth/token", answers.to(token_endpoint.token), methods=["POST"]),
            Route("/fhir/metadata", _document(capability_statement(settings, base_url, clock()), FHIR_JSON)),
            Route(
                "/fhir/.well-known/smart-configuration", _document(smart_configuration(base_url), "application/json")
            ),
        ],
        exception_handlers={404: _plain_refusal, 405: _plain_refusal},
    )


class FhirServer:
    """Serves the FHIR endpoint in this process."""

    def __init__(
        self, app: Starlette, client_store: ClientStore, settings: HttpSettings, metrics: Metrics, drain_s: float = 5.0
    ) -> None:
        """Raises ConfigurationError where a TLS file cannot be used."""
        self._clients = client_store
        self._listen = settings.listen
        tls = None
        if settings.tls:  # a client without a certificate proves itself otherwise
            tls = ListenerTls(settings.tls, "http", metrics, clients=ssl.CERT_OPTIONAL)
        self.web = WebServer(app, settings.listen, drain_s=drain_s, tls=tls, max_connections=settings.max_connections)

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self.web.port

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
        await self.web.start()

    async def stop(self) -> None:
        """Drains: no new requests; those under way are answered, within the drain time."""
        await self.web.stop()

    drain = stop


class _Answers:
    """Turns what goes wrong into answers, and counts them. No answer carries a trace or a value of the message."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def to(self, work: Work) -> Callable[[Request], Awaitable[Response]]:
        """The route's function around `work`."""

        async def respond(request: Request) -> Response:
            started = perf_counter()
            feed = ""
            try:
                answer, feed = await work(request)
                response = _respond(answer)
            except RefusedRequest as refused:
                self._metrics.fhir_refused.labels(refused.reason).inc()
                response = _respond(refused.answer, refused.headers)
            except UnavailableError as error:
                _log.warning("message not stored", feed=feed, error_type=type(error).__name__)
                response = _unavailable()
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except Exception as error:
                _log.error("request failed", feed=feed, **origin_of(error))
                problem = Problem(reason="internal", text="The request could not be processed.", code="exception")
                response = _respond(refusal((problem,), 500))
            self._metrics.answered.labels(feed, str(response.status_code)).inc()
            if feed:
                self._metrics.answer_seconds.labels(feed).observe(perf_counter() - started)
            return response

        return respond


class _Endpoint:
    def __init__(
        self,
        intake: Intake,
        doorkeeper: Doorkeeper,
        links: TrackingLinks,
        subscriptions: Subscriptions,
        pool: Pool,
        settings: HttpSettings,
        clock: Clock,
    ) -> None:
        self._intake, self._doorkeeper, self._links, self._pool = intake, doorkeeper, links, pool
        self._subscriptions, self._settings, self._clock = subscriptions, settings, clock
        self._limits = BodyLimits(depth=settings.max_depth, entries=settings.max_entries)

    async def take_in(self, request: Request) -> tuple[Answer, str]:
        """A Bundle of any kind that is taken: an HTTP status and an OperationOutcome, no response message."""
        sender = await self._doorkeeper.sender(request)
        try:
            body = await read_body(request, self._settings)
            if "async" in request.query_params or "response-url" in request.query_params:
                text = "Notifications are processed without a response message."
                raise RefusedRequest(422, "not-supported", text, came=body)
        except RefusedRequest as refused:
            if refused.came:
                refused.answer = await self._refuse(self._message(refused.came, sender, refused.reason), refused.error)
            raise
        return await self._take(body, sender), sender.source.feed

    async def status(self, request: Request) -> tuple[Answer, str]:
        """What became of a message that this sender sent."""
        sender = await self._doorkeeper.sender(request, sends=False)
        wanted = self._links.message_id(request.path_params["name"], sender.identity)
        if wanted is None:
            raise RefusedRequest(404, "not-found", "You sent no such message.")
        return await message_status(self._pool, wanted), sender.source.feed

    async def _take(self, body: bytes, sender: Sender) -> Answer:
        message = self._message(body, sender)
        error = await self._checked(message)
        if error is not None:
            return await self._refuse(message, error)
        location = self._links.location(message.message_id, sender.identity)
        bundle = subscription_bundle(body)
        if bundle is None:
            return answer_to(await self._intake.accept(message), location)
        return await self._take_notification(message, bundle, sender, location)

    async def _checked(self, message: Message) -> RefusedError | None:
        """Checking takes about 0.2 ms a kilobyte, and a turn: of a large body in a thread, so that others go on."""
        await self._intake.turn(message)
        body = message.body
        if len(body) > LARGE_BYTES:
            return await asyncio.to_thread(check_message, body, self._limits)
        return check_message(body, self._limits)

    async def _take_notification(self, message: Message, bundle: Resource, sender: Sender, location: str) -> Answer:
        """Of a subscription: its events first, so that a number counts as heard only once its event is durable."""
        status = read_status(bundle)
        if status.type == EVENTS:
            whole = await self._subscriptions.completed(message, bundle, status)
            error = await self._checked(whole) if whole is not message else None
            if error is not None:  # what the sender's server gave is no better than what it sends
                answer = await self._refuse(whole, error)
            else:
                answer = answer_to(await self._intake.accept(whole), location)
        else:
            answer = information(f"The {status.type} was noted.")
        missing = await self._subscriptions.heed(message.feed, status, self._clock())
        self._subscriptions.ask_for(message.feed, status, missing, partial(self._take, sender=sender))
        return answer

    async def _refuse(self, message: Message, error: RefusedError) -> Answer:
        try:
            await self._intake.refuse(message, error)
        except UnavailableError:  # the sender learns what is wrong all the same, and will send it again corrected
            _log.warning("refused message not kept", feed=message.feed, reason=error.problem.reason)
        return refusal((error.problem, *error.others), error.http_status, f"message {message.message_id}")

    def _message(self, body: bytes, sender: Sender, unread: str = "") -> Message:
        source = sender.source
        return Message(
            message_id=message_id(source.feed, sender.identity, body, unread),
            feed=source.feed,
            facility=source.facility.id,
            content_type=ContentType.FHIR,
            control_id=control_id(body)[:MAX_CONTROL_ID],
            received_at=self._clock(),
            body=body,
            peer=sender.peer,
        )


def _respond(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    kind = answer.content_type or FHIR_JSON
    return Response(answer.body, answer.status, headers={**answer.headers, **(headers or {})}, media_type=kind)


def _unavailable() -> Response:
    problem = Problem(reason="unavailable", text="The message could not be stored. Send it again.", code="transient")
    return _respond(refusal((problem,), 503), {"Retry-After": str(RETRY_AFTER_S)})


async def _plain_refusal(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    problem = Problem(reason="not_here", text="There is no such operation here.", code="not-supported")
    return _respond(refusal((problem,), status), getattr(error, "headers", None))


def _document(body: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_request: Request) -> Response:
        return Response(body, media_type=media_type)

    return respond
