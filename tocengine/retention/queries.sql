-- name: lead  Takes the lock of the one that removes, or says that another one has it.
select pg_try_advisory_lock($1);

-- name: give_way
-- Whoever works on a table is kept waiting behind us a moment at most, while one that reads it for long (a backup) keeps
-- us from dropping a part of it; we come again.
set lock_timeout = '200ms';

-- name: prepare_weeks  Partitions for today, yesterday and the seven days to come.
select prepare_message_seen($1::date - 1, $1::date + 7);

-- name: weeks_before  The partitions of days before $1 alone.
select name from message_seen_weeks() where end_day <= $1::date;

-- name: forget_other_days
-- Rows of old days that never had a partition, once they have been known as long: a load of old messages repeats too.
with old as (select ctid from message_seen_other where day < $1::date and received_at < $2 limit $3)
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

-- name: remove_codes
-- Messages that had an unknown code: known and read again ($1: as long as the log has them), or too old to be read.
with old as (
    select ctid from code_unmapped
    where received_at < $1 and (settled_at is not null or received_at < $2) limit $3
)
delete from code_unmapped u using old where u.ctid = old.ctid;

-- name: remove_lineage  What was normalized again, long ago and published since.
with old as (
    select ctid from renormalized where requested_at < $1 and value is null limit $2
)
delete from renormalized r using old where r.ctid = old.ctid;

-- name: remove_quarantine  What was set aside longest ago, whether somebody settled it or not.
with old as (select ctid from quarantine where received_at < $1 order by received_at limit $2)
delete from quarantine q using old where q.ctid = old.ctid;
