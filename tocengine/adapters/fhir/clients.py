"""Owns who may send FHIR messages: API clients, one feed each, known by a key that is shown once.

A key is 256 random bits, kept as its SHA-256. A slow password hash would protect nothing more: there is no
dictionary of such keys to try, and looking the hash up in a table tells a prober nothing about a key.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from time import monotonic
from types import MappingProxyType
from uuid import UUID, uuid4

import asyncpg
import msgspec
import structlog

from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import FeedName
from tocengine.ports import AuditTrail
from tocengine.postgres import CONNECTION_ERRORS, Pool, load_queries

QUERIES = load_queries(__package__)
KEY_PREFIX = "tock_"  # lets secret scanners recognize a leaked key
REFRESH_S = 1.0
GRACE_S = 300.0
_QUERY_TIMEOUT_S = 2.0
_RETRY_S = 5.0  # while PostgreSQL is away, so that senders do not wait for it one by one
_log = structlog.get_logger()


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client as listed; its key is not known any more."""

    client_id: UUID
    name: str
    feed: FeedName
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None


class NewClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client just added, with its key: the only time it is seen."""

    client: Client
    key: str


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


async def add_client(pool: Pool, audit: AuditTrail, name: str, feed: FeedName, by: str, now: datetime) -> NewClient:
    """Adds a client of `feed` and makes its key. Raises ConfigurationError if the name was ever used."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    client = Client(client_id=uuid4(), name=name, feed=feed, created_at=now, created_by=by)
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(QUERIES["add_client"], client.client_id, name, feed, key_hash(key), now, by)
            await audit.record(connection, [_changed("added", client, by, now)])
    except asyncpg.UniqueViolationError:
        raise ConfigurationError(f"a client named {name!r} exists", hint="revoked names are not used again") from None
    return NewClient(client=client, key=key)


async def list_clients(pool: Pool) -> tuple[Client, ...]:
    """Every client by name, revoked ones too."""
    return tuple(_client(row) for row in await pool.fetch(QUERIES["list_clients"]))


async def revoke_client(pool: Pool, audit: AuditTrail, name: str, by: str, now: datetime) -> Client:
    """Ends a client; servers stop taking its key within 2 s. Raises ConfigurationError if there is none."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(QUERIES["revoke_client"], name, now)
        if row is None:
            raise ConfigurationError(f"there is no active client named {name!r}", hint="tocengine clients list")
        client = _client(row)
        await audit.record(connection, [_changed("revoked", client, by, now)])
    return client


class ClientStore:
    """The clients in force, read again when a request comes and the last reading is older than `refresh_s`.

    While PostgreSQL cannot be reached the last reading counts for `grace_s`, so that an ingest process on Kafka
    keeps taking messages; a revocation cannot have been recorded in that time either.
    """

    def __init__(self, pool: Pool, refresh_s: float = REFRESH_S, grace_s: float = GRACE_S) -> None:
        self._pool = pool
        self._refresh_s, self._grace_s = refresh_s, grace_s
        self._by_hash: Mapping[bytes, Client] = MappingProxyType({})
        self._any = False
        self._read_at: float | None = None
        self._next_at = float("-inf")
        self._reading = asyncio.Lock()

    async def authenticate(self, key: str) -> Client | None:
        """The client whose key this is, if it is in force. Raises UnavailableError where that cannot be known."""
        await self._refresh()
        return self._by_hash.get(key_hash(key))

    async def any_configured(self) -> bool:
        """Whether a client was ever added. Revoking the last one must lock the door, not open it."""
        await self._refresh()
        return self._any

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
            self._any = bool(rows)
            self._by_hash = {row["key_hash"]: _client(row) for row in rows if row["revoked_at"] is None}

    def _known(self) -> bool:
        return self._read_at is not None and monotonic() - self._read_at <= self._grace_s


def _client(row: asyncpg.Record) -> Client:
    return Client(
        client_id=row["client_id"],
        name=row["name"],
        feed=FeedName(row["feed"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
        revoked_at=row["revoked_at"],
    )


def _changed(change: str, client: Client, by: str, now: datetime) -> AuditRecord:
    return AuditRecord(
        action=AuditAction.CLIENT_CHANGED,
        at=now,
        actor=by,
        detail={"change": change, "client": client.name, "client_id": str(client.client_id), "feed": client.feed},
    )
