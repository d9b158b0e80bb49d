"""Owns what a long life leaves in the database, written by SQL from rows the engine itself made, within minutes.

Rows of the visits that were just loaded are copied under random ids, so that indexes are as large, as deep and as
scattered as they would be; the copies belong to a feed of their own and to days of the past year.
"""

from tocengine.ports import Transaction
from tocengine.postgres import Pool

CHUNK = 20_000
COPIED = {
    # table: what is different in a copy
    "patient": {"patient_id": "gen_random_uuid()", "domain": "'PAST'", "value": "gen_random_uuid()::text"},
    "encounter": {
        "encounter_id": "gen_random_uuid()",
        "domain": "'PAST'",
        "visit_number": "gen_random_uuid()::text",
        "feed": "'past'",
    },
    "encounter_event": {"encounter_id": "gen_random_uuid()", "message_id": "gen_random_uuid()"},
    "message_seen": {
        "day": "current_date - (random() * 360)::int",
        "message_id": "gen_random_uuid()",
        "control_id": "gen_random_uuid()::text",
        "feed": "'past'",
    },
    "snapshot": {"snapshot_id": "gen_random_uuid()", "encounter_id": "gen_random_uuid()"},
    "transition": {
        "transition_id": "gen_random_uuid()",
        "encounter_id": "gen_random_uuid()",
        "message_id": "gen_random_uuid()",
    },
    "decision": {"encounter_id": "gen_random_uuid()", "message_id": "gen_random_uuid()"},
    "notice": {
        "notice_id": "gen_random_uuid()",
        "encounter_id": "gen_random_uuid()",
        "state": "'DELIVERED'",
        "ended_at": "now()",
    },
    "attempt": {"attempt_id": "gen_random_uuid()", "notice_id": "gen_random_uuid()", "ended_at": "now()"},
    "lane": {"encounter_id": "gen_random_uuid()", "due_at": "null::timestamptz", "lease": "null::uuid"},
}
BYTES_PER_MESSAGE = 6_000
"""What a copied message takes in all tables and the WAL, to be held against the free space before."""


async def fill(pool: Pool, messages: int, panel_rows: int) -> None:
    """Writes `messages` messages' worth of past and `panel_rows` patients on panels; then every table is analyzed."""
    if not messages and not panel_rows:
        return
    async with pool.acquire() as connection:
        if messages:
            await connection.execute("select prepare_message_seen(current_date - 361, current_date)")
            for table, changed in COPIED.items():
                await _copy(connection, table, changed, messages)
        if panel_rows:
            await connection.execute(
                "insert into panel_member (recipient_id, domain, value, applied_at) "
                "select 'facility:bench-' || lpad((n % 10)::text, 2, '0'), 'STJ', 'P' || n, now() "
                "from generate_series(1, $1::int) as n",
                panel_rows,
            )
        await connection.execute("vacuum analyze")
        await connection.execute("checkpoint")


async def _copy(connection: Transaction, table: str, changed: dict[str, str], messages: int) -> None:
    rows = await connection.fetch(
        "select column_name from information_schema.columns where table_name = $1 and is_identity = 'NO' "
        "order by ordinal_position",
        table,
    )
    names = [row["column_name"] for row in rows]
    values = [changed.get(name, f"s.{name}") for name in names]
    source = table if await connection.fetchval(f"select count(*) from {table}") else None
    if source is None:
        return
    statement = (
        f"with s as materialized (select * from {table} limit 200), "
        "numbered as (select s.*, row_number() over () as place from s), "
        "have as (select count(*) as count from s) "
        f"insert into {table} ({', '.join(names)}) "
        f"select {', '.join(values)} from generate_series(1, $1::int) as n, have, numbered s "
        "where s.place = n % have.count + 1"
    )
    done = 0
    while done < messages:
        await connection.execute(statement, min(CHUNK, messages - done))
        done += CHUNK
