"""Nothing gets into a log line that is not on the allow-list, and no metric has a label that could carry data."""

import io
import logging
import sys

import orjson
import pytest
import structlog

from tocengine import telemetry


def test_fields_off_the_allow_list_are_dropped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stderr", stream)
    telemetry.configure_logging("info", role="test")
    try:
        structlog.get_logger().info("message tracked", feed="stj-adt", patient_name="O'NEIL")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    stream.flush()
    line = stream.buffer.getvalue()
    assert b"NEIL" not in line
    fields = orjson.loads(line)
    assert fields["feed"] == "stj-adt"
    assert fields["dropped_fields"] == ["patient_name"]


def test_metric_labels_are_configuration_names_and_codes() -> None:
    allowed = {"feed", "code", "stage", "reason", "log", "topic", "partition", "disposition", "kind", "status", "state"}
    allowed |= {"channel", "outcome", "role", "table"}
    metrics = telemetry.Metrics()
    for metric in vars(metrics).values():
        assert set(getattr(metric, "_labelnames", ())) <= allowed


def test_what_libraries_log_loses_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stderr", stream)
    telemetry.configure_logging("info", role="test")
    try:
        try:
            raise ValueError("Failing row contains (O'NEIL)")
        except ValueError:
            logging.getLogger("some.library").exception("row of %s", "O'NEIL")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        logging.basicConfig(handlers=[], force=True)
    stream.flush()
    line = stream.buffer.getvalue()
    assert b"NEIL" not in line
    assert orjson.loads(line)["error_type"] == "ValueError"
