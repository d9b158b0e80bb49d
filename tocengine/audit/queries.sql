-- name: record appends audit rows, all of a call in one statement
insert into audit_record (at, action, actor, message_id, encounter_id, notice_id, recipient_id, detail)
select * from unnest($1::timestamptz[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::bytea[]);

-- name: lead takes the sealer's lock for this session, or says that another one has it
select pg_try_advisory_lock($1);

-- name: seal makes the next block of at most $1 rows; the byte form is that of audit/records.py and audit/chain.py
-- Rows below the snapshot's xmin belong to transactions that have ended: no row can still appear before them.
with tip as materialized (
    select block_number, hash, record_count, last_xid, last_audit_id
    from audit_block order by block_number desc limit 1
), due as materialized (
    select audit_id, xid, sha256(
        int8send(audit_id) || xid8send(xid) || timestamptz_send(at)
        || int4send(octet_length(action)) || convert_to(action, 'UTF8')
        || int4send(octet_length(actor)) || convert_to(actor, 'UTF8')
        || coalesce('\x01'::bytea || uuid_send(message_id), '\x00')
        || coalesce('\x01'::bytea || uuid_send(encounter_id), '\x00')
        || coalesce('\x01'::bytea || uuid_send(notice_id), '\x00')
        || coalesce('\x01'::bytea || int4send(octet_length(recipient_id)) || convert_to(recipient_id, 'UTF8'), '\x00')
        || int4send(octet_length(detail)) || detail) as row_hash
    from audit_record
    where xid < pg_snapshot_xmin(pg_current_snapshot())
      and (xid, audit_id) > (coalesce((select last_xid from tip), '0'), coalesce((select last_audit_id from tip), 0))
    order by xid, audit_id
    limit $1
), rolled as (
    select count(*) as records,
           array_agg(audit_id order by xid, audit_id) as audit_ids,
           array_agg(xid order by xid, audit_id) as xids,
           string_agg(int8send(audit_id), '' order by xid, audit_id) as id_bytes,
           string_agg(row_hash, '' order by xid, audit_id) as row_hashes
    from due
), block as (
    select coalesce((select block_number from tip), 0) + 1 as block_number,
           coalesce((select hash from tip), decode(repeat('00', 32), 'hex')) as previous_hash,
           coalesce((select record_count from tip), 0) + records as record_count,
           rolled.*
    from rolled where records > 0
)
insert into audit_block
    (block_number, previous_hash, audit_ids, row_hashes, hash, record_count, last_xid, last_audit_id, sealed_at)
select block_number, previous_hash, audit_ids, row_hashes,
       sha256(previous_hash || int8send(block_number) || timestamptz_send($2) || int8send(record_count) || id_bytes || row_hashes),
       record_count, xids[records], audit_ids[records], $2
from block
returning block_number, hash, record_count, cardinality(audit_ids) as records;

-- name: tip is the newest block
select block_number, hash, record_count, last_xid::text::bigint as last_xid, last_audit_id
from audit_block order by block_number desc limit 1;

-- name: xid_horizon is the next transaction id of this server
select pg_snapshot_xmax(pg_current_snapshot())::text::bigint;

-- name: unsealed counts rows that wait for the sealer, up to 100,000
select count(*) from (
    select from audit_record
    where (xid, audit_id) > (coalesce((select last_xid from audit_block order by block_number desc limit 1), '0'),
                             coalesce((select last_audit_id from audit_block order by block_number desc limit 1), 0))
    limit 100000
) waiting;

-- name: blocks_at looks up the blocks that checkpoints speak of
select block_number, hash, record_count from audit_block where block_number = any($1::bigint[]);

-- name: read_blocks is the whole chain
select block_number, previous_hash, audit_ids, row_hashes, hash, record_count,
       last_xid::text::bigint as last_xid, last_audit_id, sealed_at
from audit_block order by block_number;

-- name: read_records is every row in chain order
select audit_id, xid::text::bigint as xid, at, action, actor, message_id, encounter_id, notice_id, recipient_id, detail
from audit_record order by audit_record.xid, audit_id;

-- name: record_exists tells a deleted row from one that stands elsewhere
select exists (select from audit_record where audit_id = $1);

-- name: block_holding tells a row moved from one that was never sealed
select block_number from audit_block where $1::bigint = any(audit_ids) limit 1;
