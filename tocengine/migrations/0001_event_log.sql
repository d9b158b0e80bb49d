-- The embedded event log, and the positions of consumers of either log.

create table log_record (
    topic       smallint    not null,  -- eventlog/topics.py numbers them
    position    bigint      not null,  -- assigned by the topic's one appender, without gaps
    key         bytea       not null,
    headers     bytea       not null,
    value       bytea       not null,
    appended_at timestamptz not null default clock_timestamp(),
    primary key (topic, position)
);

-- No compression: the server the engine brings is built without lz4, and pglz costs five times the insert.
alter table log_record alter column value set storage external;

create table log_position (
    topic       text   not null,  -- of Kafka with the cluster's id before it: offsets mean nothing elsewhere
    partition   int    not null,
    next_offset bigint not null,
    epoch       bigint not null,
    primary key (topic, partition)
);
