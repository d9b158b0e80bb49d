"""Work items on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import msgspec

from tocengine.model.work import WorkItem, WorkKind
from tocengine.postgres import Pool
from tocengine.work_items import PostgresWorkItems

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SILENT = WorkItem(
    kind=WorkKind.FEED_SILENT, subject="stj-adt", summary="stj-adt is silent", opened_at=NOW, feed="stj-adt"
)
PAUSED = WorkItem(
    kind=WorkKind.ENDPOINT_PAUSED, subject="ehr", summary="ehr is paused", opened_at=NOW + timedelta(seconds=1)
)


async def test_what_is_open_is_not_opened_again(pool: Pool) -> None:
    items = PostgresWorkItems()
    later = msgspec.structs.replace(SILENT, opened_at=NOW + timedelta(hours=1))
    async with pool.acquire() as connection, connection.transaction():
        await items.open(connection, [])
        await items.open(connection, [SILENT, PAUSED, SILENT])
        await items.open(connection, [later])
        assert [item for _, item in await items.open_items(connection)] == [SILENT, PAUSED]
        assert [item for _, item in await items.open_items(connection, WorkKind.ENDPOINT_PAUSED)] == [PAUSED]
        assert await items.count_open(connection) == {WorkKind.FEED_SILENT: 1, WorkKind.ENDPOINT_PAUSED: 1}


async def test_a_closed_item_stays_closed_under_replay_and_opens_for_a_new_cause(pool: Pool) -> None:
    items = PostgresWorkItems()
    later = msgspec.structs.replace(SILENT, opened_at=NOW + timedelta(hours=1))
    async with pool.acquire() as connection, connection.transaction():
        await items.open(connection, [SILENT])
        assert await items.close(connection, [SILENT.work_item_id], "user:ann", "called them", NOW) == 1
        assert await items.close(connection, [SILENT.work_item_id], "user:ann", "called them", NOW) == 0
        await items.open(connection, [SILENT])
        assert await items.open_items(connection) == []
        await items.open(connection, [later])
        assert [item for _, item in await items.open_items(connection)] == [later]
        assert await items.close_subjects(connection, SILENT.kind, ["stj-adt"], "engine", "it speaks", NOW) == 1


async def test_each_item_is_told_once(pool: Pool) -> None:
    items = PostgresWorkItems()
    async with pool.acquire() as one, pool.acquire() as two:
        await items.open(one, [SILENT, PAUSED])
        async with one.transaction(), two.transaction():
            claimed = await items.claim_unalerted(one)
            assert [item for _, item in claimed] == [SILENT, PAUSED]
            assert await items.claim_unalerted(two) == []  # another process does not tell it a second time
            await items.mark_alerted(one, [work_item_id for work_item_id, _ in claimed], NOW)
        assert await items.claim_unalerted(two) == []
