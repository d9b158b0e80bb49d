-- name: lock  One process at a time decides about revisions; until the transaction ends.
select pg_advisory_xact_lock(7628643, 1);

-- name: held  What is known of messages: the highest revision seen, what was answered, whether any of it was handled.
select s.message_id, max(s.revision) as revision, max(s.control_id) as control_id, max(s.answered) as answered,
       bool_or(s.disposition = 'NOT_HANDLED') as unhandled,
       coalesce(bool_or(q.state = 'DISCARDED'), false) as discarded
from message_seen s left join quarantine q on q.message_id = s.message_id
where s.message_id = any($1::uuid[])
group by s.message_id;

-- name: under_way  The newest events of messages that were normalized again; `tracked` where they have arrived.
select distinct on (r.message_id, r.part) r.message_id, r.part, r.revision, r.digest,
       exists (select from message_seen s where s.message_id = r.message_id and s.revision = r.revision
               and s.part = r.part) as tracked
from renormalized r
where r.message_id = any($1::uuid[])
order by r.message_id, r.part, r.revision desc;

-- name: events_held  The newest events of messages, from the histories of visits and of patients.
select e.message_id, e.part, e.summary, e.fhir
from message_seen s
join encounter_event e on e.encounter_id = s.encounter_id and e.message_id = s.message_id and e.part = s.part
                      and e.revision = s.revision
where s.message_id = any($1::uuid[]) and not e.linked
union all
select p.message_id, p.part, p.summary, p.fhir
from message_seen s
join patient_event p on p.patient_id = s.patient_id and p.message_id = s.message_id and p.part = s.part
                    and p.revision = s.revision
where s.message_id = any($1::uuid[]);

-- name: keep_renormalized  Events that wait to be published, with where they came from.
with kept as (
    insert into renormalized (message_id, part, revision, digest, run_id, cause, requested_by, requested_at,
                              topic, key, headers, value)
    select r.message_id, r.part, r.revision, r.digest, $9, $10, $11, $12, r.topic, r.key, r.headers, r.value
    from unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::bytea[], $5::text[], $6::bytea[], $7::bytea[],
                $8::bytea[]) as r (message_id, part, revision, digest, topic, key, headers, value)
    returning 1
)
select pg_notify('renormalized', '') from (select from kept limit 1) as any_of_them;

-- name: unpublished  Events that wait to be published.
select count(*) from renormalized where value is not null;

-- name: untracked  Events of a run that routing has not applied or set aside yet.
select count(*) from renormalized r
where r.run_id = $1 and not exists (
    select from message_seen s where s.message_id = r.message_id and s.revision = r.revision and s.part = r.part);

-- name: resulting_transitions  What happened because of a run, by kind and status.
select split_part(said, ' ', 2) as kind, split_part(said, ' ', 1) as status, count(*) as count
from audit_record a
cross join jsonb_array_elements_text(coalesce(convert_from(a.detail, 'UTF8')::jsonb -> 'transitions', '[]')) as said
where a.message_id in (select message_id from renormalized where run_id = $1) and a.at >= $2
  and a.action = 'MESSAGE_TRACKED'
  and exists (select from renormalized r where r.run_id = $1 and r.message_id = a.message_id
              and r.revision = coalesce((convert_from(a.detail, 'UTF8')::jsonb ->> 'revision')::int, 0))
group by 1, 2 order by 1, 2;

-- name: resulting_decisions  What was decided because of a run: notices by status, and reasons not to tell.
select coalesce(d.reason, d.status) as outcome, d.notice_id is not null as notice, count(*) as count from decision d
where d.message_id in (select message_id from renormalized where run_id = $1) and d.decided_at >= $2
group by 1, 2 order by 2 desc, 1;

-- name: quarantine_list  What is set aside, newest first; $1 feed, $2 reason, $3 state, each null for any.
select message_id, stage, feed, control_id, reason, location, code, text, answered, content_type, received_at, state,
       retries, settled_at, settled_by, resolution
from quarantine
where ($1::text is null or feed = $1) and ($2::text is null or reason = $2) and ($3::text is null or state = $3)
order by received_at desc limit $4;

-- name: quarantine_show  One message with its bytes.
select * from quarantine where message_id = $1;

-- name: lineage  Which events a message became.
select r.part, r.revision, r.cause, r.requested_by, r.requested_at, r.value is null as published,
       s.disposition, s.encounter_id, s.tracked_at
from renormalized r
left join message_seen s on s.message_id = r.message_id and s.revision = r.revision and s.part = r.part
where r.message_id = $1 order by r.renormalized_id;

-- name: quarantine_open  Ids of open messages: those named ($1), or all of a feed ($2) and reason ($3).
select message_id from quarantine
where state = 'OPEN' and ($1::uuid[] is null or message_id = any($1)) and ($2::text is null or feed = $2)
  and ($3::text is null or reason = $3)
order by received_at, message_id;

-- name: quarantine_take  Open messages with their bytes, locked.
select message_id, stage, feed, control_id, reason, location, answered, content_type, body, received_at, revision
from quarantine where message_id = any($1::uuid[]) and state = 'OPEN' order by received_at, message_id for update;

-- name: quarantine_retried  These are on their way to routing.
update quarantine set state = 'RETRIED', retries = retries + 1, settled_at = $2, settled_by = $3, resolution = $4
where message_id = any($1::uuid[]);

-- name: quarantine_failed  These could not be read again; with what prevents it now.
update quarantine q set retries = retries + 1, reason = f.reason, location = f.location, code = f.code, text = f.text
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) as f (message_id, reason, location, code, text)
where q.message_id = f.message_id;

-- name: quarantine_discard  A person decided that these stay out.
update quarantine set state = 'DISCARDED', settled_at = $2, settled_by = $3, resolution = $4
where message_id = any($1::uuid[]) and state = 'OPEN'
returning message_id, stage, feed, reason, location;

-- name: still_open  Which of these kinds of trouble other messages are still in quarantine for.
select distinct q.feed, q.reason, q.location from quarantine q
join unnest($1::text[], $2::text[], $3::text[]) as w (feed, reason, location)
  on w.feed = q.feed and w.reason = q.reason and w.location = q.location
where q.state = 'OPEN' and q.stage <> 'track';

-- name: quarantine_tracked  Which of these are open and were set aside by tracking.
select message_id, received_at from quarantine
where message_id = any($1::uuid[]) and state = 'OPEN' and stage = 'track';
