"""Owns lanes of notices for tests of delivery, and what became of them."""

from uuid import UUID, uuid4

from tests.delivery_setting import (
    clock,
    make_notice,
    make_snapshot,
    states,
)
from tocengine.model.encounter import Snapshot
from tocengine.model.notice import Notice
from tocengine.postgres import Pool

SUNNYSIDE = "facility:sunnyside"


def lane(count: int, recipient: str = SUNNYSIDE) -> list[tuple[Notice, Snapshot]]:
    """`count` notices about one encounter."""
    encounter = uuid4()
    pairs = []
    for _ in range(count):
        snapshot = make_snapshot(encounter)
        pairs.append((make_notice(snapshot, recipient, created_at=clock()), snapshot))
    return pairs


def ids(pairs: list[tuple[Notice, Snapshot]]) -> list[str]:
    return [str(notice.notice_id) for notice, _ in pairs]


async def all_in(pool: Pool, state: str) -> bool:
    return set((await states(pool)).values()) == {state}


async def audit_actions(pool: Pool, notice_id: UUID) -> list[str]:
    rows = await pool.fetch("select action from audit_record where notice_id = $1 order by audit_id", notice_id)
    return [row["action"] for row in rows]


async def open_items(pool: Pool) -> list[tuple[str, str]]:
    rows = await pool.fetch("select kind, subject from work_item where closed_at is null order by opened_at")
    return [(row["kind"], row["subject"]) for row in rows]


async def no_lease_left(pool: Pool) -> bool:
    return not await pool.fetchval("select count(*) from lane where lease is not null")
