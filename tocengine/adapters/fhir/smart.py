"""Owns SMART Backend Services (SMART App Launch 2.0, client-confidential-asymmetric) without any socket: what makes a
signed assertion good, which scopes a client gets, and the short-lived access token.

A token is signed with a key that every process of the engine derives from the same secret, so that no process has to
ask another about it. Whether its client was revoked since is asked at each request.
"""

import hmac
from datetime import datetime
from typing import Any
from uuid import UUID

import jwt
import msgspec

from tocengine.adapters.fhir.clients import KnownClient

ALGORITHMS = ("RS384", "ES384")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_ASSERTION_S = 300
"""How far ahead an assertion may expire (SMART Backend Services: five minutes)."""
CLOCK_SKEW_S = 30
_LAST_TIME = 1e11  # seconds; the year 5138
TOKEN_S = 300
_TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068
_CREATING = frozenset({"write", "*"})


class RejectedError(Exception):
    """An OAuth error to answer with (RFC 6749 section 5.2); `text` says what is wrong, never what was sent."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error, self.text = error, text


class Assertion(msgspec.Struct, frozen=True):
    """What a good assertion says: it may be used once, until it expires."""

    jti: str
    expires_at: datetime


class Granted(msgspec.Struct, frozen=True):
    """What an access token says."""

    client_id: UUID
    scopes: str


def claimed_client(assertion: str) -> UUID:
    """Who an assertion says it is from; nothing of it is proven yet. Raises RejectedError."""
    try:
        claims = jwt.decode(assertion, options={"verify_signature": False})
        issuer, subject = str(claims["iss"]), str(claims["sub"])
        client_id = UUID(issuer)
    except (jwt.PyJWTError, KeyError, ValueError, RecursionError):
        raise RejectedError("invalid_client", "The client assertion names no client.") from None
    if issuer != subject:
        raise RejectedError("invalid_client", "iss and sub of the client assertion differ.")
    return client_id


def read_assertion(assertion: str, known: KnownClient, audience: str, now: datetime) -> Assertion:
    """Checks signature, audience and times with the client's registered keys. Raises RejectedError."""
    key, algorithm = _signing_key(assertion, known)
    options: Any = {"require": ["iss", "sub", "aud", "exp", "jti"], "verify_exp": False, "verify_iat": False}
    options |= {"verify_nbf": False}
    try:
        claims = jwt.decode(assertion, key, algorithms=[algorithm], audience=audience, options=options)
    except jwt.InvalidAudienceError:
        raise RejectedError("invalid_client", "aud of the client assertion is not the token endpoint.") from None
    except jwt.InvalidSignatureError:
        raise RejectedError("invalid_client", "The client assertion's signature does not hold.") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise RejectedError("invalid_client", "The client assertion is not valid.") from None
    expires, jti = claims["exp"], claims["jti"]
    if not _is_time(expires) or not _is_time(claims.get("nbf", 0)) or not _is_name(jti):
        raise RejectedError("invalid_client", "exp, nbf or jti of the client assertion is not what it must be.")
    ahead = expires - now.timestamp()
    if ahead < -CLOCK_SKEW_S:
        raise RejectedError("invalid_client", "The client assertion has expired.")
    if not ahead <= MAX_ASSERTION_S + CLOCK_SKEW_S:
        raise RejectedError("invalid_client", "The client assertion expires more than five minutes ahead.")
    if claims.get("nbf", 0) > now.timestamp() + CLOCK_SKEW_S:
        raise RejectedError("invalid_client", "The client assertion is not valid yet.")
    return Assertion(jti, datetime.fromtimestamp(expires + CLOCK_SKEW_S, now.tzinfo))


def _is_time(claim: object) -> bool:
    """Whether it is a NumericDate (RFC 7519 section 2) that a clock can be compared with."""
    return isinstance(claim, int | float) and not isinstance(claim, bool) and abs(claim) < _LAST_TIME


