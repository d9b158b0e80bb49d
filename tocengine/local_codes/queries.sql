-- name: note_unmapped  Messages with codes no table knows; a row that is not returned was noted before.
insert into code_unmapped (feed, table_name, code, message_id, received_at)
select distinct u.* from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[]) as u
on conflict (feed, table_name, code, message_id) do update set settled_at = null
    where code_unmapped.settled_at is not null and $6::boolean
returning feed, table_name, code;

-- name: settle  What the newest event of these messages no longer lacks ($2, $3: what it does lack) waits no more.
update code_unmapped u set settled_at = $5
where u.message_id = any($1::uuid[]) and u.settled_at is null
  and not exists (select from unnest($2::uuid[], $3::text[], $4::text[]) as l (message_id, table_name, code)
                  where l.message_id = u.message_id and l.table_name = u.table_name and l.code = u.code)
returning u.feed, u.table_name, u.code;

-- name: still_waiting  Which of these codes messages wait for.
select distinct w.feed, w.table_name, w.code
from unnest($1::text[], $2::text[], $3::text[]) as w (feed, table_name, code)
where exists (select from code_unmapped u where u.feed = w.feed and u.table_name = w.table_name and u.code = w.code
              and u.settled_at is null);

-- name: version  Rises with every change of the map.
select coalesce(max(change_id), 0) from code_map;

-- name: in_force  What codes mean now.
select feed, table_name, code, meaning
from (select distinct on (feed, table_name, code) feed, table_name, code, meaning
      from code_map order by feed, table_name, code, change_id desc) as newest
where meaning is not null;

-- name: change  Says what a code means from now on; nothing where it means that already.
insert into code_map (feed, table_name, code, meaning, changed_at, changed_by)
select $1, $2, $3, $4, $5, $6
where $4::text is distinct from (select meaning from code_map
                                 where feed = $1 and table_name = $2 and code = $3 order by change_id desc limit 1)
returning change_id;

-- name: last_mapped  When a code was given the meaning it has, or had before it was taken back.
select changed_at from code_map where feed = $1 and table_name = $2 and code = $3 and meaning is not null
order by change_id desc limit 1;

-- name: history
select feed, table_name, code, meaning, changed_at, changed_by from code_map
where ($1::text is null or feed = $1) order by change_id;

-- name: listing  Codes that are mapped while the engine runs or known to be missing, with the messages that had them.
select coalesce(u.feed, m.feed) as feed, coalesce(u.table_name, m.table_name) as table_name,
       coalesce(u.code, m.code) as code, m.meaning, coalesce(u.messages, 0) as messages,
       coalesce(u.waiting, 0) as waiting, u.first_seen, u.last_seen
from (select feed, table_name, code, count(*) as messages, count(*) filter (where settled_at is null) as waiting,
             min(received_at) as first_seen, max(received_at) as last_seen
      from code_unmapped group by feed, table_name, code) as u
full join (select distinct on (feed, table_name, code) feed, table_name, code, meaning
           from code_map order by feed, table_name, code, change_id desc) as m
  on m.feed = u.feed and m.table_name = u.table_name and m.code = u.code
where (coalesce(u.waiting, 0) > 0 or m.meaning is not null) and (not $1::boolean or coalesce(u.waiting, 0) > 0)
  and ($2::text is null or coalesce(u.feed, m.feed) = $2)
order by waiting desc, messages desc, feed, table_name, code;

-- name: waiting
-- Messages that wait for a code ($3 and its stand-in), with $7 those too that waited for it once, after ($4, $5), in the
-- order of receipt.
select message_id, received_at from code_unmapped
where feed = $1 and table_name = $2 and code = any($3::text[]) and (settled_at is null or $7::boolean)
  and (received_at, message_id) > ($4, $5)
group by received_at, message_id order by received_at, message_id limit $6;

-- name: waiting_though_mapped  Codes that are mapped while messages wait for them and are on no way yet.
select m.feed, m.table_name, m.code,
       (select max(received_at) from code_unmapped u where u.feed = m.feed and u.table_name = m.table_name
        and u.code = m.code and u.settled_at is null) as newest
from (select distinct on (feed, table_name, code) feed, table_name, code, meaning
      from code_map order by feed, table_name, code, change_id desc) as m
where m.meaning is not null and exists (
    select from code_unmapped u where u.feed = m.feed and u.table_name = m.table_name and u.code = m.code
    and u.settled_at is null
    and not exists (select from renormalized r where r.message_id = u.message_id
                    and not exists (select from message_seen s where s.message_id = r.message_id
                                    and s.revision = r.revision and s.part = r.part)))
order by m.feed, m.table_name, m.code;
