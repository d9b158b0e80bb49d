"""SMART Backend Services: only a fresh assertion of a registered key, made for this endpoint, counts, and once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tocengine.adapters.fhir.clients import Client, KnownClient
from tocengine.adapters.fhir.smart import (
    AccessTokens,
    Granted,
    RejectedError,
    claimed_client,
    granted_scopes,
    may_send,
    read_assertion,
    valid_scope,
)
from tocengine.model.ids import FeedName

NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
AUDIENCE = "https://toc.example.org/fhir/auth/token"
CLIENT = UUID("7b0c6c3a-1111-4222-8333-444455556666")
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP384R1())
OTHER = ec.generate_private_key(ec.SECP384R1())


def known(*keys: dict[str, Any]) -> KnownClient:
    registered = keys or (
        jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True) | {"kid": "r"},
        jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True) | {"kid": "e"},
    )
    client = Client(client_id=CLIENT, name="c", feed=FeedName("f"), created_at=NOW, created_by="x")
    return KnownClient(client=client, key_sets=(json.dumps({"keys": registered}).encode(),))


def assertion(
    key: Any = EC_KEY, algorithm: str = "ES384", kid: str | None = "e", without: str = "", **changed: Any
) -> str:
    claims: dict[str, Any] = {
        "iss": str(CLIENT),
        "sub": str(CLIENT),
        "aud": AUDIENCE,
        "exp": int((NOW + timedelta(minutes=4)).timestamp()),
        "jti": str(uuid4()),
    } | changed
    claims.pop(without, None)
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(EC_KEY, "ES384", "e"), (RSA_KEY, "RS384", "r")])
def test_a_good_assertion_is_taken(key: Any, algorithm: str, kid: str) -> None:
    sent = assertion(key, algorithm, kid, jti="once")
    assert claimed_client(sent) == CLIENT
    read = read_assertion(sent, known(), AUDIENCE, NOW)
    assert read.jti == "once"
    assert read.expires_at > NOW + timedelta(minutes=4)  # remembered for longer than it can be used


def test_without_a_kid_the_only_key_of_the_algorithm_is_meant() -> None:
    assert read_assertion(assertion(kid=None), known(), AUDIENCE, NOW)


@pytest.mark.parametrize(
    "sent",
    [
        assertion(OTHER),
        assertion(kid="nobody"),
        assertion(RSA_KEY, "RS256", "r"),
        assertion("x" * 48, "HS384", "e"),
        assertion(aud="https://elsewhere.example.org/token"),
        assertion(exp=int((NOW - timedelta(minutes=1)).timestamp())),
        assertion(exp=int((NOW + timedelta(hours=1)).timestamp())),
        assertion(exp=True),
        assertion(exp=10**400),
        assertion(nbf="soon"),
        assertion(jti="\x07"),
        assertion(nbf=int((NOW + timedelta(minutes=2)).timestamp())),
        assertion(jti=""),
        *(assertion(without=name) for name in ("exp", "jti", "aud")),
    ],
)
def test_anything_else_is_refused(sent: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        read_assertion(sent, known(), AUDIENCE, NOW)
    assert refusal.value.error == "invalid_client"


def test_an_unsigned_assertion_is_refused() -> None:
    unsigned = jwt.encode({"iss": str(CLIENT), "sub": str(CLIENT)}, "", algorithm="none")
    with pytest.raises(RejectedError):
        read_assertion(unsigned, known(), AUDIENCE, NOW)


@pytest.mark.parametrize("sent", ["", "a.b.c", assertion(sub=str(uuid4())), assertion(iss="me", sub="me")])
def test_what_names_no_client_is_refused(sent: str) -> None:
    with pytest.raises(RejectedError):
        claimed_client(sent)


@pytest.mark.parametrize(
    ("wanted", "registered", "granted"),
    [
        ("", "system/*.c", "system/*.c"),
        ("system/Bundle.c", "system/*.c", "system/Bundle.c"),
        ("system/Bundle.c system/Patient.r", "system/*.c", "system/Bundle.c"),
        ("system/*.write", "system/*.*", "system/*.write"),
        ("system/*.c", "system/Bundle.c", None),
        ("user/*.c", "system/*.c", None),
    ],
)
def test_scopes_are_never_more_than_registered(wanted: str, registered: str, granted: str | None) -> None:
    if granted is None:
        with pytest.raises(RejectedError, match="scopes"):
            granted_scopes(wanted, registered)
    else:
        assert granted_scopes(wanted, registered) == granted


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ("system/*.c", True),
        ("system/Bundle.cruds", True),
        ("system/*.write", True),
        ("system/*.*", True),
        ("system/*.read", False),
        ("system/Bundle.rs", False),
        ("system/Patient.c", False),
        ("", False),
    ],
)
def test_only_creating_scopes_allow_to_send(scopes: str, allowed: bool) -> None:
    assert may_send(scopes) is allowed


def test_scopes_that_mean_nothing_here_are_known() -> None:
    assert not any(map(valid_scope, ("launch", "system/", "system/*.x", "patient/*.c", "system/*.")))


def test_a_token_holds_until_it_expires_and_only_where_it_was_made() -> None:
    tokens = AccessTokens(bytes(32), "https://toc.example.org/fhir")
    token = tokens.issue(CLIENT, "system/*.c", NOW)
    assert tokens.read(token, NOW) == Granted(CLIENT, "system/*.c")
    assert tokens.read(token, NOW + timedelta(seconds=301)) is None
    assert tokens.read(token[:-4] + "AAAA", NOW) is None
    assert AccessTokens(b"1" * 32, "https://toc.example.org/fhir").read(token, NOW) is None
    assert AccessTokens(bytes(32), "https://other.example.org/fhir").read(token, NOW) is None
    assert tokens.read(assertion(), NOW) is None