def _is_name(claim: object) -> bool:
    return isinstance(claim, str) and bool(claim) and claim.isprintable()


def _signing_key(assertion: str, known: KnownClient) -> tuple[Any, str]:
    """The registered key the assertion names; the only one there is, where it names none."""
    header = jwt.get_unverified_header(assertion)
    algorithm, kid = str(header.get("alg")), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise RejectedError("invalid_client", f"The client assertion is not signed with {' or '.join(ALGORITHMS)}.")
    keys = [key for key_set in known.key_sets for key in jwt.PyJWKSet.from_json(key_set.decode()).keys]
    family = "RSA" if algorithm == "RS384" else "EC"
    fitting = [key for key in keys if key.key_type == family and (kid is None or key.key_id == kid)]
    if len(fitting) != 1:
        raise RejectedError("invalid_client", "The client assertion's kid names no registered key of its algorithm.")
    return fitting[0].key, algorithm


def granted_scopes(wanted: str, registered: str) -> str:
    """What of `wanted` the client may have; all it may have where it asks for nothing. Raises RejectedError."""
    have = registered.split()
    if not wanted.split():
        return registered
    granted = [scope for scope in wanted.split() if any(_covers(each, scope) for each in have)]
    if not granted:
        raise RejectedError("invalid_scope", "The client may have none of the scopes it asks for.")
    return " ".join(granted)


def may_send(scopes: str) -> bool:
    """Whether `scopes` allow to hand in a Bundle: ``system/Bundle.c``, ``system/*.c``, or v1's ``.write``."""
    return any(
        resource in ("*", "Bundle") and (actions in _CREATING or ("c" in actions and set(actions) <= set("cruds")))
        for resource, actions in map(_parts, scopes.split())
    )


def valid_scope(scope: str) -> bool:
    """Whether a scope is one of ``system/...`` that this engine understands."""
    resource, actions = _parts(scope)
    return bool(resource) and (actions in {"read", "write", "*"} or (bool(actions) and set(actions) <= set("cruds")))


def _parts(scope: str) -> tuple[str, str]:
    context, _, rest = scope.partition("/")
    resource, _, actions = rest.partition(".")
    return (resource, actions) if context == "system" else ("", "")


def _covers(have: str, wanted: str) -> bool:
    mine, mine_actions = _parts(have)
    theirs, their_actions = _parts(wanted)
    return bool(theirs) and mine in ("*", theirs) and _letters(their_actions) <= _letters(mine_actions)


def _letters(actions: str) -> set[str]:
    return set({"read": "rs", "write": "cud", "*": "cruds"}.get(actions, actions))


class AccessTokens:
    """Makes and reads access tokens; `secret` is the same in every process of the engine."""

    def __init__(self, secret: bytes, issuer: str) -> None:
        self._key = hmac.digest(secret, b"tocengine access token", "sha256")
        self._issuer = issuer

    def issue(self, client_id: UUID, scopes: str, now: datetime) -> str:
        """A token that is good for `TOKEN_S` seconds."""
        at = int(now.timestamp())
        claims = {"iss": self._issuer, "aud": self._issuer, "sub": str(client_id), "scope": scopes, "exp": at + TOKEN_S}
        return jwt.encode(claims, self._key, algorithm="HS256", headers={"typ": _TOKEN_TYPE})

    def read(self, token: str, now: datetime) -> Granted | None:
        """What a token of ours that has not expired says."""
        options: Any = {"require": ["exp", "sub", "scope"], "verify_exp": False}
        try:
            if jwt.get_unverified_header(token).get("typ") != _TOKEN_TYPE:
                return None
            claims = jwt.decode(
                token, self._key, algorithms=["HS256"], audience=self._issuer, issuer=self._issuer, options=options
            )
            client_id = UUID(claims["sub"])
        except (jwt.PyJWTError, ValueError):
            return None
        if claims["exp"] < now.timestamp():
            return None
        return Granted(client_id, str(claims["scope"]))
