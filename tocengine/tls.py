"""Owns the TLS contexts: of a listener, following its files on disk and how long they are good, and of a client."""

import ssl
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from cryptography import x509

from tocengine.config import TlsSettings
from tocengine.errors import ConfigurationError
from tocengine.telemetry import Metrics

LOOK_S: Final = 5.0
"""How often the files of a listener are looked at."""
_DAY_S: Final = 86_400.0
_log = structlog.get_logger()
_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


def tls_context(settings: TlsSettings, *, clients: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
    """The TLS context of a listener: 1.2 at least; where `client_ca` is set, client certificates as `clients` says.

    Raises ConfigurationError where a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = clients
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "the TLS certificate, key or client CA cannot be used", file=str(settings.certfile), hint=str(error)
        ) from error
    return context


def client_tls_context(ca: Path | None, certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext:
    """The TLS context of a client: 1.2 at least, trusts `ca` instead of the system's authorities, shows `certfile`.

    Raises ConfigurationError where a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certfile is not None:
            context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError("the TLS certificate, key or CA cannot be used", hint=str(error)) from error
    if keyfile is not None and certfile is None:
        raise ConfigurationError("a TLS key without its certificate")
    return context


def earliest_expiry(pem: bytes) -> datetime:
    """When the first of the certificates in `pem` ends. Raises ValueError where there is none."""
    return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pem))


class ListenerTls:
    """The context in force. `refresh` takes over changed files; what cannot be used leaves the old one in force."""

    def __init__(
        self, settings: TlsSettings, feed: str, metrics: Metrics, *, clients: ssl.VerifyMode = ssl.CERT_REQUIRED
    ) -> None:
        """`feed` names the listener in logs and metrics. Raises ConfigurationError where a file cannot be used."""
        self._settings, self._feed, self._metrics, self._clients = settings, feed, metrics, clients
        self._files = [path for path in (settings.certfile, settings.keyfile, settings.client_ca) if path]
        self._stamp = self._unusable = self._look()
        self.context = self._load()

    def handing_over(self) -> ssl.SSLContext:
        """A context for a server that keeps the one it was given: each handshake goes on with the one in force."""
        kept = tls_context(self._settings, clients=self._clients)
        kept.sni_callback = self._hand_over
        return kept

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _kept: ssl.SSLContext) -> None:
        connection.context = self.context  # called for every ClientHello, with a server name in it or without

    def refresh(self) -> None:
        """Looks whether a file was replaced. Connections that stand are not touched.

        What cannot be used is tried again at each look: a permission that is put right leaves a file as it was.
        It is counted and logged once.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return
        try:
            self.context = self._load()
        except ConfigurationError:
            if stamp != self._unusable:
                self._unusable = stamp
                self._metrics.tls_reloads.labels(self._feed, "failed").inc()
                _log.error("tls_files_unusable", feed=self._feed, file=str(self._settings.certfile))
            return
        self._stamp = self._unusable = stamp
        self._metrics.tls_reloads.labels(self._feed, "done").inc()
        _log.info("tls_files_reloaded", feed=self._feed)

    def _look(self) -> _Stamp:
        return tuple(map(_stamp_of, self._files))

    def _load(self) -> ssl.SSLContext:
        """The context of the files as they are; their expiry is watched once all of them can be used."""
        context = tls_context(self._settings, clients=self._clients)
        watched: list[tuple[str, Path | None]] = [
            ("server", self._settings.certfile),
            ("client_ca", self._settings.client_ca),
        ]
        expiries: dict[str, datetime] = {}
        for name, path in watched:
            if path is None:
                continue
            try:
                expiries[name] = earliest_expiry(path.read_bytes())
            except (OSError, ValueError) as error:
                raise ConfigurationError("no certificate can be read", file=str(path)) from error
        for name, expiry in expiries.items():
            gauge: Any = self._metrics.tls_expiry_days.labels(self._feed, name)
            gauge.set_function(partial(_days_until, expiry))
        return context


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _days_until(expiry: datetime) -> float:
    return (expiry - datetime.fromtimestamp(time.time(), UTC)).total_seconds() / _DAY_S
