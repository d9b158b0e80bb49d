"""Owns what can be seen from outside: structured logs without PHI, and metrics.

Logs are JSON lines through structlog. A field that is not on the allow-list is dropped and counted, so that
no value of a message can slip in under a new name.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

ALLOWED_FIELDS = frozenset(
    """event level timestamp logger role pid engine version feed facility peer listen message_id encounter_id patient_id
    notice_id recipient_id endpoint_id transition_id work_item_id attempt_id client trigger kind state status outcome
    failure reason code location stage topic partition offset epoch count records bytes seconds attempt error
    error_type signal exit_status file line setting port protocol channel url_host schema block worker_id
    dropped_fields build""".split()
)


def _allow_listed(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    dropped = [name for name in fields if name not in ALLOWED_FIELDS]
    for name in dropped:
        del fields[name]
    if dropped:
        fields["dropped_fields"] = sorted(dropped)
    return fields


class _LibraryHandler(logging.Handler):
    """What libraries log, as a line of ours: who, where and which error, never their text, which may quote data."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line for one record."""
        error = record.exc_info[1] if record.exc_info else None
        fields = origin_of(error) if error else {"file": record.pathname, "line": record.lineno}
        structlog.get_logger().warning("library_message", logger=record.name, **fields)


def configure_logging(level: str = "info", **bound: str) -> None:
    """JSON lines on standard error; `bound` fields (role, engine) are on every line."""
    logging.basicConfig(handlers=[_LibraryHandler(logging.WARNING)], level=logging.WARNING, force=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow_listed,
            structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value, default=str)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**bound)


def origin_of(error: BaseException) -> dict[str, str | int]:
    """What may be logged of an unexpected error: its type and where it was raised; its text may be PHI."""
    fields: dict[str, str | int] = {"error_type": type(error).__name__}
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        fields |= {"file": trace.tb_frame.f_code.co_filename, "line": trace.tb_lineno}
    return fields


class Metrics:
    """Every metric of the engine, in a registry of its own. Labels are configuration names and codes, never data."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        fast = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
        slow = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
        self.received = Counter("tocengine_messages_received", "Messages received", ["feed"], registry=r)
        self.answered = Counter("tocengine_messages_answered", "Answers given", ["feed", "code"], registry=r)
        self.answer_seconds = Histogram(
            "tocengine_answer_seconds", "Receipt to answer", ["feed"], buckets=fast, registry=r
        )
        self.quarantined = Counter(
            "tocengine_messages_quarantined", "Messages set aside", ["feed", "stage", "reason"], registry=r
        )
        self.codes_unmapped = Counter(
            "tocengine_codes_unmapped", "Messages with a code no table knows", ["feed", "table"], registry=r
        )
        self.connections = Gauge("tocengine_mllp_connections", "Open MLLP connections", ["feed"], registry=r)
        self.connections_refused = Counter(
            "tocengine_mllp_connections_refused",
            "Connections closed by a limit",
            ["feed", "reason"],
            registry=r,
        )
        self.connection_bytes = Gauge(
            "tocengine_mllp_held_bytes", "Bytes of messages unfinished or being stored", ["feed"], registry=r
        )
        self.connection_messages = Gauge(
            "tocengine_mllp_messages_in_flight",
            "Messages being stored, or with an answer to be sent",
            ["feed"],
            registry=r,
        )
        self.tls_expiry_days = Gauge(
            "tocengine_tls_certificate_expiry_days",
            "Days until the first certificate of the file ends",
            ["feed", "kind"],
            registry=r,
        )
        self.tls_reloads = Counter(
            "tocengine_tls_reloads", "Changed TLS files taken over, or not", ["feed", "outcome"], registry=r
        )
        self.frames_broken = Counter("tocengine_mllp_frames_broken", "Broken frames", ["feed", "reason"], registry=r)
        self.files = Counter("tocengine_files", "Files taken or left", ["feed", "outcome"], registry=r)
        self.files_waiting = Gauge("tocengine_files_waiting", "Files ready and not taken yet", ["feed"], registry=r)
        self.fhir_refused = Counter(
            "tocengine_fhir_requests_refused", "Requests refused before they were a message", ["reason"], registry=r
        )
        self.fhir_events_missing = Counter(
            "tocengine_fhir_events_missing", "Subscription events that did not come", ["feed"], registry=r
        )
        self.fhir_fetched = Counter(
            "tocengine_fhir_fetches", "Requests to senders' FHIR servers", ["feed", "outcome"], registry=r
        )
        self.intake_wait = Histogram(
            "tocengine_intake_wait_seconds",
            "Waits for a turn",
            ["feed"],
            buckets=fast,
            registry=r,
        )
        self.intake_waiting = Gauge("tocengine_intake_waiting", "Messages that wait for a turn", ["feed"], registry=r)
        self.intake_lag = Gauge(
            "tocengine_intake_lag_seconds", "Age of the next event to be routed, as intake sees it", registry=r
        )
        self.intake_level = Gauge(
            "tocengine_intake_level", "Messages per second that a feed may send; 0: no limit", registry=r
        )
        self.append_seconds = Histogram(
            "tocengine_log_append_seconds", "Append to durable", ["log"], buckets=fast, registry=r
        )
        self.append_records = Histogram(
            "tocengine_log_append_records",
            "Records per commit",
            ["log"],
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=r,
        )
        self.routing_lag = Gauge(
            "tocengine_routing_lag_records", "Events not yet routed", ["topic", "partition"], registry=r
        )
        self.routing_batch_seconds = Histogram(
            "tocengine_routing_batch_seconds", "Track-and-route batch", buckets=fast, registry=r
        )
        self.events_tracked = Counter("tocengine_events_tracked", "Events folded", ["feed", "disposition"], registry=r)
        self.transitions = Counter("tocengine_transitions", "Transitions", ["kind", "status"], registry=r)
        self.decisions = Counter("tocengine_decisions", "Routing decisions", ["reason"], registry=r)
        self.notices = Gauge("tocengine_notices_open", "Open notices by state", ["state"], registry=r)
        self.attempts = Counter("tocengine_delivery_attempts", "Attempts", ["channel", "outcome"], registry=r)
        self.attempt_seconds = Histogram(
            "tocengine_delivery_attempt_seconds", "One attempt", ["channel"], buckets=(*fast, 30), registry=r
        )
        self.delivery_seconds = Histogram(
            "tocengine_delivery_seconds", "Message received to notice delivered", buckets=slow, registry=r
        )
        self.held_events = Gauge("tocengine_held_events", "Early events that wait for a predecessor", registry=r)
        self.endpoints_paused = Gauge("tocengine_endpoints_paused", "Endpoints paused or disabled", registry=r)
        self.work_items_open = Gauge("tocengine_work_items_open", "Open work items", ["kind"], registry=r)
        self.audit_unsealed = Gauge("tocengine_audit_unsealed_records", "Audit rows not yet sealed", registry=r)
        self.retention_removed = Counter(
            "tocengine_retention_removed", "Records of the log and days of repeats removed", ["kind"], registry=r
        )
        self.audit_blocks = Counter("tocengine_audit_blocks", "Blocks sealed", registry=r)
        self.last_received = Gauge(
            "tocengine_feed_last_received_timestamp_seconds", "Last message", ["feed"], registry=r
        )
