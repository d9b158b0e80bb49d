"""The golden message through the running engine gives the golden notice, field by field."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
import pytest
import yaml

from tests.acceptance.setting import embedded
from tests.conformance.test_golden_notice import GOLDEN, graph, needs_golden
from tocengine.simulation.receivers import Receivers
from tocengine.simulation.senders import MllpSender

pytestmark = [pytest.mark.timeout(120), needs_golden]
AS_SENT = ("timestamp", "recorded")  # when it was sent: of this run, not of the golden page


@pytest.fixture
def shift() -> Callable[[bytes], bytes]:
    """Moves the golden dates to yesterday: a stay that ended more than seven days ago is told to nobody."""
    discharged = datetime.now(ZoneInfo("Etc/GMT+5")).date() - timedelta(days=1)
    admitted = discharged - timedelta(days=3)

    def moved(text: bytes) -> bytes:
        for old, new in ((b"2026-03-01", discharged), (b"2026-02-26", admitted)):
            text = text.replace(old, f"{new:%Y-%m-%d}".encode())
            text = text.replace(old.replace(b"-", b""), f"{new:%Y%m%d}".encode())
        return text

    return moved


async def test_the_golden_notice_arrives(
    folder: Path, receivers: Receivers, secret: bytes, shift: Callable[[bytes], bytes]
) -> None:
    setting = embedded(folder, receivers, secret)
    settings = (folder / "tocengine.toml").read_text()
    settings = settings.replace("ADTOUT", "EPICADT").replace('"St. Jude Hospital"', '"STJ Hospital"')
    settings = settings.replace('system = "urn:oid:2.16.840.1.113883.19.5"', 'aliases = ["2.16.840.1.113883.19.5"]')
    (folder / "tocengine.toml").write_text(settings)
    url = f"http://127.0.0.1:{receivers.port}/fhir/sunnyside"
    directory = {
        "version": 1,
        "facilities": [
            {
                "id": "sunnyside",
                "name": "Sunnyside Rehab",
                "type": "SNF",
                "npi": "1999000015",
                "aliases": ["SUNNYSIDE REHAB"],
                "endpoints": [{"id": "sunnyside-fhir", "channel": "fhir", "url": url}],
                "subscription": {"level": "FULL"},
            }
        ],
    }
    (folder / "directory.yaml").write_text(yaml.safe_dump(directory))
    try:
        status, _, error = await setting.engine.call("apply", "-f", str(folder / "directory.yaml"))
        assert status == 0, error
        await setting.start()
        async with MllpSender("127.0.0.1", setting.ports.mllp) as sender:
            assert await sender.send(shift((GOLDEN / "a03.hl7").read_bytes())) == "CA"
        await receivers.arrived(1)
    finally:
        await setting.stop()
    ((notice_id, body),) = receivers.bodies.items()
    golden = orjson.loads(
        shift((GOLDEN / "a03.notice.json").read_bytes())
        .replace(b"https://sunnyside.example.org/fhir", url.encode())
        .replace(b"00000000-0000-4000-8000-000000000099", notice_id.encode())
    )
    assert graph(_timeless(orjson.loads(body))) == graph(_timeless(golden))
    assert orjson.loads(body)["identifier"] == golden["identifier"]


def _timeless(bundle: dict[str, object]) -> dict[str, object]:
    for entry in bundle["entry"]:  # type: ignore[attr-defined]
        for name in AS_SENT:
            entry["resource"].pop(name, None)
    return bundle
