"""Owns the TLS of a listener: its context, which follows the files on disk, and which certificates are let in."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from tocengine.config import TlsSettings
from tocengine.credentials import tls_context
from tocengine.errors import ConfigurationError
from tocengine.telemetry import Metrics

_log = structlog.get_logger()
_DAY_S: Final = 86_400.0
FINGERPRINT: Final = "sha256:"
_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


def earliest_expiry(pem: bytes) -> datetime:
    """When the first of the certificates in `pem` ends. Raises ValueError where there is none."""
    return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pem))


def names_of(certificate: bytes) -> frozenset[str]:
    """All by which a certificate (DER) may be known: its fingerprint, common names, and alternative names."""
    parsed = x509.load_der_x509_certificate(certificate)
    names = {FINGERPRINT + parsed.fingerprint(SHA256()).hex()}
    names.update(str(each.value) for each in parsed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
    try:
        alternative = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
            names.update(alternative.get_values_for_type(kind))
    return frozenset(map(_folded, names))


def _folded(name: str) -> str:
    folded = name.strip().casefold()
    return folded.replace(":", "").replace("sha256", FINGERPRINT, 1) if folded.startswith(FINGERPRINT) else folded


def is_pinned(certificate: bytes | None, pins: Sequence[str]) -> bool:
    """Whether a client's certificate (DER) is one of those a feed is for; `pins` are ``sha256:HEX`` or names.

    Without pins every certificate of the authority is.
    """
    if not pins:
        return True
    return certificate is not None and not names_of(certificate).isdisjoint(map(_folded, pins))


class ListenerTls:
    """The context in force. `refresh` takes over changed files; what cannot be used leaves the old one in force."""

    def __init__(self, settings: TlsSettings, feed: str, metrics: Metrics) -> None:
        """Raises ConfigurationError where a file cannot be used."""
        self._settings, self._feed, self._metrics = settings, feed, metrics
        self._files = [path for path in (settings.certfile, settings.keyfile, settings.client_ca) if path]
        self._stamp = self._look()
        self.context = tls_context(settings)
        self._watch_expiry()

    def refresh(self) -> None:
        """Looks whether a file was replaced. Connections that stand are not touched."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.context = tls_context(self._settings)
            self._watch_expiry()
        except ConfigurationError:  # half-written files are looked at again when they change
            self._metrics.tls_reloads.labels(self._feed, "failed").inc()
            _log.error("tls_files_unusable", feed=self._feed, file=str(self._settings.certfile))
            return
        self._metrics.tls_reloads.labels(self._feed, "done").inc()
        _log.info("tls_files_reloaded", feed=self._feed)

    def _look(self) -> _Stamp:
        return tuple(map(_stamp_of, self._files))

    def _watch_expiry(self) -> None:
        watched: list[tuple[str, Path | None]] = [
            ("server", self._settings.certfile),
            ("client_ca", self._settings.client_ca),
        ]
        for name, path in watched:
            if path is None:
                continue
            try:
                expiry = earliest_expiry(path.read_bytes())
            except (OSError, ValueError) as error:
                raise ConfigurationError("no certificate can be read", file=str(path)) from error
            gauge: Any = self._metrics.tls_expiry_days.labels(self._feed, name)
            gauge.set_function(partial(_days_until, expiry))


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _days_until(expiry: datetime) -> float:
    return (expiry - datetime.fromtimestamp(time.time(), UTC)).total_seconds() / _DAY_S
