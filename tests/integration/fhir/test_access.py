"""Who may send, over real sockets: tokens for signed assertions, pinned certificates, rates; and message links."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fixtures.certificates import Authority, Issued
from tests.integration.fhir.setting import BASE, FEED, FHIR, NOW, Partner, Start
from tests.unit.adapters.fhir.bundles import bundle, encoded
from tocengine.adapters.fhir.clients import Credentials, NewClient, add_client, renew_client, revoke_client
from tocengine.adapters.fhir.registration import read_certificates, read_jwks, read_scopes
from tocengine.adapters.fhir.smart import ASSERTION_TYPE
from tocengine.audit import PostgresAuditTrail
from tocengine.config import HttpSettings, TlsSettings
from tocengine.errors import ConfigurationError
from tocengine.postgres import Pool

KEY = ec.generate_private_key(ec.SECP384R1())


async def registered(pool: Pool, folder: Path, **more: Any) -> NewClient:
    path = folder / "public.pem"
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(KEY.public_key().public_bytes(serialization.Encoding.PEM, spki))
    credentials = Credentials(key=False, jwks=read_jwks(path))
    return await add_client(pool, PostgresAuditTrail(), "signer", FEED, "operator", NOW, credentials, **more)


def signed(client: NewClient, **changed: Any) -> str:
    claims = {
        "iss": str(client.client_id),
        "sub": str(client.client_id),
        "aud": f"{BASE}/auth/token",
        "exp": int((NOW + timedelta(minutes=4)).timestamp()),
        "jti": str(uuid4()),
    }
    return jwt.encode(claims | changed, KEY, algorithm="ES384")


async def ask(partner: Partner, assertion: str, **form: str) -> tuple[int, dict[str, Any]]:
    fields = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    } | form
    url = f"http://127.0.0.1:{partner.server.port}/fhir/auth/token"
    async with partner.session.post(url, data=fields) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, orjson.loads(await response.read())


async def test_a_signed_assertion_gives_a_token_once_and_the_token_opens(partner: Partner, tmp_path: Path) -> None:
    client = await registered(partner.pool, tmp_path)
    assertion = signed(client)
    status, token = await ask(partner, assertion, scope="system/Bundle.c")
    assert (status, token["token_type"], token["scope"]) == (200, "bearer", "system/Bundle.c")
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert (await partner.post(encoded(bundle()), headers=headers))[0].status == 202
    assert (await ask(partner, assertion))[1]["error"] == "invalid_client"  # replayed
    await revoke_client(partner.pool, PostgresAuditTrail(), "signer", "operator", NOW)
    assert (await partner.post(encoded(bundle()), headers=headers))[0].status == 401
    assert (await ask(partner, signed(client)))[0] == 401


async def test_a_token_without_the_scope_may_not_send(partner: Partner, tmp_path: Path) -> None:
    client = await registered(partner.pool, tmp_path, scopes="system/*.rs")
    _, token = await ask(partner, signed(client))
    response, _ = await partner.post(encoded(bundle()), headers={"Authorization": f"Bearer {token['access_token']}"})
    assert response.status == 403
    assert "insufficient_scope" in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_assertion_type": "x"}, 401, "invalid_client"),
        ({"scope": "user/*.c"}, 400, "invalid_scope"),
        ({"client_assertion": "x" * 20_000}, 400, "invalid_request"),
        ({"client_assertion": "none"}, 401, "invalid_client"),
    ],
)
async def test_oauth_errors(partner: Partner, tmp_path: Path, form: dict[str, str], status: int, error: str) -> None:
    client = await registered(partner.pool, tmp_path)
    got, body = await ask(partner, form.pop("client_assertion", signed(client)), **form)
    assert (got, body["error"]) == (status, error)


async def test_the_smart_configuration_says_where(partner: Partner) -> None:
    url = f"http://127.0.0.1:{partner.server.port}/fhir/.well-known/smart-configuration"
    async with partner.session.get(url) as response:
        found = orjson.loads(await response.read())
    assert found["token_endpoint"] == f"{BASE}/auth/token"
    assert set(found["token_endpoint_auth_signing_alg_values_supported"]) == {"RS384", "ES384"}


# --- certificates


async def send_over_tls(partner: Partner, authority: Authority, certificate: Issued | None) -> int:
    url = f"https://127.0.0.1:{partner.server.port}/fhir/$process-message"
    connector = aiohttp.TCPConnector(ssl=authority.client_context(certificate))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data=encoded(bundle()), headers=FHIR) as response,
    ):
        return response.status


async def test_a_pinned_certificate_opens_and_another_of_the_authority_does_not(
    pool: Pool, start: Start, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server")
    tls = TlsSettings(certfile=server.certfile, keyfile=server.keyfile, client_ca=authority.certfile)
    known, stranger, renewed = authority.issue("known"), authority.issue("stranger"), authority.issue("renewed")
    audit = PostgresAuditTrail()
    await add_client(
        pool,
        audit,
        "valley",
        FEED,
        "operator",
        NOW,
        Credentials(key=False, certificates=read_certificates(known.certfile)),
    )
    partner = await start(settings=HttpSettings(listen="127.0.0.1:0", tls=tls))
    assert await send_over_tls(partner, authority, known) == 202
    assert await send_over_tls(partner, authority, stranger) == 401
    assert await send_over_tls(partner, authority, None) == 401
    foreign = Authority(tmp_path, "Somebody Else").issue("known", file="foreign")
    with pytest.raises(aiohttp.ClientError):
        await send_over_tls(partner, authority, foreign)
    fresh = Credentials(key=False, certificates=read_certificates(renewed.certfile))
    await renew_client(pool, audit, "valley", "operator", NOW, fresh, keep=False)
    assert await send_over_tls(partner, authority, renewed) == 202
    assert await send_over_tls(partner, authority, known) == 401


async def test_renewed_tls_files_are_taken_over_without_a_restart(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = authority.issue("engine", days=2)
    tls = TlsSettings(certfile=served.certfile, keyfile=served.keyfile)
    partner = await start(settings=HttpSettings(listen="127.0.0.1:0", tls=tls))
    partner.server.web.tls_look_s = 0.01
    assert 1.9 < days_left(partner) < 2.1
    assert await presented(partner, authority) == served.certificate.serial_number
    served.certfile.write_text("half a certifi")
    await reloaded(partner, "failed")
    assert await presented(partner, authority) == served.certificate.serial_number
    renewed = authority.issue("engine", days=90)
    await reloaded(partner, "done")
    assert await presented(partner, authority) == renewed.certificate.serial_number
    assert days_left(partner) > 89


async def test_a_renewed_authority_of_the_clients_is_taken_over_too(start: Start, pool: Pool, tmp_path: Path) -> None:
    authority, next_one = Authority(tmp_path), Authority(tmp_path, "Next Authority")
    server, mine = authority.issue("server"), next_one.issue("client")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(authority.certfile.read_bytes())
    credentials = Credentials(key=False, certificates=read_certificates(mine.certfile))
    await add_client(pool, PostgresAuditTrail(), "valley", FEED, "operator", NOW, credentials)
    tls = TlsSettings(certfile=server.certfile, keyfile=server.keyfile, client_ca=client_ca)
    partner = await start(settings=HttpSettings(listen="127.0.0.1:0", tls=tls))
    partner.server.web.tls_look_s = 0.01
    with pytest.raises(aiohttp.ClientError):
        await send_over_tls(partner, authority, mine)
    client_ca.write_bytes(authority.certfile.read_bytes() + next_one.certfile.read_bytes())
    await reloaded(partner, "done")
    assert await send_over_tls(partner, authority, mine) == 202


async def presented(partner: Partner, authority: Authority) -> int:
    """The serial number of the certificate that the server shows."""
    context = authority.client_context()
    _, writer = await asyncio.open_connection("127.0.0.1", partner.server.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return int(shown["serialNumber"], 16)


async def reloaded(partner: Partner, outcome: str) -> None:
    labels = {"feed": "http", "outcome": outcome}
    async with asyncio.timeout(10):
        while not partner.metrics.registry.get_sample_value("tocengine_tls_reloads_total", labels):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def days_left(partner: Partner) -> float:
    labels = {"feed": "http", "kind": "server"}
    return partner.metrics.registry.get_sample_value("tocengine_tls_certificate_expiry_days", labels) or 0.0


async def test_a_certificate_is_pinned_to_one_client(pool: Pool, tmp_path: Path) -> None:
    credentials = Credentials(key=False, certificates=read_certificates(Authority(tmp_path).issue("one").certfile))
    await add_client(pool, PostgresAuditTrail(), "one", FEED, "operator", NOW, credentials)
    with pytest.raises(ConfigurationError, match="pinned"):
        await add_client(pool, PostgresAuditTrail(), "two", FEED, "operator", NOW, credentials)


def test_what_an_operator_hands_in_is_checked(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    private = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(KEY, as_dict=True)
    for content in (b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}', private, orjson.dumps(jwk)):
        bad.write_bytes(content)
        with pytest.raises(ConfigurationError):
            read_jwks(bad)
    with pytest.raises(ConfigurationError):
        read_certificates(bad)
    with pytest.raises(ConfigurationError):
        read_jwks(tmp_path / "missing")
    for scopes in ("", "openid"):
        with pytest.raises(ConfigurationError):
            read_scopes(scopes)


# --- rates and links


async def test_too_many_requests_are_told_when_to_come_again(start: Start) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", requests_per_minute=60, request_burst=2)
    partner = await start(settings=settings)
    answers = [(await partner.post(encoded(bundle())))[0] for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 202, 429]
    assert answers[-1].headers["Retry-After"] == "1"


async def test_the_location_tells_its_sender_what_became_of_the_message(partner: Partner) -> None:
    key, other = await partner.client(), await partner.client("other")
    response, _ = await partner.post(encoded(bundle()), headers=key)
    location = response.headers["Location"]
    assert location.startswith(f"{BASE}/message/")
    path = location.removeprefix(BASE)

    async def look(headers: dict[str, str], where: str = path) -> tuple[int, str]:
        url = f"http://127.0.0.1:{partner.server.port}/fhir{where}"
        async with partner.session.get(url, headers=headers) as found:
            body = await found.read()
            assert b"NEIL" not in body
            (issue,) = orjson.loads(body)["issue"]
            return found.status, issue["details"].get("coding", [{"code": ""}])[0]["code"]

    assert await look(key) == (200, "received")
    assert (await look(other))[0] == 404
    assert (await look({}))[0] == 401
    assert (await look(key, path[:-1] + ("0" if path[-1] != "0" else "1")))[0] == 404
    message_id = path.removeprefix("/message/").partition(".")[0]
    await partner.pool.execute(
        "insert into message_seen (day, message_id, revision, part, feed, control_id, trigger, answered, received_at,"
        " disposition) values ('2026-03-01', $1, 0, 0, $2, 'b-1', 'A03', '202', $3, 'TRACKED')",
        message_id,
        FEED,
        NOW,
    )
    assert await look(key) == (200, "tracked")
