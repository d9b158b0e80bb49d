-- The embedded event log, and the positions of consumers of either log.

create table log_record (
    topic       smallint    not null,  -- eventlog/topics.py numbers them
    position    bigint      not null,  -- assigned by the topic's one appender, without gaps
    key         bytea       not null,
    headers     bytea       not null,
    value       bytea       not null,  -- formats/packing
    octets      int         not null,  -- of the value unpacked
    appended_at timestamptz not null default clock_timestamp(),
    primary key (topic, position)
);

-- Values come packed: no compression by the server, and up to 8 KB in the row itself.
alter table log_record alter column value set storage external, set (toast_tuple_target = 8160);

create table log_position (
    topic       text   not null,  -- of Kafka with the cluster's id before it: offsets mean nothing elsewhere
    partition   int    not null,
    next_offset bigint not null,
    epoch       bigint not null,
    primary key (topic, partition)
);
