"""`tocengine bench` against a running engine: every mode counts exactly, and the directory is as it was afterwards."""

from pathlib import Path

import orjson
import pytest

from tests.acceptance.setting import embedded
from tocengine.simulation.receivers import Receivers

pytestmark = pytest.mark.timeout(300)
KEYS = (
    "acks_per_s delivered_per_s ack_p50_ms ack_p99_ms e2e_p99_ms cpu_s_per_1000 postgres_cpu_s_per_1000 "
    "kafka_cpu_s_per_1000 rss_mb bytes_per_message lost duplicated reordered"
).split()
MODES = {
    "as fast as answered, nine kilobytes": ("--size", "9 KB"),
    "realistic, some early": ("--told-every", "4", "--early-every", "12", "--rate", "150"),
    "bundles": ("--fhir",),
}


async def test_a_load_on_a_running_engine_is_measured_and_leaves_no_recipients(folder: Path, secret: bytes) -> None:
    setting = embedded(folder, Receivers(secret), secret)
    await setting.start(60.0)
    try:
        for name, options in MODES.items():
            status, out, error = await setting.engine.call(
                "bench", "--yes", "--messages", "48", "--senders", "4", *options
            )
            assert status == 0, (name, out, error)
            figures = orjson.loads(out.splitlines()[-1])
            assert set(KEYS) <= set(figures), name
            assert (figures["lost"], figures["duplicated"], figures["reordered"], figures["refused"]) == (0, 0, 0, 0)
            assert figures["held"] == (4 if "--early-every" in options else 0)
            assert figures["cpu_s_per_1000"] > figures["postgres_cpu_s_per_1000"] > 0, name
            assert figures["kafka_cpu_s_per_1000"] == 0
            assert 30 < figures["rss_mb"] < 300
        listed = await setting.engine.ask("endpoints", "list")
        assert not [endpoint for endpoint in listed if "bench-" in str(endpoint)]
    finally:
        await setting.stop()


async def test_an_engine_that_does_not_run_is_said_to_be_unreachable(folder: Path, secret: bytes) -> None:
    setting = embedded(folder, Receivers(secret), secret)
    status, out, error = await setting.engine.call("bench", "--yes", "--messages", "4")
    assert status == 3, out + error
