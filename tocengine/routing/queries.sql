-- Statements of routing. Locks come in delivery's order: notices, then lanes by (recipient_id collate "C", encounter_id).

-- name: directory_version
select version from directory_version

-- name: directory_in_force
select body from directory_object where retired_at is null

-- name: panel_hits
-- Members in force with one of the patients' identifiers, opt-outs too; `encounter` is the index in the batch.
select p.encounter, m.recipient_id, m.domain, m.starts, m.ends
from unnest($1::int[], $2::text[], $3::text[]) as p (encounter, domain, value)
join panel_member m on m.domain = p.domain and m.value = p.value and m.retired_at is null

-- name: ledger
-- Every decision about these encounters, oldest first, with where its notice stands.
select d.encounter_id, d.recipient_id, d.fact_kind, d.occurrence, d.watched, d.basis, d.reason, d.status, d.level,
       d.patient_id, d.notice_id, n.state, n.possibly_told, n.body
from decision d left join notice n on n.notice_id = d.notice_id
where d.encounter_id = any($1::uuid[])
order by d.decision_id

-- name: drop_notices
-- What certainly did not reach anybody. A notice that is not returned was being sent in the meantime.
with waiting as (
    select n.notice_id from notice n
    where n.notice_id = any($1::uuid[]) and n.state in ('QUEUED', 'HELD', 'FAILED') and not n.possibly_told
    order by n.notice_id for update
)
update notice n set state = case when d.reason = 'SUPERSEDED' then 'SUPERSEDED' else 'CANCELLED' end,
    reason = d.reason, ended_at = $3
from waiting, unnest($1::uuid[], $2::text[]) as d (notice_id, reason)
where n.notice_id = waiting.notice_id and d.notice_id = n.notice_id
returning n.notice_id

-- name: replace_notices
-- What may have reached somebody and is not so any more: no further attempt. One under way keeps its state.
with told as (
    select n.notice_id from notice n where n.notice_id = any($1::uuid[]) order by n.notice_id for update
)
update notice n set superseded_by = r.by,
    state = case when n.state in ('QUEUED', 'HELD', 'FAILED') then 'SUPERSEDED' else n.state end,
    reason = case when n.state in ('QUEUED', 'HELD', 'FAILED') then 'SUPERSEDED' else n.reason end,
    ended_at = case when n.state in ('QUEUED', 'HELD', 'FAILED') then $3 else n.ended_at end
from told, unnest($1::uuid[], $2::uuid[]) as r (notice_id, by)
where n.notice_id = told.notice_id and r.notice_id = n.notice_id

-- name: insert_notices
-- In this order, which is the order in which a lane sends them.
insert into notice (notice_id, recipient_id, encounter_id, snapshot_id, state, body, created_at, expires_at)
select n.notice_id, n.recipient_id, n.encounter_id, n.snapshot_id, 'QUEUED', n.body, $6, n.expires_at
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::bytea[], $7::timestamptz[]) with ordinality
    as n (notice_id, recipient_id, encounter_id, snapshot_id, body, expires_at, place)
order by n.place

-- name: insert_decisions
insert into decision (encounter_id, recipient_id, fact_kind, occurrence, watched, basis, reason, status, level,
                      patient_id, notice_id, evidence, message_id, decided_at)
select d.encounter_id, d.recipient_id, d.fact_kind, d.occurrence, d.watched, string_to_array(d.basis, ','),
       d.reason, d.status, d.level, d.patient_id, d.notice_id, d.evidence, d.message_id, $14
from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bytea[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::uuid[], $11::uuid[], $12::text[], $13::uuid[]) with ordinality
    as d (encounter_id, recipient_id, fact_kind, occurrence, watched, basis, reason, status, level,
          patient_id, notice_id, evidence, message_id, place)
order by d.place

