"""Owns the facilities a load is told to: added to the engine's directory before it, retired after it."""

import base64
from datetime import datetime
from pathlib import Path

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.model.directory import Alias, ChannelKind, Endpoint, Level, Recipient, RecipientKind, Subscription
from tocengine.model.ids import EndpointId, RecipientId
from tocengine.postgres import Pool
from tocengine.routing.apply import apply, plan
from tocengine.routing.directory_file import DirectoryFile, recipient_id
from tocengine.routing.postgres import load_directory
from tocengine.simulation.load.visits import FACILITIES, facility_alias, facility_id, facility_npi

ACTOR = "bench"


def facility(index: int, port: int, secret: bytes) -> Recipient:
    """The facility with this index, at a receiver on loopback."""
    own = facility_id(index)
    endpoint = Endpoint(
        id=EndpointId(f"{own}-hook"),
        channel=ChannelKind.WEBHOOK,
        url=f"http://127.0.0.1:{port}/webhook/{own}",
        secrets=("whsec_" + base64.b64encode(secret).decode(),),
    )
    return Recipient(
        recipient_id=recipient_id(RecipientKind.FACILITY, own),
        kind=RecipientKind.FACILITY,
        name=f"Benchmark Nursing {index:02d}",
        type="SNF",
        npi=facility_npi(index),
        aliases=(Alias(facility_alias(index)),),
        endpoints=(endpoint,),
        subscription=Subscription(level=Level.FULL),
    )


async def add(pool: Pool, recipients: tuple[Recipient, ...], now: datetime) -> None:
    """Adds or changes these; nobody else is touched. A running engine follows within its refresh interval."""
    await _apply(pool, recipients, now, prune=False)


async def retire(pool: Pool, retired: frozenset[RecipientId], now: datetime) -> None:
    """Retires these; everybody else stays."""
    async with pool.acquire() as connection:
        directory = await load_directory(connection)
    kept = tuple(each for own, each in directory.recipients.items() if own not in retired)
    await _apply(pool, kept, now, prune=True)


def all_of(port: int, secret: bytes) -> tuple[Recipient, ...]:
    """Every facility that a load is told to."""
    return tuple(facility(index, port, secret) for index in range(FACILITIES))


async def _apply(pool: Pool, recipients: tuple[Recipient, ...], now: datetime, *, prune: bool) -> None:
    file = DirectoryFile(path=Path("bench"), recipients=recipients, panels=())
    async with pool.acquire() as connection:
        await apply(connection, await plan(connection, file, prune), ACTOR, now, PostgresAuditTrail())
