"""Owns work items in PostgreSQL: opened in the transaction of what caused them, told once, closed by a person."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from tocengine.model.ids import WorkItemId
from tocengine.model.work import WorkItem, WorkKind
from tocengine.ports import Transaction
from tocengine.postgres import load_queries

QUERIES = load_queries("tocengine.work_items")


class PostgresWorkItems:
    """`ports.WorkItems`, and what commands and alerts need besides."""

    async def open(self, transaction: Transaction, items: Sequence[WorkItem]) -> None:
        """An item whose (kind, subject) is already open changes nothing; neither does a replay of a closed one."""
        if not items:
            return
        await transaction.execute(
            QUERIES["open_items"],
            [item.work_item_id for item in items],
            [item.kind.value for item in items],
            [item.subject for item in items],
            [item.summary for item in items],
            [item.feed for item in items],
            [item.message_id for item in items],
            [item.encounter_id for item in items],
            [item.notice_id for item in items],
            [item.opened_at for item in items],
        )

    async def open_items(
        self, transaction: Transaction, kind: WorkKind | None = None, limit: int = 1000
    ) -> Sequence[tuple[WorkItemId, WorkItem]]:
        """What is open, oldest first, at most `limit`."""
        rows = await transaction.fetch(QUERIES["open_list"], kind and kind.value, limit)
        return [_work_item(row) for row in rows]

    async def count_open(self, transaction: Transaction) -> Mapping[WorkKind, int]:
        """Open items by kind; kinds without any are left out."""
        return {WorkKind(row["kind"]): row["items"] for row in await transaction.fetch(QUERIES["count_open"])}

    async def close(
        self, transaction: Transaction, items: Sequence[WorkItemId], by: str, resolution: str, now: datetime
    ) -> int:
        """Closes by id; returns how many were open."""
        return len(await transaction.fetch(QUERIES["close_items"], list(items), now, by, resolution))

    async def close_subjects(
        self,
        transaction: Transaction,
        kind: WorkKind,
        subjects: Sequence[str],
        by: str,
        resolution: str,
        now: datetime,
    ) -> int:
        """Closes what the engine sees to be put right; returns how many were open."""
        rows = await transaction.fetch(QUERIES["close_subjects"], kind.value, list(subjects), now, by, resolution)
        return len(rows)

    async def claim_unalerted(
        self, transaction: Transaction, limit: int = 100
    ) -> Sequence[tuple[WorkItemId, WorkItem]]:
        """Items nobody was told of, locked until the transaction ends; `mark_alerted` in the same one."""
        return [_work_item(row) for row in await transaction.fetch(QUERIES["claim_unalerted"], limit)]

    async def mark_alerted(self, transaction: Transaction, items: Sequence[WorkItemId], now: datetime) -> None:
        """Records that the alert webhook took them."""
        await transaction.execute(QUERIES["mark_alerted"], list(items), now)


def _work_item(row: asyncpg.Record) -> tuple[WorkItemId, WorkItem]:
    item = WorkItem(
        kind=WorkKind(row["kind"]),
        subject=row["subject"],
        summary=row["summary"],
        opened_at=row["opened_at"],
        feed=row["feed"],
        message_id=row["message_id"],
        encounter_id=row["encounter_id"],
        notice_id=row["notice_id"],
    )
    return WorkItemId(row["work_item_id"]), item
