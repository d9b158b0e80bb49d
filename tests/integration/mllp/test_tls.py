"""TLS of an MLLP feed with real certificates: who is let in, and what happens when the files change."""

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.fixtures.certificates import Authority, Issued
from tests.integration.mllp.setting import Site, Start, adt, until
from tocengine.config import TlsSettings
from tocengine.errors import UnavailableError
from tocengine.model.profile import SenderMatch, SourceProfile


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _tls(server: Issued, authority: Authority | None = None) -> TlsSettings:
    client_ca = authority.certfile if authority else None
    return TlsSettings(certfile=server.certfile, keyfile=server.keyfile, client_ca=client_ca)


async def _answered(site: Site, context: ssl.SSLContext) -> bool:
    try:
        async with site.client(tls=context) as client:
            answer = await client.send(adt("1"))
    except UnavailableError:
        return False
    return answer is not None and answer.code == "AA"


async def test_tls_is_spoken_and_plain_text_is_not_answered(start: Start, authority: Authority) -> None:
    site = await start(tls=_tls(authority.issue("engine")))
    assert await _answered(site, authority.client_context())
    with pytest.raises(UnavailableError):
        async with site.client() as client:
            await client.send(adt("1"))
    await until(lambda: not site.server.connections)
    assert site.metric("tocengine_mllp_connections_refused_total", reason="handshake") == 1


async def test_nothing_older_than_1_2_is_spoken(start: Start, authority: Authority) -> None:
    site = await start(tls=_tls(authority.issue("engine")))
    context = authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    assert not await _answered(site, context)


async def test_a_client_certificate_of_the_authority_is_demanded(start: Start, authority: Authority) -> None:
    site = await start(tls=_tls(authority.issue("engine"), authority))
    assert not await _answered(site, authority.client_context())
    stranger = Authority(authority.folder, "Somebody Else").issue("stranger")
    assert not await _answered(site, authority.client_context(stranger))
    assert await _answered(site, authority.client_context(authority.issue("hospital")))
    assert site.metric("tocengine_mllp_connections_refused_total", reason="handshake") == 2


@pytest.mark.parametrize("by", ["fingerprint", "common name", "alternative name"])
async def test_a_feed_can_be_for_one_certificate_alone(start: Start, authority: Authority, by: str) -> None:
    mine = authority.issue("stj-interface", dns="adt.stj.example")
    other = authority.issue("valley-interface", dns="adt.valley.example")
    pins = {"fingerprint": f"sha256:{mine.fingerprint}", "common name": "STJ-Interface"}
    profile = SourceProfile(match=SenderMatch(certificates=(pins.get(by, "adt.stj.example"),)))
    site = await start(profile, tls=_tls(authority.issue("engine"), authority))
    assert await _answered(site, authority.client_context(mine))
    assert not await _answered(site, authority.client_context(other))
    assert len(site.log.bodies("messages")) == 1
    assert site.metric("tocengine_mllp_connections_refused_total", reason="certificate") == 1


async def test_replaced_files_are_taken_over_without_a_restart(start: Start, authority: Authority) -> None:
    served = authority.issue("old", file="engine", days=2)
    site = await start(tls=_tls(served))
    site.server.tls_look_s = 0.0
    async with site.client(tls=authority.client_context()) as standing:
        await standing.send(adt("1"))
        assert 1.9 < site.metric("tocengine_tls_certificate_expiry_days", kind="server") < 2.1
        _replace(authority, "new", days=90)
        await until(lambda: site.metric("tocengine_tls_reloads_total", outcome="done") == 1)
        assert await _common_name(site, authority) == "new"
        assert site.metric("tocengine_tls_certificate_expiry_days", kind="server") > 89
        answer = await standing.send(adt("2"))  # what stands, stays
        assert answer is not None


async def test_files_that_cannot_be_used_leave_the_old_ones_in_force(start: Start, authority: Authority) -> None:
    served = authority.issue("old", file="engine")
    site = await start(tls=_tls(served))
    site.server.tls_look_s = 0.0
    served.certfile.write_text("half a certifi")
    await until(lambda: site.metric("tocengine_tls_reloads_total", outcome="failed") >= 1)
    assert await _common_name(site, authority) == "old"
    _replace(authority, "new")
    await until(lambda: site.metric("tocengine_tls_reloads_total", outcome="done") == 1)
    assert await _common_name(site, authority) == "new"


async def test_a_handshake_that_never_comes_counts_and_ends(start: Start, authority: Authority) -> None:
    site = await start(tls=_tls(authority.issue("engine")), frame_timeout_s=0.3, max_connections_per_address=2)
    mute = [await site.connect() for _ in range(3)]
    reader, _ = mute[2]
    assert await reader.read() == b""  # one too many, although nobody has spoken TLS yet
    await until(lambda: not site.server.connections)
    assert site.metric("tocengine_mllp_connections_refused_total", reason="handshake") == 2
    assert await _answered(site, authority.client_context())
    for _, writer in mute:
        writer.close()


async def _common_name(site: Site, authority: Authority) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", site.server.port, ssl=authority.client_context())
    subject = dict(part[0] for part in writer.get_extra_info("peercert")["subject"])
    writer.close()
    return str(subject["commonName"])


def _replace(authority: Authority, name: str, days: float = 10) -> None:
    """A new certificate and key under the names of the old ones, as a renewal does it."""
    made = authority.issue(name, days=days)
    made.keyfile.replace(authority.folder / "engine.key")
    made.certfile.replace(authority.folder / "engine.pem")
