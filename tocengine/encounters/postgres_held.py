"""Owns the rows of events that are held back (`held_event`): written in the transaction of the batch that held them,
taken out in the one that applies them, so that a crash at any point neither loses nor repeats one."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg
import msgspec

from tocengine.encounters.holdback import Waiting, partition_of, released
from tocengine.errors import HeldRowError
from tocengine.formats.packing import pack, unpack
from tocengine.model.event import Event, EventRecord, LoggedEvent
from tocengine.model.ids import EncounterId, MessageId
from tocengine.ports import Transaction
from tocengine.postgres import load_queries

SQL = load_queries(__package__)

_encode = msgspec.json.Encoder().encode
_decode_event = msgspec.json.Decoder(Event).decode


async def read_waiting(transaction: Transaction, records: Sequence[EventRecord]) -> list[Waiting]:
    """The events held back that `records`, a batch, may release or replace. Raises HeldRowError for those that cannot
    be read."""
    if not records:
        return []
    until: dict[int, datetime] = {}
    for record in records:
        partition, received = partition_of(record), record.summary.received_at
        until[partition] = max(received, until.get(partition, received))
    visits = {record.summary.visit for record in records if record.summary.visit is not None}
    rows = await transaction.fetch(
        SQL["read_waiting"],
        list(until),
        list(until.values()),
        [visit.encounter_id for visit in visits],
        [record.summary.message_id for record in records if record.summary.revision],
    )
    return _read(rows)


async def count_waiting(transaction: Transaction) -> int:
    """How many events are held back."""
    return int(await transaction.fetchval(SQL["count_waiting"]))


async def read_ended(transaction: Transaction, until: Mapping[int, datetime]) -> list[EventRecord]:
    """The events whose window has ended by `until`, by partition, as they are to be applied, in order. Raises
    HeldRowError for those that cannot be read."""
    rows = await transaction.fetch(SQL["read_ended"], list(until), list(until.values()))
    found = _read(rows)
    found.sort(key=lambda each: (each.release_at, each.record.summary.order_key))
    return [released(each.record, each.release_at) for each in found]


async def take_out(transaction: Transaction, records: Sequence[EventRecord]) -> list[EventRecord]:
    """Those of `records` that were still held back; they no longer are."""
    if not records:
        return []
    rows = await transaction.fetch(
        SQL["take_out"],
        [record.summary.message_id for record in records],
        [record.summary.part for record in records],
    )
    there = {(row["message_id"], row["part"]) for row in rows}
    return [record for record in records if (record.summary.message_id, record.summary.part) in there]


async def store_waiting(transaction: Transaction, waiting: Sequence[Waiting]) -> None:
    """Keeps what a batch held back."""
    fresh = [each for each in waiting if not each.stored]
    if fresh:
        await transaction.execute(
            SQL["store_waiting"],
            [each.record.summary.message_id for each in fresh],
            [each.record.summary.part for each in fresh],
            [each.partition for each in fresh],
            [each.encounter_id for each in fresh],
            [each.release_at for each in fresh],
            [pack(_encode(each.record.summary)) for each in fresh],
            [pack(bytes(each.record.fhir)) for each in fresh],
        )


def _read(rows: Sequence[asyncpg.Record]) -> list[Waiting]:
    found: list[Waiting] = []
    unreadable: dict[tuple[MessageId, int], bytes] = {}
    for row in rows:
        try:
            found.append(_waiting(row))
        except (ValueError, msgspec.DecodeError):
            unreadable[MessageId(row["message_id"]), row["part"]] = row["summary"]
    if unreadable:
        raise HeldRowError(unreadable)
    return found


def _waiting(row: asyncpg.Record) -> Waiting:
    record = LoggedEvent(_decode_event(unpack(row["summary"])), msgspec.Raw(unpack(row["fhir"])), row["partition"])
    return Waiting(
        record=record,
        encounter_id=EncounterId(row["encounter_id"]),
        partition=row["partition"],
        release_at=row["release_at"],
        stored=True,
    )
