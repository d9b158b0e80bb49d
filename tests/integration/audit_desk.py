"""Owns an audit log of three blocks for tests, with its sealer and its verifier."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tocengine.audit import PostgresAuditTrail, Sealer, VerifyReport, verify
from tocengine.config import AuditSettings
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.ids import EncounterId, MessageId, NoticeId, RecipientId, derive
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DEADLINE_S = 10.0


def record(number: int) -> AuditRecord:
    return AuditRecord(
        action=AuditAction.ATTEMPT_ENDED if number % 2 else AuditAction.MESSAGE_TRACKED,
        at=NOON + timedelta(seconds=number),
        actor="tocengine" if number % 3 else "usuario-ñ",
        message_id=MessageId(derive("m", str(number))) if number % 2 else None,
        encounter_id=EncounterId(derive("e", str(number))),
        notice_id=NoticeId(derive("n", str(number))) if number % 5 == 0 else None,
        recipient_id=RecipientId(f"facility:f{number}") if number % 4 else None,
        detail={"zulu": number, "alpha": [1, "x"], "status": 200},
    )


async def write(pool: Pool, numbers: range) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await PostgresAuditTrail().record(connection, [record(number) for number in numbers])


class Desk:
    """A log of 30 rows in three blocks, with a checkpoint after the second and one after the third."""

    def __init__(self, pool: Pool, directory: Path) -> None:
        self.pool, self.directory, self.metrics = pool, directory, Metrics()

    async def prepare(self) -> None:
        sealer = self.sealer()
        for start in (0, 10, 20):
            await write(self.pool, range(start, start + 10))
            async with self.pool.acquire() as connection:
                await sealer.seal_ripe(connection, last=start > 0)

    def sealer(self, **settings: float) -> Sealer:
        chosen = AuditSettings(
            checkpoint_records=int(settings.get("checkpoint_records", 1000)),
            checkpoint_s=settings.get("checkpoint_s", 300.0),
            seal_ms=settings.get("seal_ms", 5.0),
        )
        return Sealer(self.pool, chosen, self.directory, KEY, PostgresWorkItems(), self.metrics, lambda: NOON)

    async def verify(self) -> VerifyReport:
        return await verify(self.pool, self.directory, KEY.public_key())

    async def tamper(self, *statements: str) -> None:
        """As a superuser would: triggers off, rows changed, triggers on again."""
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            for statement in statements:
                await connection.execute(statement)

    async def ids(self) -> list[int]:
        rows = await self.pool.fetch("select audit_id from audit_record order by xid, audit_id")
        return [row[0] for row in rows]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - the condition is in the database
            await asyncio.sleep(0.01)
