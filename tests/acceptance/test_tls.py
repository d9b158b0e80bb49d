"""Mutual TLS as it runs in production: the real program under uvloop, and a sender held to its certificate."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson
import pytest

from tests.acceptance.setting import Embedded, embedded
from tests.fixtures.certificates import Authority, Issued
from tocengine.adapters.mllp.client import MllpClient
from tocengine.errors import UnavailableError
from tocengine.simulation.day import DayWriter
from tocengine.simulation.receivers import Receivers

pytestmark = pytest.mark.timeout(400)


async def test_a_sender_is_known_by_its_certificate_and_a_renewed_one_needs_no_restart(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    authority = Authority(folder)
    setting = _mutual(folder, receivers, secret, authority)
    known, stranger = (authority.issue(name) for name in ("hospital", "stranger"))
    path = folder / "tocengine.toml"
    pinned = f'msh4 = "STJ", certificates = ["sha256:{known.fingerprint}"]'
    path.write_text(path.read_text().replace('msh4 = "STJ"', pinned))
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


def _mutual(folder: Path, receivers: Receivers, secret: bytes, authority: Authority) -> Embedded:
    """The engine, not started: over MLLP and HTTP it wants a certificate of the authority."""
    setting = embedded(folder, receivers, secret)
    server = authority.issue("engine")
    path = folder / "tocengine.toml"
    tls = f'tls = {{certfile = "{server.certfile}", keyfile = "{server.keyfile}", client_ca = "{authority.certfile}"}}'
    text = path.read_text().replace('profile = "stj"', f'profile = "stj"\n{tls}', 1)
    listen = f'listen = "127.0.0.1:{setting.ports.http}"'
    path.write_text(text.replace(listen, f"{listen}\n{tls}", 1))
    return setting


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


async def test_a_person_sends_messages_and_a_batch_over_mutual_tls(
    folder: Path, receivers: Receivers, secret: bytes
) -> None:
    authority = Authority(folder)
    setting = _mutual(folder, receivers, secret, authority)
    known = authority.issue("hospital")
    bodies = [post.body for post in DayWriter(3, datetime.now(UTC)).write(3).posts if b"ADT^A01" in post.body][:3]
    (single, whole, miscounted) = (folder / name for name in ("single.hl7", "batch.hl7", "miscounted.hl7"))
    single.write_bytes(b"".join(bodies))
    whole.write_bytes(b"".join([b"BHS|^~\\&|ADTOUT|STJ\r", *bodies, b"BTS|3\r"]))
    miscounted.write_bytes(whole.read_bytes().replace(b"BTS|3", b"BTS|4"))
    to = ("--to", f"127.0.0.1:{setting.ports.mllp}")
    tls = ("--ca", str(authority.certfile), "--server-name", "localhost")
    shown = ("--cert", str(known.certfile), "--key", str(known.keyfile))
    try:
        await setting.engine.start(deadline_s=90)
        send = partial(setting.engine.call, "send")
        status, out, error = await send(str(single), str(whole), *to, *tls, *shown, "--json")
        answers = [orjson.loads(line) for line in out.splitlines()]
        assert status == 0, error
        assert [each["answer"]["code"] for each in answers if "answer" in each] == ["AA"] * 6
        assert [each.get("part") for each in answers] == [None, None, None, 1, 2, 3, None]
        status, out, _ = await send(str(miscounted), *to, *tls, *shown)
        assert status == 1
        assert [line.split()[:2] for line in out.splitlines()[:3]] == [[f"1.{part}:", "AR"] for part in (1, 2, 3)]
        assert "a batch with 3 answers, " in out
        assert (await send(str(single), *to, *tls))[0] == 3  # the engine wants a certificate
        status, _, error = await send(str(single), *to, "--ca", str(authority.certfile), *shown)
        assert (status, "cannot connect" in error) == (3, True)  # its certificate is not for 127.0.0.1
        status, _, error = await send(str(single), *to, *tls, "--cert", str(folder / "nothing.pem"))
        assert (status, "cannot be used" in error) == (2, True)
    finally:
        await setting.stop()
