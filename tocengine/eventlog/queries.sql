-- name: append_records  Stores a batch at the positions its appender assigned and wakes the consumers; one commit.
with stored as (
    insert into log_record (topic, position, key, headers, value, octets)
    select * from unnest($1::smallint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::int[])
)
select pg_notify('toc_log', $7);

-- name: tails  The next free position of each topic.
select t.topic, coalesce((select max(position) + 1 from log_record r where r.topic = t.topic), 0) as next_position
from unnest($1::smallint[]) as t (topic);

-- name: heads  The first position that is still stored of each topic, and the next free one.
select t.topic,
       (select min(position) from log_record r where r.topic = t.topic) as first_position,
       coalesce((select max(position) + 1 from log_record r where r.topic = t.topic), 0) as next_position
from unnest($1::smallint[]) as t (topic);

-- name: read_records  What follows each topic's position: $3 records and about $4 bytes of each, at least one.
select t.topic, r.position, r.key, r.headers, r.value
from unnest($1::smallint[], $2::bigint[]) as t (topic, next_position)
cross join lateral (
    select s.position, s.key, s.headers, s.value
    from (
        select position, key, headers, value,
               sum(octets) over (order by position) - octets as bytes_before
        from (
            select position, key, headers, value, octets
            from log_record
            where topic = t.topic and position >= t.next_position
            order by position
            limit $3
        ) as next_records
    ) as s
    where s.bytes_before < $4
) as r
order by t.topic, r.position;

-- name: appended_at  When the record at a position was appended.
select appended_at from log_record where topic = $1 and position = $2;

-- name: try_lock  Takes a session lock if nobody holds it: the class of what is locked, and its number.
select pg_try_advisory_lock($1::int, $2::int);

-- name: unlock  Gives a session lock back.
select pg_advisory_unlock($1::int, $2::int);

-- name: durable_commits  A commit that is reported must be on disk: undoes a server default of `off`.
select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off';

-- name: known_positions  Where the consumers of these partitions stand.
select p.topic, p.partition, p.next_offset, p.epoch
from log_position p
join unnest($1::text[], $2::int[]) as t (topic, partition) using (topic, partition);

-- name: progress  How many records the topic numbered $1 has had, and how many of them ($2 is its name) are applied.
select coalesce((select max(position) + 1 from log_record where topic = $1), 0) as appended,
       coalesce((select next_offset from log_position where topic = $2 and partition = 0), 0) as applied;

-- name: take_positions  Raises the epochs, which fences whoever read these partitions before; waits for a batch of theirs.
insert into log_position as p (topic, partition, next_offset, epoch)
select topic, partition, first_offset, 1
from unnest($1::text[], $2::int[], $3::bigint[]) as t (topic, partition, first_offset)
order by topic, partition
on conflict (topic, partition) do update set epoch = p.epoch + 1
returning topic, partition, next_offset, epoch;

-- name: advance_positions  Moves positions, each only if it is still where and whose the batch says.
update log_position p
set next_offset = b.next_offset
from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[])
     as b (topic, partition, first_offset, next_offset, epoch)
where p.topic = b.topic and p.partition = b.partition and p.next_offset = b.first_offset and p.epoch = b.epoch
returning p.topic;

-- name: read_outbox  The oldest rows to publish: $1 rows and about $2 bytes, at least one.
select outbox_id, topic, key, headers, value
from (
    select outbox_id, topic, key, headers, value,
           sum(octet_length(value)) over (order by outbox_id) - octet_length(value) as bytes_before
    from (select * from outbox order by outbox_id limit $1) as next_rows
) as s
where bytes_before < $2
order by outbox_id;

-- name: delete_published  Forgets rows that are in the log.
delete from outbox where outbox_id = any($1::bigint[]);

-- name: outbox_size  Rows not yet published.
select count(*) from outbox;

-- name: read_renormalized  The oldest events of messages normalized again that are not in the log yet: as read_outbox.
select outbox_id, topic, key, headers, value
from (
    select renormalized_id as outbox_id, topic, key, headers, value,
           sum(octet_length(value)) over (order by renormalized_id) - octet_length(value) as bytes_before
    from (select * from renormalized where value is not null order by renormalized_id limit $1) as next_rows
) as s
where bytes_before < $2
order by outbox_id;

-- name: keep_lineage  These are in the log: what is kept here is which message became which event.
update renormalized set value = null where renormalized_id = any($1::bigint[]);

-- name: renormalized_size  Rows not yet published.
select count(*) from renormalized where value is not null;