-- name: due_lanes
-- A lane in back-off or parked keeps its time, unless the notice it was waiting with was taken away (`wake`): no other one
-- has been tried.
insert into lane (recipient_id, encounter_id, due_at)
select l.recipient_id, l.encounter_id, $3
from unnest($1::text[], $2::uuid[], $4::bool[]) as l (recipient_id, encounter_id, wake)
order by l.recipient_id collate "C", l.encounter_id
on conflict (recipient_id, encounter_id) do update set due_at = case
    when (excluded.recipient_id, excluded.encounter_id) in (
        select w.recipient_id, w.encounter_id
        from unnest($1::text[], $2::uuid[], $4::bool[]) as w (recipient_id, encounter_id, wake) where w.wake
    ) and (lane.waits_for is null or not exists (
        select from notice n where n.recipient_id = lane.recipient_id and n.encounter_id = lane.encounter_id
            and n.ended_at is null and n.attempts > 0
    )) then least(lane.due_at, excluded.due_at)
    when lane.waits_for is not null then lane.due_at
    else coalesce(lane.due_at, excluded.due_at)
end

-- name: seen
-- Marks messages that never reach the tracker; a row that is not returned was a repeat.
insert into message_seen (day, message_id, revision, part, feed, control_id, trigger, answered, received_at,
                          disposition)
select s.* from unnest($1::date[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::text[],
                       $8::text[], $9::timestamptz[], $10::text[]) as s
on conflict (day, message_id, revision, part) do nothing
returning message_id

-- name: marks
-- What is known of events as they were received.
select message_id, part, day, feed, control_id, trigger, answered, received_at from message_seen
where message_id = any($1::uuid[]) and revision = 0

-- name: quarantine
-- What was not seen before; one that was retried in the meantime and failed at another place is open again.
insert into quarantine (message_id, stage, feed, control_id, reason, location, code, text, answered, content_type,
                        body, received_at, revision)
select distinct on (q.message_id) q.*
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::bytea[], $12::timestamptz[], $13::smallint[])
     as q (message_id, stage, feed, control_id, reason, location, code, text, answered, content_type, body, received_at,
           revision)
order by q.message_id, q.revision desc
on conflict (message_id) do update set stage = excluded.stage, reason = excluded.reason, location = excluded.location,
    code = excluded.code, text = excluded.text, content_type = excluded.content_type, body = excluded.body,
    revision = excluded.revision, state = 'OPEN', settled_at = null, settled_by = null, resolution = null
    where excluded.revision > quarantine.revision

-- name: set_aside
-- Which of these messages are in quarantine.
select message_id from quarantine where message_id = any($1::uuid[]) and state = 'OPEN'

-- name: settle_quarantine
-- Messages that were set aside and have been tracked since: their sender sent them again, and they could be read.
update quarantine q set state = 'RETRIED', settled_at = $2, settled_by = 'tocengine', resolution = 'received again'
where q.message_id = any($1::uuid[]) and q.state = 'OPEN'
  and exists (select from message_seen s where s.message_id = q.message_id and s.revision > q.revision
              and s.disposition in ('TRACKED', 'NOT_HANDLED'))
returning q.message_id, q.stage, q.feed, q.reason, q.location

-- name: still_quarantined
-- Which of these kinds of trouble other messages are still in quarantine for.
select distinct q.feed, q.reason, q.location
from quarantine q
join unnest($1::text[], $2::text[], $3::text[]) as w (feed, reason, location)
  on w.feed = q.feed and w.reason = q.reason and w.location = q.location
where q.state = 'OPEN' and q.stage <> 'track'

-- name: notify
select pg_notify(channel, '') from unnest($1::text[]) as channel

-- name: lock_directory
select version from directory_version for update

-- name: raise_directory_version
update directory_version set version = version + 1 returning version

-- name: object_versions
-- The newest version of every object, in force or retired.
select distinct on (kind, id) kind, id, version, body, retired_at is null as in_force
from directory_object order by kind, id, version desc

-- name: retire_objects
update directory_object o set retired_at = $3
from unnest($1::text[], $2::text[]) as r (kind, id)
where o.kind = r.kind and o.id = r.id and o.retired_at is null

