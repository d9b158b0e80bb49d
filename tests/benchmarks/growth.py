"""Owns what a long life leaves in the database, written by SQL from rows the engine itself made, within minutes.

Rows of visits that ran their course are copied under random ids, so that indexes are as large, as deep and as scattered
as they would be; the copies belong to a feed of their own and to days of the past year. The event log is not copied: it
is bounded by its retention, written at one end and read there.
"""

from tocengine.ports import Transaction
from tocengine.postgres import Pool, session

CHUNK = 50_000
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
    "audit_record": {  # before everything that was sealed, so that nobody seals it again
        "xid": "'1'::xid8",
        "audit_id": "nextval('past_audit')",
        "encounter_id": "case when s.encounter_id is not null then gen_random_uuid() end",
        "message_id": "gen_random_uuid()",
    },
}
ROWS_PER_MESSAGE = {"audit_record": 3}
BYTES_PER_MESSAGE = 11_000
"""What a copied message takes in all tables and the WAL, to be held against the free space before."""
FULL_AS_GROWN = " WITH (fillfactor='70')"
REBUILT = 50_000
"""From so many messages on, indexes are dropped before the copies and made after them."""
BULK = """set session_replication_role = replica; set synchronous_commit = off; set work_mem = '64MB';
set maintenance_work_mem = '256MB'"""
"""Copies keep no foreign key and are not worth waiting for; the server's superuser may say so."""


async def fill(pool: Pool, messages: int, panel_rows: int) -> None:
    """Adds `messages` messages' worth of past and `panel_rows` patients on panels; the tables are analyzed then."""
    async with session(pool) as connection:
        if messages:
            await connection.execute("select prepare_message_seen(current_date - 361, current_date)")
            await connection.execute("create sequence if not exists past_audit")
            await connection.execute(BULK)
            for table, changed in COPIED.items():
                rows = messages * ROWS_PER_MESSAGE.get(table, 1)
                if messages < REBUILT:
                    await _copy(connection, table, changed, rows)
                    continue
                async with connection.transaction():  # nobody meets the table without them
                    made = await _without_indexes(connection, table)
                    await _copy(connection, table, changed, rows)
                    for statement in made:
                        await connection.execute(statement, timeout=1200)
        if panel_rows:
            await connection.execute(
                "insert into panel_member (recipient_id, domain, value, applied_at) "
                "select 'facility:bench-' || lpad((n % 10)::text, 2, '0'), 'STJ', 'P' || n, now() "
                "from generate_series(1, $1::int) as n",
                panel_rows,
            )
        await connection.execute(f"vacuum analyze {', '.join((*COPIED, 'panel_member'))}")
        await connection.execute("checkpoint")


async def _without_indexes(connection: Transaction, table: str) -> list[str]:
    """Drops the indexes of a table; returns what makes them again, about as full as an index that grew is."""
    rows = await connection.fetch(
        """select format('alter table %I drop constraint %I', $1::text, c.conname) as drop,
                  format('alter table %I add constraint %I %s with (fillfactor = 70)', $1::text, c.conname,
                         pg_get_constraintdef(c.oid)) as make
           from pg_constraint c
           where c.conrelid = $1::text::regclass and c.contype in ('p', 'u')
             and not exists (select from pg_constraint f where f.confrelid = c.conrelid)
           union all
           select format('drop index %I', i.indexrelid::regclass),
                  regexp_replace(replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON '), '( WHERE .*)?$',
                                 ' with (fillfactor = 70)\\1')
           from pg_index i
           where i.indrelid = $1::text::regclass
             and not exists (select from pg_constraint c where c.conindid = i.indexrelid)""",
        table,
    )
    for row in rows:
        await connection.execute(row["drop"])
    return [row["make"].replace(FULL_AS_GROWN, "", 1) for row in rows]  # where it was made that way before


async def _copy(connection: Transaction, table: str, changed: dict[str, str], rows: int) -> None:
    columns = await connection.fetch(
        "select column_name, is_identity = 'YES' as numbered from information_schema.columns "
        "where table_schema = 'public' and table_name = $1 order by ordinal_position",
        table,
    )
    names = [column["column_name"] for column in columns if not column["numbered"] or column["column_name"] in changed]
    values = [changed.get(name, f"s.{name}") for name in names]
    statement = (
        f"with s as materialized (select * from {table} limit 200), "
        "numbered as (select s.*, row_number() over () as place from s), "
        "have as (select count(*) as count from s) "
        f"insert into {table} ({', '.join(names)}) overriding system value "
        f"select {', '.join(values)} from generate_series(1, $1::int) as n, have, numbered s "
        "where s.place = n % have.count + 1"
    )
    for done in range(0, rows, CHUNK):
        await connection.execute(statement, min(CHUNK, rows - done), timeout=600)
