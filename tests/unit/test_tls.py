"""What a listener does when its files change and cannot be used."""

from pathlib import Path

import pytest

from tests.fixtures.certificates import Authority
from tocengine import tls
from tocengine.config import TlsSettings
from tocengine.errors import ConfigurationError
from tocengine.telemetry import Metrics
from tocengine.tls import ListenerTls


def _reloads(metrics: Metrics, outcome: str) -> float:
    labels = {"feed": "feed", "outcome": outcome}
    return metrics.registry.get_sample_value("tocengine_tls_reloads_total", labels) or 0.0


@pytest.mark.parametrize("fails", ["tls_context", "earliest_expiry"])
def test_files_that_cannot_be_used_are_tried_again_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    authority, metrics = Authority(tmp_path), Metrics()
    served = authority.issue("old", file="engine")
    listener = ListenerTls(TlsSettings(certfile=served.certfile, keyfile=served.keyfile), "feed", metrics)
    before = listener.context
    authority.issue("renewed", file="engine")

    def denied(*_: object, **__: object) -> None:
        raise ConfigurationError("denied") if fails == "tls_context" else ValueError

    with monkeypatch.context() as patched:
        patched.setattr(tls, fails, denied)
        listener.refresh()
        listener.refresh()
    assert listener.context is before
    assert _reloads(metrics, "failed") == 1
    listener.refresh()
    assert listener.context is not before
    assert _reloads(metrics, "done") == 1
