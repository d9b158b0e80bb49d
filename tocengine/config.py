"""Owns the settings: one frozen struct per table of `tocengine.toml`, each with its default and meaning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.profile import IdentifierDomain, SendingFacility, SourceProfile

MAX_MESSAGE_BYTES: Final = 10 * 1024 * 1024
"""No listener may take more: base64-encoded in an envelope it still has to fit a record of either event log."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Amount: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=1)]
MessageSize: TypeAlias = Annotated[int, msgspec.Meta(ge=1024, le=MAX_MESSAGE_BYTES)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table: frozen, no unknown keys."""


class EngineSettings(Settings, frozen=True):
    """``[engine]``"""

    name: str = "tocengine"
    data_dir: Path = Path("var")  # relative paths start at the configuration file's folder
    base_url: str = "http://127.0.0.1:8080"  # how partners reach us
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    organization: str = "tocengine operator"  # who runs this engine, as Provenance and MessageHeader.sender show it


class TlsSettings(Settings, frozen=True):
    """``tls`` of a listener."""

    certfile: Path
    keyfile: Path
    client_ca: Path | None = None  # set: mutual TLS


class HttpSettings(Settings, frozen=True):
    """``[http]``: the partner-facing listener."""

    listen: str = "127.0.0.1:8080"
    max_body_bytes: MessageSize = 5 * 1024 * 1024  # unpacked too
    max_depth: Annotated[int, msgspec.Meta(ge=16, le=256)] = 64  # objects and lists within each other
    max_entries: Count = 1000  # of a Bundle
    body_timeout_s: Amount = 30.0
    max_connections: Count = 256  # at once, idle ones too; whoever comes then gets 503
    requests_per_minute: Count = 6000  # of one client, in each process; a client may have its own
    request_burst: Count = 200  # of one client at once
    tls: TlsSettings | None = None


class AdminSettings(Settings, frozen=True):
    """``[admin]``: metrics and health."""

    listen: str = "127.0.0.1:8081"


class PostgresSettings(Settings, frozen=True):
    """``[postgres]``: an empty dsn means the embedded server."""

    dsn: str = ""
    pool_size: Count = 8


class KafkaSettings(Settings, frozen=True):
    """``[event_log.kafka]``"""

    bootstrap_servers: str = "127.0.0.1:9092"
    topic_prefix: str = ""
    partitions: Count = 12  # fixed once the topics exist
    replication_factor: Count = 3
    min_insync: Count = 2
    retention_days: Count = 30
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = ""  # env:NAME or file:PATH
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    request_timeout_s: Amount = 15.0
    session_timeout_s: Amount = 6.0  # how long the partitions of a process that died stay unread


class EventLogSettings(Settings, frozen=True):
    """``[event_log]``"""

    kind: Literal["postgres", "kafka"] = "postgres"
    batch_window_ms: Annotated[float, msgspec.Meta(ge=0)] = 3.0  # how long an append waits for company
    batch_records: Count = 200
    kafka: KafkaSettings = KafkaSettings()


class KeySettings(Settings, frozen=True):
    """``[keys]``: ``file:PATH`` or ``env:NAME``; empty is generated in the data directory, embedded default only."""

    patient_hash: str = ""
    audit_signing: str = ""


class BackoffSettings(Settings, frozen=True):
    """``backoff`` of ``[delivery]``: seconds."""

    first_s: Amount = 1.0
    factor: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    max_s: Amount = 300.0
    jitter: Share = 0.2  # +- this share


class DeliverySettings(Settings, frozen=True):
    """``[delivery]``"""

    max_age_h: Amount = msgspec.field(default=24.0, name="max_age")  # hours; in the file also "24h", "90m", "2d"
    backoff: BackoffSettings = BackoffSettings()
    workers: Count = 256  # attempts in flight per process: room for 32 endpoints that all hang
    per_endpoint: Count = 8  # attempts in flight per endpoint
    breaker_failures: Count = 5  # consecutive failures before the endpoint waits as a whole
    drain_s: Annotated[float, msgspec.Meta(gt=0, le=8)] = 8.0  # the whole engine has 10 s to end
    heartbeat_s: Amount = 2.0  # lanes of a worker that missed three beats are freed: within 10 s
    allowed_networks: tuple[str, ...] = ()  # loopback and private targets only if listed here


class AlertWebhook(Settings, frozen=True):
    """Where a person is told: a webhook signed like notices."""

    url: str
    secret: str = ""


class AlertSettings(Settings, frozen=True):
    """``[alerts]``"""

    webhook: AlertWebhook | None = None
    silent_feed_minutes: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # 0: feeds are not watched for silence


class AuditSettings(Settings, frozen=True):
    """``[audit]``"""

    checkpoint_dir: Path | None = None  # default: DATA_DIR/audit
    checkpoint_records: Count = 1000
    checkpoint_s: Amount = 300.0
    seal_ms: Amount = 500.0


class RetentionSettings(Settings, frozen=True):
    """``[retention]``: what is not needed any more. Audit, encounters and notices are kept."""

    log_days: Count = 30  # records of the embedded event log; Kafka has `retention_days`
    repeats_days: Count = 400  # by MSH-7, and of receipt where that is long ago: how long a repeat is known for one
    quarantine_days: Count = 400  # what was set aside and its bytes, settled or not
    every_s: Amount = 60.0
    batch_records: Count = 10_000  # records removed in one transaction


class IntakeSettings(Settings, frozen=True):
    """``[intake]``: what feeds may send while routing lags behind (decisions/0016)."""

    lag_limit_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # at it no more is let in than goes out; 0: never
    unslowed_rate: Annotated[float, msgspec.Meta(ge=1)] = 25.0  # messages per second that every feed may always send
    longest_wait_s: Annotated[float, msgspec.Meta(gt=0, le=10)] = 3.0  # no message is held back longer


class RoutingSettings(Settings, frozen=True):
    """``[routing]``"""

    batch_records: Count = 200
    held_events: Count = 10_000  # early messages that wait at once (profiles.NAME.holdback_s), at most
    niceness: Annotated[int, msgspec.Meta(ge=0, le=19)] = 5  # of processes that do not ingest, see nice(1)
    directory_refresh_s: Amount = 1.0


class FileDropSettings(Settings, frozen=True):
    """``files`` of a feed: how its directory is watched."""

    poll_s: Amount = 1.0
    settle_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # a file that changed since is not finished
    max_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1024 * 1024 * 1024)] = 64 * 1024 * 1024  # of a whole file
    write_acks: bool = False
    keep_days: Amount = 30.0  # processed files are removed then; failed ones stay


class FhirSourceSettings(Settings, frozen=True):
    """``source`` of a FHIR feed: its sender's FHIR server, for what a subscription only tells of."""

    base_url: str
    token: str = ""  # env:NAME or file:PATH: sent as a bearer token
    timeout_s: Amount = 5.0  # of one request


class FeedSettings(Settings, frozen=True):
    """``[[feeds]]``"""

    name: FeedName
    facility: FacilityId
    protocol: Literal["mllp", "fhir", "files"] = "mllp"
    profile: str = ""  # default: the defaults of a profile
    listen: str = ""  # mllp: host:port
    directory: Path | None = None  # files: the watched directory
    files: FileDropSettings = FileDropSettings()
    shadow: bool = False
    max_frame_bytes: MessageSize = 5 * 1024 * 1024
    max_connections: Count = 256
    max_connections_per_address: Count = 64
    max_held_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 64 * 1024 * 1024  # of all connections together
    allowed_networks: tuple[str, ...] = ()  # none: every address
    commit_blocks: bool = False  # MLLP release 2
    max_batch_messages: Count = 1000
    max_in_flight: Count = 64  # messages of one connection being stored
    idle_timeout_s: Amount = 3600.0
    frame_timeout_s: Amount = 30.0
    tls: TlsSettings | None = None
    source: FhirSourceSettings | None = None  # fhir


class Config(Settings, frozen=True):
    """A whole `tocengine.toml`, checked."""

    engine: EngineSettings = EngineSettings()
    http: HttpSettings = HttpSettings()
    admin: AdminSettings = AdminSettings()
    postgres: PostgresSettings = PostgresSettings()
    event_log: EventLogSettings = EventLogSettings()
    keys: KeySettings = KeySettings()
    intake: IntakeSettings = IntakeSettings()
    routing: RoutingSettings = RoutingSettings()
    delivery: DeliverySettings = DeliverySettings()
    alerts: AlertSettings = AlertSettings()
    audit: AuditSettings = AuditSettings()
    retention: RetentionSettings = RetentionSettings()
    identifier_domains: tuple[IdentifierDomain, ...] = ()
    facilities: tuple[SendingFacility, ...] = ()
    feeds: tuple[FeedSettings, ...] = ()
    profiles: dict[str, SourceProfile] = msgspec.field(default_factory=dict)

    @property
    def is_embedded(self) -> bool:
        """Everything on this machine: PostgreSQL started by the engine, with the event log in it."""
        return not self.postgres.dsn and self.event_log.kind == "postgres"


def sharing_listeners(feeds: Sequence[FeedSettings]) -> list[list[FeedSettings]]:
    """The feeds that have an address, by the address they listen on; port 0 is another one each time."""
    sharing: dict[str, list[FeedSettings]] = {}
    for index, feed in enumerate(feeds):
        if feed.listen:
            address = f"{feed.listen}/{index}" if feed.listen.endswith(":0") else feed.listen
            sharing.setdefault(address, []).append(feed)
    return list(sharing.values())


def listen_address(text: str) -> tuple[str, int]:
    """``host:port`` (``[::1]:2575`` for IPv6) in its two parts. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: an IPv6 address is written in brackets")
    return host.strip("[]"), int(port)
