"""Owns the settings of the embedded server: fitted to a laptop, and honest about durability."""

from pathlib import Path

from tocengine.embedded.binaries import Binaries

_DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}
_FOR_UNIT_TESTS = dict.fromkeys(_DURABLE, "off")
_REACH = {
    "listen_addresses": "",  # no TCP: the unix socket alone
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
}
_SIZES = {
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "wal_buffers": "16MB",
    "max_wal_size": "1GB",  # bounds crash recovery to a few seconds
    "random_page_cost": "1.1",
    "jit": "off",
}
_TENDING = {
    "autovacuum_naptime": "15s",  # lanes and notices are updated all the time
    "autovacuum_vacuum_scale_factor": "0.05",
    "idle_in_transaction_session_timeout": "60s",
}
_LOGS = {  # an error's statement, parameters and DETAIL could carry patient data: none of them is logged
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def server_settings(binaries: Binaries, sockets: Path, *, durable: bool) -> dict[str, str]:
    """Every setting given on the server's command line, so that a file in the data directory cannot override it."""
    compression = {"default_toast_compression": "lz4", "wal_compression": "lz4"} if binaries.has_lz4 else {}
    return {
        "unix_socket_directories": str(sockets),
        **_REACH,
        **_SIZES,
        **_TENDING,
        **_LOGS,
        **compression,
        **(_DURABLE if durable else _FOR_UNIT_TESTS),
    }
