-- What the engine learned after it had read a message: codes that were mapped, messages that were normalized anew.

create table code_map (  -- append-only: the newest row of a code is in force, one without a meaning takes it back
    change_id  bigint generated always as identity primary key,
    feed       text        not null,
    table_name text        not null,  -- of normalize/tables: class, disposition, ...
    code       text        not null,
    meaning    text,
    changed_at timestamptz not null,
    changed_by text        not null
);
create index code_map_by_code on code_map (feed, table_name, code, change_id);

create table code_unmapped (  -- messages with a code that no table knew
    feed        text        not null,
    table_name  text        not null,
    code        text        not null,  -- "?" for text that is no code
    message_id  uuid        not null,
    received_at timestamptz not null,
    settled_at  timestamptz,           -- its code is mapped: the message was normalized anew
    primary key (feed, table_name, code, message_id)
);
create index code_unmapped_waiting on code_unmapped (message_id) where settled_at is null;
create index code_unmapped_by_age on code_unmapped (received_at);  -- retention

create table renormalized (  -- a message that was normalized again: what asked for it, and its event until it is in the log
    renormalized_id bigint generated always as identity primary key,
    message_id   uuid        not null,
    part         smallint    not null,
    revision     smallint    not null,
    digest       bytea       not null,  -- of what the event says: asked for twice, it is made once
    run_id       uuid        not null,
    cause        text        not null,  -- QUARANTINE | REPLAY | CODES
    requested_by text        not null,
    requested_at timestamptz not null,
    topic        text        not null,
    key          bytea       not null,
    headers      bytea       not null,
    value        bytea,                 -- null once published
    unique (message_id, revision, part)
);
create index renormalized_unpublished on renormalized (renormalized_id) where value is not null;
create index renormalized_by_run on renormalized (run_id);
create index renormalized_by_age on renormalized (requested_at) where value is null;  -- retention
alter table renormalized alter column value set storage external;  -- as log_record
