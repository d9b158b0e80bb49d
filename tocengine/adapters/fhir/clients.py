"""Owns who may send FHIR messages: API clients, one feed each, and what each proves itself by.

A key is 256 random bits, kept as its SHA-256. A slow password hash would protect nothing more: there is no
dictionary of such keys to try, and looking the hash up in a table tells a prober nothing about a key. A certificate is
pinned by the SHA-256 of its DER form; of SMART Backend Services the client's public keys are kept.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from time import monotonic
from types import MappingProxyType
from uuid import UUID, uuid4

import asyncpg
import msgspec
import structlog

from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import FeedName
from tocengine.ports import AuditTrail, Transaction
from tocengine.postgres import CONNECTION_ERRORS, Pool, load_queries

QUERIES = load_queries(__package__)
KEY_PREFIX = "tock_"  # lets secret scanners recognize a leaked key
DEFAULT_SCOPES = "system/*.c"
REFRESH_S = 1.0
GRACE_S = 300.0
_QUERY_TIMEOUT_S = 2.0
_RETRY_S = 5.0  # while PostgreSQL is away, so that senders do not wait for it one by one
_log = structlog.get_logger()


class CredentialKind(StrEnum):
    """What a client proves itself by."""

    KEY = "KEY"
    CERTIFICATE = "CERTIFICATE"
    JWKS = "JWKS"


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client as listed; its key is not known any more."""

    client_id: UUID
    name: str
    feed: FeedName
    scopes: str = DEFAULT_SCOPES
    requests_per_minute: int | None = None
    credentials: tuple[CredentialKind, ...] = ()
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What to give a client: certificates in DER, a JWK Set in JSON, and whether a key is made."""

    key: bool = True
    certificates: tuple[bytes, ...] = ()
    jwks: bytes | None = None


class NewClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client just added or renewed, with its key, if one was made: the only time it is seen."""

    client_id: UUID
    key: str = ""


class KnownClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client in force, with the public keys it signs with."""

    client: Client
    key_sets: tuple[bytes, ...] = ()


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def certificate_digest(der: bytes) -> bytes:
    """What is kept of a certificate."""
    return hashlib.sha256(der).digest()


async def add_client(
    pool: Pool,
    audit: AuditTrail,
    name: str,
    feed: FeedName,
    by: str,
    now: datetime,
    credentials: Credentials = Credentials(),  # noqa: B008 - frozen
    *,
    scopes: str = DEFAULT_SCOPES,
    requests_per_minute: int | None = None,
) -> NewClient:
    """Adds a client of `feed` with its credentials. Raises ConfigurationError if the name or a certificate is taken."""
    client_id = uuid4()
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(QUERIES["add_client"], client_id, name, feed, scopes, requests_per_minute, now, by)
            key = await _give(connection, client_id, credentials, now)
            await audit.record(connection, [_changed("added", client_id, name, by, now, credentials)])
    except asyncpg.UniqueViolationError as error:
        raise _taken(error, name) from None
    return NewClient(client_id=client_id, key=key)


async def renew_client(
    pool: Pool, audit: AuditTrail, name: str, by: str, now: datetime, credentials: Credentials, *, keep: bool
) -> NewClient:
    """Gives a client new credentials; the old ones of the same kinds end at once unless `keep`.

    Raises ConfigurationError if there is no such client in force.
    """
    try:
        async with pool.acquire() as connection, connection.transaction():
            client_id = await connection.fetchval(QUERIES["active_client"], name)
            if client_id is None:
                raise _no_such(name)
            for kind in () if keep else _kinds(credentials):
                await connection.execute(QUERIES["remove_credentials"], client_id, kind)
            key = await _give(connection, client_id, credentials, now)
            await audit.record(connection, [_changed("renewed", client_id, name, by, now, credentials)])
    except asyncpg.UniqueViolationError as error:
        raise _taken(error, name) from None
    return NewClient(client_id=client_id, key=key)


async def revoke_client(pool: Pool, audit: AuditTrail, name: str, by: str, now: datetime) -> None:
    """Ends a client; servers stop taking its credentials within 2 s. Raises ConfigurationError if there is none."""
    async with pool.acquire() as connection, connection.transaction():
        client_id = await connection.fetchval(QUERIES["revoke_client"], name, now)
        if client_id is None:
            raise _no_such(name)
        await audit.record(connection, [_changed("revoked", client_id, name, by, now)])


async def list_clients(pool: Pool) -> tuple[Client, ...]:
    """Every client by name, revoked ones too."""
    return tuple(_client(row) for row in await pool.fetch(QUERIES["list_clients"]))


class ClientStore:
    """The clients in force, read again when a request comes and the last reading is older than `refresh_s`.

    While PostgreSQL cannot be reached the last reading counts for `grace_s`, so that an ingest process on Kafka
    keeps taking messages; a revocation cannot have been recorded in that time either.
    """

    def __init__(self, pool: Pool, refresh_s: float = REFRESH_S, grace_s: float = GRACE_S) -> None:
        self._pool = pool
        self._refresh_s, self._grace_s = refresh_s, grace_s
        self._by_digest: Mapping[bytes, KnownClient] = MappingProxyType({})
        self._by_id: Mapping[UUID, KnownClient] = MappingProxyType({})
        self._any = False
        self._read_at: float | None = None
        self._next_at = float("-inf")
        self._reading = asyncio.Lock()

    async def by_key(self, key: str) -> Client | None:
        """The client whose key this is, if it is in force. Raises UnavailableError where that cannot be known."""
        await self._refresh()
        found = self._by_digest.get(key_hash(key))
        return found.client if found else None

    async def by_certificate(self, der: bytes) -> Client | None:
        """The client this certificate is pinned to, if it is in force. Raises UnavailableError."""
        await self._refresh()
        found = self._by_digest.get(certificate_digest(der))
        return found.client if found else None

    async def by_id(self, client_id: UUID) -> KnownClient | None:
        """The client of this id, if it is in force. Raises UnavailableError."""
        await self._refresh()
        return self._by_id.get(client_id)

    async def any_configured(self) -> bool:
        """Whether a client was ever added. Revoking the last one must lock the door, not open it."""
        await self._refresh()
        return self._any

    async def use_assertion(self, client_id: UUID, jti: str, expires_at: datetime, now: datetime) -> bool:
        """False where the client used an assertion of this id before. Raises UnavailableError."""
        digest = hashlib.sha256(jti.encode()).digest()
        try:
            async with asyncio.timeout(_QUERY_TIMEOUT_S):
                await self._pool.execute(QUERIES["forget_assertions"], now)
                return bool(await self._pool.fetchval(QUERIES["use_assertion"], client_id, digest, expires_at))
        except CONNECTION_ERRORS as error:
            raise UnavailableError("assertions cannot be recorded") from error

    async def _refresh(self) -> None:
        async with self._reading:
            if monotonic() < self._next_at and self._known():
                return
            try:
                async with asyncio.timeout(_QUERY_TIMEOUT_S):
                    rows = await self._pool.fetch(QUERIES["list_clients"])
            except CONNECTION_ERRORS as error:
                self._next_at = monotonic() + _RETRY_S
                if not self._known():
                    raise UnavailableError("API clients cannot be read") from error
                _log.warning("API clients not refreshed", error_type=type(error).__name__)
                return
            self._read_at = monotonic()
            self._next_at = self._read_at + self._refresh_s
            self._take(rows)

    def _take(self, rows: Sequence[asyncpg.Record]) -> None:
        self._any = bool(rows)
        by_digest: dict[bytes, KnownClient] = {}
        by_id: dict[UUID, KnownClient] = {}
        for row in rows:
            if row["revoked_at"] is None:
                key_sets = tuple(each for each in row["key_sets"] if each is not None)
                known = KnownClient(client=_client(row), key_sets=key_sets)
                by_id[row["client_id"]] = known
                by_digest |= {digest: known for digest in row["digests"] if digest is not None}
        self._by_digest, self._by_id = by_digest, by_id

    def _known(self) -> bool:
        return self._read_at is not None and monotonic() - self._read_at <= self._grace_s


def _kinds(credentials: Credentials) -> list[CredentialKind]:
    kinds = [CredentialKind.KEY] if credentials.key else []
    kinds += [CredentialKind.CERTIFICATE] if credentials.certificates else []
    return kinds + ([CredentialKind.JWKS] if credentials.jwks is not None else [])


async def _give(connection: Transaction, client_id: UUID, credentials: Credentials, now: datetime) -> str:
    key = KEY_PREFIX + secrets.token_urlsafe(32) if credentials.key else ""
    rows: list[tuple[CredentialKind, bytes | None, bytes | None]] = []
    if key:
        rows.append((CredentialKind.KEY, key_hash(key), None))
    rows += [(CredentialKind.CERTIFICATE, certificate_digest(der), None) for der in credentials.certificates]
    if credentials.jwks is not None:
        rows.append((CredentialKind.JWKS, None, credentials.jwks))
    kinds, digests, key_sets = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    await connection.execute(QUERIES["add_credentials"], client_id, kinds, digests, key_sets, now)
    return key


def _client(row: asyncpg.Record) -> Client:
    return Client(
        client_id=row["client_id"],
        name=row["name"],
        feed=FeedName(row["feed"]),
        scopes=row["scopes"],
        requests_per_minute=row["requests_per_minute"],
        credentials=tuple(CredentialKind(kind) for kind in row["kinds"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
        revoked_at=row["revoked_at"],
    )


def _taken(error: asyncpg.UniqueViolationError, name: str) -> ConfigurationError:
    if error.table_name == "fhir_credential":
        return ConfigurationError("the certificate is pinned to a client already", hint="tocengine clients list")
    return ConfigurationError(f"a client named {name!r} exists", hint="revoked names are not used again")


def _no_such(name: str) -> ConfigurationError:
    return ConfigurationError(f"there is no active client named {name!r}", hint="tocengine clients list")


def _changed(
    change: str, client_id: UUID, name: str, by: str, now: datetime, credentials: Credentials | None = None
) -> AuditRecord:
    detail: dict[str, object] = {"change": change, "client": name, "client_id": str(client_id)}
    if credentials is not None:
        detail["credentials"] = [kind.value for kind in _kinds(credentials)]
    return AuditRecord(action=AuditAction.CLIENT_CHANGED, at=now, actor=by, detail=detail)
