"""Mutual TLS as it runs in production: the real program under uvloop, and a sender held to its certificate."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.acceptance.setting import Embedded, embedded
from tests.fixtures.certificates import Authority, Issued
from tocengine.adapters.mllp.client import MllpClient
from tocengine.errors import UnavailableError
from tocengine.simulation.day import DayWriter
from tocengine.simulation.receivers import Receivers

pytestmark = pytest.mark.timeout(120)


async def test_a_sender_is_known_by_its_certificate_and_a_renewed_one_needs_no_restart(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    authority = Authority(folder)
    server, known, stranger = (authority.issue(name) for name in ("engine", "hospital", "stranger"))
    setting: Embedded = embedded(folder, receivers, secret)
    path = folder / "tocengine.toml"
    tls = f'tls = {{certfile = "{server.certfile}", keyfile = "{server.keyfile}", client_ca = "{authority.certfile}"}}'
    text = path.read_text().replace('profile = "stj"', f'profile = "stj"\n{tls}', 1)
    listen = f'listen = "127.0.0.1:{setting.ports.http}"'
    text = text.replace(listen, f"{listen}\n{tls}", 1)
    path.write_text(text.replace('msh4 = "STJ"', f'msh4 = "STJ", certificates = ["sha256:{known.fingerprint}"]'))
    admissions = [post.body for post in DayWriter(3, datetime.now(UTC)).write(3).posts if b"ADT^A01" in post.body]
    port = setting.ports.mllp
    await setting.apply()
    try:
        await setting.engine.start(deadline_s=90)
        for body in admissions:
            assert await _answered(port, authority, known, body) == "AA"
        for wrong in (stranger, None):
            with pytest.raises(UnavailableError):
                await _answered(port, authority, wrong, admissions[0])
        renewed = authority.issue("engine", days=20, file="engine")
        for listener in (port, setting.ports.http):
            async with asyncio.timeout(30):
                while await _presented(listener, authority, known) != renewed.certificate.serial_number:
                    pass  # each look is a handshake: it never spins
        assert await _answered(port, authority, known, admissions[0]) == "AA"
    finally:
        await setting.stop()


async def _answered(port: int, authority: Authority, certificate: Issued | None, body: bytes) -> str:
    async with MllpClient("127.0.0.1", port, tls=authority.client_context(certificate), timeout_s=10) as client:
        answer = await client.send(body)
    assert answer is not None
    return answer.code


async def _presented(port: int, authority: Authority, certificate: Issued) -> int:
    """The serial number of the certificate the engine shows."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.client_context(certificate))
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return int(shown["serialNumber"], 16)
