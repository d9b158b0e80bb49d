"""Owns the settings: one frozen struct per table of `tocengine.toml`, each with its default and meaning."""

from pathlib import Path

import msgspec

from tocengine.model.profile import IdentifierDomain, SendingFacility, SourceProfile


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table: frozen, no unknown keys."""


class EngineSettings(Settings, frozen=True):
    """``[engine]``"""

    name: str = "tocengine"
    data_dir: Path = Path("var")  # relative paths start at the configuration file's folder
    base_url: str = "http://127.0.0.1:8080"  # how partners reach us
    log_level: str = "info"
    organization: str = "tocengine operator"  # who runs this engine, as Provenance and MessageHeader.sender show it


class HttpSettings(Settings, frozen=True):
    """``[http]``: the partner-facing listener."""

    listen: str = "127.0.0.1:8080"
    max_body_bytes: int = 5 * 1024 * 1024


class AdminSettings(Settings, frozen=True):
    """``[admin]``: metrics and health."""

    listen: str = "127.0.0.1:8081"


class PostgresSettings(Settings, frozen=True):
    """``[postgres]``: an empty dsn means the embedded server."""

    dsn: str = ""
    pool_size: int = 8


class KafkaSettings(Settings, frozen=True):
    """``[event_log.kafka]``"""

    bootstrap_servers: str = "127.0.0.1:9092"
    topic_prefix: str = ""
    partitions: int = 12  # fixed once the topics exist
    replication_factor: int = 3
    min_insync: int = 2
    retention_days: int = 30
    security_protocol: str = "PLAINTEXT"  # PLAINTEXT | SSL | SASL_PLAINTEXT | SASL_SSL
    sasl_mechanism: str = "PLAIN"  # PLAIN | SCRAM-SHA-256 | SCRAM-SHA-512
    sasl_username: str = ""
    sasl_password: str = ""  # env:NAME or file:PATH
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    request_timeout_s: float = 15.0
    session_timeout_s: float = 10.0


class EventLogSettings(Settings, frozen=True):
    """``[event_log]``"""

    kind: str = "postgres"  # postgres | kafka
    batch_window_ms: float = 3.0  # how long an append waits for company
    batch_records: int = 200
    kafka: KafkaSettings = KafkaSettings()


class KeySettings(Settings, frozen=True):
    """``[keys]``: ``file:PATH`` or ``env:NAME``; empty is generated in the data directory, embedded default only."""

    patient_hash: str = ""
    audit_signing: str = ""


class BackoffSettings(Settings, frozen=True):
    """``backoff`` of ``[delivery]``: seconds."""

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0
    jitter: float = 0.2  # +- this share


class DeliverySettings(Settings, frozen=True):
    """``[delivery]``"""

    max_age_h: float = 24.0
    backoff: BackoffSettings = BackoffSettings()
    workers: int = 32  # attempts in flight per process
    per_endpoint: int = 8  # attempts in flight per endpoint
    breaker_failures: int = 5  # consecutive failures before the endpoint waits as a whole
    drain_s: float = 8.0
    heartbeat_s: float = 5.0
    allowed_networks: tuple[str, ...] = ()  # loopback and private targets only if listed here


class AlertWebhook(Settings, frozen=True):
    """Where a person is told: a webhook signed like notices."""

    url: str
    secret: str = ""


class AlertSettings(Settings, frozen=True):
    """``[alerts]``"""

    webhook: AlertWebhook | None = None
    silent_feed_minutes: float = 0.0  # 0: feeds are not watched for silence


class AuditSettings(Settings, frozen=True):
    """``[audit]``"""

    checkpoint_dir: Path | None = None  # default: DATA_DIR/audit
    checkpoint_records: int = 1000
    checkpoint_s: float = 300.0
    seal_ms: float = 500.0


class RoutingSettings(Settings, frozen=True):
    """``[routing]``"""

    batch_records: int = 200
    directory_refresh_s: float = 1.0


class TlsSettings(Settings, frozen=True):
    """``tls`` of a feed."""

    certfile: Path
    keyfile: Path
    client_ca: Path | None = None  # set: mutual TLS


class FeedSettings(Settings, frozen=True):
    """``[[feeds]]``"""

    name: str
    facility: str
    protocol: str = "mllp"  # mllp | fhir
    profile: str = ""  # default: the defaults of a profile
    listen: str = ""  # mllp: host:port
    shadow: bool = False
    max_frame_bytes: int = 5 * 1024 * 1024
    max_connections: int = 256
    max_in_flight: int = 64  # messages of one connection being stored
    idle_timeout_s: float = 3600.0
    frame_timeout_s: float = 30.0
    tls: TlsSettings | None = None


class Config(Settings, frozen=True):
    """A whole `tocengine.toml`, checked."""

    engine: EngineSettings = EngineSettings()
    http: HttpSettings = HttpSettings()
    admin: AdminSettings = AdminSettings()
    postgres: PostgresSettings = PostgresSettings()
    event_log: EventLogSettings = EventLogSettings()
    keys: KeySettings = KeySettings()
    routing: RoutingSettings = RoutingSettings()
    delivery: DeliverySettings = DeliverySettings()
    alerts: AlertSettings = AlertSettings()
    audit: AuditSettings = AuditSettings()
    identifier_domains: tuple[IdentifierDomain, ...] = ()
    facilities: tuple[SendingFacility, ...] = ()
    feeds: tuple[FeedSettings, ...] = ()
    profiles: dict[str, SourceProfile] = msgspec.field(default_factory=dict)
