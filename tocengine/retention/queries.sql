-- name: lead  Takes the lock of the one that removes, or says that another one has it.
select pg_try_advisory_lock($1);

-- name: give_way  Whoever works on a table is not kept waiting behind us; we come again.
set lock_timeout = '1s';

-- name: prepare_days  Partitions for today, yesterday and the week to come.
select prepare_message_seen($1::date - 1, $1::date + 7);

-- name: days_before  The partitions of days before $1.
select c.relname::text as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'message_seen'::regclass and c.relname ~ '^message_seen_\d{8}$'
  and to_date(right(c.relname, 8), 'YYYYMMDD') < $1::date
order by 1;

-- name: forget_other_days  Rows of old days that never had a partition.
with old as (select ctid from message_seen_other where day < $1::date limit $2)
delete from message_seen_other o using old where o.ctid = old.ctid;

-- name: remove_records
-- The oldest records of a topic, if they are old and read by whoever reads them. The newest record always stays: the
-- next position follows from it.
with oldest as (
    select position, appended_at from log_record where topic = $1 order by position limit $4
)
delete from log_record r using oldest o
where r.topic = $1 and r.position = o.position and o.appended_at < $3
  and r.position < (select max(position) from log_record where topic = $1)
  and r.position < coalesce((select next_offset from log_position where topic = $2 and partition = 0), r.position + 1);
