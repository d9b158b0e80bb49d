-- name: open_items     an item that is open already, or was opened by the same cause before, changes nothing
insert into work_item (
    work_item_id, kind, subject, summary, feed, message_id, encounter_id, notice_id, opened_at
)
select * from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::uuid[],
    $9::timestamptz[]
)
on conflict do nothing;

-- name: open_list      oldest first
select work_item_id, kind, subject, summary, feed, message_id, encounter_id, notice_id, opened_at
from work_item
where closed_at is null and ($1::text is null or kind = $1)
order by opened_at, work_item_id
limit $2;

-- name: count_open     open items by kind
select kind, count(*) as items from work_item where closed_at is null group by kind;

-- name: close_items    returns how many were open
update work_item set closed_at = $2, closed_by = $3, resolution = $4
where work_item_id = any($1::uuid[]) and closed_at is null
returning work_item_id;

-- name: close_subjects  when the cause is gone: the feed speaks again, the endpoint is resumed
update work_item set closed_at = $3, closed_by = $4, resolution = $5
where kind = $1 and subject = any($2::text[]) and closed_at is null
returning work_item_id;

-- name: claim_unalerted  nobody was told yet; rows stay locked until the caller's transaction ends
select work_item_id, kind, subject, summary, feed, message_id, encounter_id, notice_id, opened_at
from work_item
where alerted_at is null
order by opened_at
limit $1
for update skip locked;

-- name: mark_alerted
update work_item set alerted_at = $2 where work_item_id = any($1::uuid[]);
