-- The audit log: rows written with what they record, sealed in blocks that chain.

create table audit_record (
    audit_id     bigint generated always as identity,
    xid          xid8        not null default pg_current_xact_id(),
    at           timestamptz not null,
    action       text        not null,
    actor        text        not null,
    message_id   uuid,
    encounter_id uuid,
    notice_id    uuid,
    recipient_id text,
    detail       bytea       not null,  -- canonical JSON
    primary key (xid, audit_id)         -- the order of the chain
);
-- What is about an encounter is found by it, also where it names a message or a notice: a row has one index beside the key.
create index audit_record_by_encounter on audit_record (encounter_id) where encounter_id is not null;
create index audit_record_by_message on audit_record (message_id) where encounter_id is null and message_id is not null;
create index audit_record_by_notice on audit_record (notice_id) where encounter_id is null and notice_id is not null;

create table audit_block (
    block_number  bigint      primary key,  -- 1, 2, 3, ... without gaps
    previous_hash bytea       not null,
    audit_ids     bigint[]    not null,     -- in chain order
    row_hashes    bytea       not null,     -- 32 bytes each, in the same order
    hash          bytea       not null,     -- SHA-256 of all the rest of the block: audit/chain.py
    record_count  bigint      not null,     -- records in this block and all before it
    last_xid      xid8        not null,     -- (last_xid, last_audit_id): how far the log is sealed
    last_audit_id bigint      not null,
    sealed_at     timestamptz not null
);

create function audit_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'audit tables are append-only';
end $$;
create trigger audit_record_append_only before update or delete or truncate on audit_record
    for each statement execute function audit_append_only();
create trigger audit_block_append_only before update or delete or truncate on audit_block
    for each statement execute function audit_append_only();
