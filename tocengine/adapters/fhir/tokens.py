"""Owns the token endpoint of SMART Backend Services: a signed assertion in, a short-lived access token out."""

import asyncio
from urllib.parse import parse_qs

import orjson
from starlette.requests import Request

from tocengine.adapters.fhir.authentication import Doorkeeper
from tocengine.adapters.fhir.clients import ClientStore
from tocengine.adapters.fhir.metadata import token_endpoint
from tocengine.adapters.fhir.request import Answer
from tocengine.adapters.fhir.smart import (
    ASSERTION_TYPE,
    TOKEN_S,
    AccessTokens,
    RejectedError,
    claimed_client,
    granted_scopes,
    read_assertion,
)
from tocengine.ports import Clock

MAX_FORM_BYTES = 16 * 1024
_FORM_TIMEOUT_S = 10.0
_HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class TokenEndpoint:
    """Answers ``POST /fhir/auth/token``."""

    def __init__(
        self, clients: ClientStore, tokens: AccessTokens, doorkeeper: Doorkeeper, base_url: str, clock: Clock
    ) -> None:
        self._clients, self._tokens, self._doorkeeper, self._clock = clients, tokens, doorkeeper, clock
        self._audience = token_endpoint(base_url)

    async def token(self, request: Request) -> tuple[Answer, str]:
        """The token, or an OAuth error. Raises RefusedRequest (429) and UnavailableError."""
        self._doorkeeper.count(f"token:{request.client.host if request.client else ''}")
        try:
            form = await _form(request)
            return await self._grant(form), ""
        except RejectedError as rejected:
            status = 401 if rejected.error == "invalid_client" else 400
            return _answer(status, {"error": rejected.error, "error_description": rejected.text}), ""

    async def _grant(self, form: dict[str, str]) -> Answer:
        if form.get("grant_type") != "client_credentials":
            raise RejectedError("unsupported_grant_type", "grant_type is not client_credentials.")
        if form.get("client_assertion_type") != ASSERTION_TYPE or not form.get("client_assertion"):
            raise RejectedError("invalid_client", "A signed client assertion is required.")
        assertion, now = form["client_assertion"], self._clock()
        known = await self._clients.by_id(claimed_client(assertion))
        if known is None or not known.key_sets:
            raise RejectedError("invalid_client", "The client is not known, or has no registered keys.")
        good = read_assertion(assertion, known, self._audience, now)
        scopes = granted_scopes(form.get("scope", ""), known.client.scopes)
        if not await self._clients.use_assertion(known.client.client_id, good.jti, good.expires_at, now):
            raise RejectedError("invalid_client", "The client assertion was used before.")
        token = self._tokens.issue(known.client.client_id, scopes, now)
        return _answer(200, {"access_token": token, "token_type": "bearer", "expires_in": TOKEN_S, "scope": scopes})


def _answer(status: int, content: dict[str, object]) -> Answer:
    return Answer(status=status, body=orjson.dumps(content), headers=_HEADERS, content_type="application/json")


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise RejectedError("invalid_request", "The request is not a form.")
    body = b""
    try:
        async with asyncio.timeout(_FORM_TIMEOUT_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_FORM_BYTES:
                    raise RejectedError("invalid_request", "The form is too large.")
        fields = parse_qs(body.decode("ascii"), max_num_fields=20)
    except (TimeoutError, UnicodeDecodeError, ValueError):
        raise RejectedError("invalid_request", "The form cannot be read.") from None
    if any(len(values) > 1 for values in fields.values()):
        raise RejectedError("invalid_request", "A field of the form is there twice.")
    return {name: values[0] for name, values in fields.items()}
