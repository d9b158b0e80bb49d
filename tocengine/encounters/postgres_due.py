"""Owns the rows of rules that fire later (`encounter_due`): made with the batch that led to the situation, and taken
when their time has come by whichever router looks first."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from tocengine.encounters.due import ASKED, DueKind, due_at
from tocengine.encounters.state import EncounterBody
from tocengine.encounters.tracker import Batch
from tocengine.formats.packing import unpack
from tocengine.model.ids import EncounterId, FeedName
from tocengine.model.work import WorkItem
from tocengine.ports import Transaction, WorkItems
from tocengine.postgres import load_queries

SQL = load_queries(__package__)
AT_ONCE = 100

_decode_body = msgspec.json.Decoder(EncounterBody).decode
StaleAfter = Mapping[FeedName, timedelta]
"""How long a feed's open visit may be silent; one that is not named is never asked about."""


async def store_due(transaction: Transaction, batch: Batch, stale_after: StaleAfter) -> None:
    """Keeps the rules whose situation a batch led to, unless that is over by its end."""
    found = []
    for encounter_id, kind in batch.begun:
        folded = batch.rows[encounter_id].folded
        at = due_at(kind, folded, stale_after.get(folded.feed, timedelta()))
        if at is not None:
            found.append((encounter_id, kind, at))
    if found:
        await transaction.execute(SQL["store_due"], *(list(column) for column in zip(*found, strict=True)))


async def fire_due(transaction: Transaction, work_items: WorkItems, stale_after: StaleAfter, now: datetime) -> int:
    """Asks a person about what is due by `now`, at most `AT_ONCE`; what no longer applies is dropped, and what has
    moved on is put off. Returns how many rows were looked at."""
    rows = await transaction.fetch(SQL["take_due"], now, AT_ONCE)
    items: list[WorkItem] = []
    later: list[tuple[EncounterId, DueKind, datetime]] = []
    for row in rows:
        kind, encounter_id = DueKind(row["kind"]), EncounterId(row["encounter_id"])
        folded = _decode_body(unpack(row["body"])).folded
        at = due_at(kind, folded, stale_after.get(folded.feed, timedelta()))
        if at is None:
            continue
        if at > now:
            later.append((encounter_id, kind, at))
            continue
        work_kind, summary = ASKED[kind]
        items.append(
            WorkItem(
                kind=work_kind,
                subject=str(encounter_id),
                summary=summary,
                opened_at=at,
                feed=folded.feed,
                encounter_id=encounter_id,
            )
        )
    if later:
        await transaction.execute(SQL["store_due"], *(list(column) for column in zip(*later, strict=True)))
    if items:
        await work_items.open(transaction, items)
    return len(rows)