-- name: add_objects
insert into directory_object (kind, id, version, body, applied_at, applied_by)
select o.*, $5::timestamptz, $6::text from unnest($1::text[], $2::text[], $3::int[], $4::bytea[]) as o

-- name: stage_panel
create temporary table panel_stage (
    line int not null, recipient_id text not null, domain text not null, value text not null, starts date, ends date,
    family text not null, given text not null, birth_date text not null, sex text not null
) on commit drop

-- name: analyze_stage
analyze panel_stage

-- name: staged_twice
select max(line) as line, min(line) as first from panel_stage
group by recipient_id, domain, value having count(*) > 1 order by 1 limit 1

-- name: panel_changes
-- What applying the stage would do, by recipient; without prune nobody is retired.
with kept as (
    select s.recipient_id, m.recipient_id is null as added,
           m.recipient_id is not null and (s.starts, s.ends, s.family, s.given, s.birth_date, s.sex)
               is distinct from (m.starts, m.ends, m.family, m.given, m.birth_date, m.sex) as changed
    from panel_stage s left join panel_member m on m.recipient_id = s.recipient_id and m.domain = s.domain
        and m.value = s.value and m.retired_at is null
), missing as (
    select m.recipient_id from panel_member m
    where m.recipient_id = any($1::text[]) and m.retired_at is null and not exists (
        select from panel_stage s
        where s.recipient_id = m.recipient_id and s.domain = m.domain and s.value = m.value)
)
select o.recipient_id,
       (select count(*) from kept k where k.recipient_id = o.recipient_id and k.added) as added,
       (select count(*) from kept k where k.recipient_id = o.recipient_id and k.changed) as changed,
       (select count(*) from missing m where m.recipient_id = o.recipient_id) as missing
from unnest($1::text[]) as o (recipient_id)

-- name: opt_outs_in_force
select distinct recipient_id from panel_member where recipient_id like 'opt-out:%' and retired_at is null

-- name: retire_changed_members
update panel_member m set retired_at = $1 from panel_stage s
where m.recipient_id = s.recipient_id and m.domain = s.domain and m.value = s.value and m.retired_at is null
  and (s.starts, s.ends, s.family, s.given, s.birth_date, s.sex)
      is distinct from (m.starts, m.ends, m.family, m.given, m.birth_date, m.sex)

-- name: add_members
insert into panel_member (recipient_id, domain, value, starts, ends, family, given, birth_date, sex, applied_at)
select s.recipient_id, s.domain, s.value, s.starts, s.ends, s.family, s.given, s.birth_date, s.sex, $1
from panel_stage s left join panel_member m on m.recipient_id = s.recipient_id and m.domain = s.domain
    and m.value = s.value and m.retired_at is null
where m.recipient_id is null

-- name: refusals_are_telling
-- What waits to be sent about patients, under any number of theirs, who have opted out by the stage is decided anew.
insert into encounter_due (encounter_id, kind, due_at)
select distinct e.encounter_id, 'TELLING', $1::timestamptz
from panel_stage s
join panel_member m on m.recipient_id = s.recipient_id and m.domain = s.domain and m.value = s.value and m.applied_at = $1
join patient named on named.domain = s.domain and named.value = s.value
join patient known on known.patient_id = coalesce(named.survivor_id, named.patient_id)
    or known.survivor_id = coalesce(named.survivor_id, named.patient_id)
join encounter e on e.patient_id = known.patient_id
where s.recipient_id like 'opt-out:%' and exists (
    select from notice n where n.encounter_id = e.encounter_id and n.ended_at is null
)
order by e.encounter_id
on conflict (encounter_id, kind) do update set due_at = excluded.due_at

-- name: retire_missing_members
update panel_member m set retired_at = $2
where m.recipient_id = any($1::text[]) and m.retired_at is null and not exists (
    select from panel_stage s
    where s.recipient_id = m.recipient_id and s.domain = m.domain and s.value = m.value)

-- name: retire_panels
update panel_member set retired_at = $2 where recipient_id = any($1::text[]) and retired_at is null
