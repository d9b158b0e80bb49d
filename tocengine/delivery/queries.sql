-- Statements of delivery. Locks are taken in one order everywhere: attempts, notices, endpoint states, lanes;
-- lanes among themselves by (recipient_id collate "C", encounter_id). Claims never wait (skip locked).

-- name: endpoint_standings
-- Endpoints something is known against; the rest are active.
select endpoint_id, state, not_before, failures, reason from endpoint_state
where state <> 'ACTIVE' or not_before is not null or failures > 0

-- name: endpoints_to_probe
-- Resting endpoints whose time has come; they rest on while one lane of theirs finds out.
update endpoint_state e set not_before = $2 from (
    select endpoint_id from endpoint_state where state = 'ACTIVE' and not_before <= $1
    for update skip locked
) due
where e.endpoint_id = due.endpoint_id
returning e.endpoint_id

-- name: choose_probes
-- Per endpoint, of some lanes that wait for it, the one whose notice was tried least, so that a poisonous one is not
-- asked twice. Some: a dead receiver may have a hundred thousand. Not asked is one that somebody else has at hand.
with chosen as (
    select distinct on (e.endpoint_id) l.recipient_id, l.encounter_id, e.endpoint_id
    from unnest($1::text[]) as e (endpoint_id)
    cross join lateral (
        select w.recipient_id, w.encounter_id from lane w
        where w.waits_for = e.endpoint_id and w.lease is null limit $3
    ) l
    cross join lateral (
        select n.attempts, n.created_at from notice n
        where n.recipient_id = l.recipient_id and n.encounter_id = l.encounter_id and n.ended_at is null
        order by n.sequence limit 1
    ) head
    order by e.endpoint_id, head.attempts, head.created_at
), free as (
    select locked.* from chosen cross join lateral (
        select l.recipient_id, l.encounter_id from lane l
        where l.recipient_id = chosen.recipient_id and l.encounter_id = chosen.encounter_id
          and l.waits_for = chosen.endpoint_id and l.lease is null
        for update skip locked
    ) locked
), asked as (
    update lane l set due_at = $2, probe = true from free
    where l.recipient_id = free.recipient_id and l.encounter_id = free.encounter_id
    returning l.waits_for
)
select endpoint_id, endpoint_id in (select waits_for from asked) as asked from chosen

-- name: rest_no_longer
-- No lane waits to be the probe: the next notice is one.
update endpoint_state set not_before = null where endpoint_id = any($1::text[])

-- name: probe_again
-- The lane that was to be the probe had nothing to send after all.
update endpoint_state set not_before = $2 where endpoint_id = any($1::text[]) and not_before is not null

-- name: claim_lanes
-- Due lanes of one recipient after the other, from the one after $4 on: of each its oldest ones, and no more than its
-- allowance. Only recipients that wait are looked at, each by its own end of the index, so that what one of them has
-- queued costs the others nothing. Rows are updated where they lie: a join by key would be quadratic wherever the
-- statistics are from a time when nothing was due. For the turns' sake the limit cuts the recipients in their order, however
-- many allowances there are: those are looked up one by one, since a join of any other kind would order the rows its own way.
with recursive waiting as (
    (select recipient_id from lane where lease is null and due_at is not null and recipient_id > $4
     order by recipient_id limit 1)
    union all
    select next.recipient_id from waiting w cross join lateral (
        select l.recipient_id from lane l
        where l.lease is null and l.due_at is not null and l.recipient_id > w.recipient_id
        order by l.recipient_id limit 1
    ) next
), mine as (
    select due.*
    from waiting w
    left join lateral (
        select a.lanes from unnest($5::text[], $6::int[]) as a (recipient_id, lanes)
        where a.recipient_id = w.recipient_id limit 1
    ) allowed on true
    cross join lateral (
        select l.ctid as place, l.waits_for, l.probe from lane l
        where l.recipient_id = w.recipient_id and l.lease is null and l.due_at <= $1
        order by l.due_at limit coalesce(allowed.lanes, $7)
        for update skip locked
    ) due
    order by w.recipient_id limit $8
)
update lane l set lease = $2, worker_id = $3, waits_for = null, probe = false
from mine
where l.ctid = mine.place
returning l.recipient_id, l.encounter_id, case when mine.probe then mine.waits_for end as probes

-- name: heads
-- The first open notice of each lane, locked; a lane whose head another transaction is changing gives none.
select n.notice_id, n.recipient_id, n.encounter_id, n.snapshot_id, n.state, n.possibly_told, n.body, n.endpoint,
       n.attempts, n.expires_at, s.content
from unnest($1::text[], $2::uuid[]) as l (recipient_id, encounter_id)
join lateral (
    select o.notice_id from notice o
    where o.recipient_id = l.recipient_id and o.encounter_id = l.encounter_id and o.ended_at is null
    order by o.sequence limit 1
) first on true
join notice n on n.notice_id = first.notice_id
join snapshot s on s.snapshot_id = n.snapshot_id
for update of n skip locked

-- name: opted_out
-- Of these notices, those that the patient, under any number of hers, does not want told on a day from $6 to $7: the numbers she is known
-- by, who is the first one stated of a notice ($5), and all that are stated. One that changed hands stands for its former owner.
with stated as (
    select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[])
        as w (notice_id, recipient_id, domain, value, is_key)
), family as (
    select w.notice_id, w.recipient_id, known.domain, known.value, known.moved_from is not null as moved
    from stated w
    join patient named on named.domain = w.domain and named.value = w.value
    join patient known on known.patient_id = coalesce(named.survivor_id, named.patient_id)
        or known.survivor_id = coalesce(named.survivor_id, named.patient_id)
    where w.is_key
), numbers as (
    select f.notice_id, f.recipient_id, f.domain, f.value from family f where not f.moved
    union
    select w.notice_id, w.recipient_id, w.domain, w.value from stated w
    where not exists (
        select from family f
        where f.notice_id = w.notice_id and f.domain = w.domain and f.value = w.value and f.moved
    )
)
select distinct w.notice_id
from numbers w
join panel_member m on m.domain = w.domain and m.value = w.value and m.retired_at is null
where m.recipient_id in ('opt-out:', 'opt-out:' || w.recipient_id)
  and (m.starts is null or m.starts <= $7) and (m.ends is null or m.ends >= $6)

-- name: move_notices
-- Too old for one endpoint, they wait for the next one, which rests.
update notice n set endpoint = m.endpoint, expires_at = m.expires_at
from unnest($1::uuid[], $2::smallint[], $3::timestamptz[]) as m (notice_id, endpoint, expires_at)
where n.notice_id = m.notice_id and n.state = 'QUEUED'

-- name: telling
-- Who is told what about these encounters is decided anew: something that waited is not to be told any more.
insert into encounter_due (encounter_id, kind, due_at)
select e.*, 'TELLING', $2 from unnest($1::uuid[]) as e
on conflict (encounter_id, kind) do update set due_at = excluded.due_at

-- name: charts
select snapshot_id, fhir from snapshot where snapshot_id = any($1::uuid[])

-- name: intend
-- From here on the recipient may have been told.
update notice n set state = 'SENDING', possibly_told = true, attempts = i.number, endpoint = i.endpoint,
    expires_at = i.expires_at
from unnest($1::uuid[], $2::int[], $3::smallint[], $4::timestamptz[]) as i (notice_id, number, endpoint, expires_at)
where n.notice_id = i.notice_id and n.state = 'QUEUED'

-- name: begin_attempts
insert into attempt (attempt_id, notice_id, number, endpoint_id, digest, started_at)
select a.*, $6::timestamptz from unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::bytea[]) as a

-- name: end_unsent
-- Notices that are not to be sent any more, decided while their rows were locked.
update notice n set state = e.state, reason = e.reason, ended_at = $4
from unnest($1::uuid[], $2::text[], $3::text[]) as e (notice_id, state, reason)
where n.notice_id = e.notice_id and n.state = 'QUEUED'

-- name: end_attempts
-- Attempts still open are mine to judge; a positive answer is recorded even where somebody closed the attempt.
with mine as (
    select attempt_id, ended_at is null as open from attempt
    where attempt_id = any($1::uuid[]) order by attempt_id for update
)
update attempt a set ended_at = e.ended_at, outcome = e.outcome, status = e.status, detail = e.detail
from mine
join unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::text[], $6::bool[])
    as e (attempt_id, ended_at, outcome, status, detail, positive) using (attempt_id)
where a.attempt_id = mine.attempt_id and (mine.open or e.positive)
returning a.attempt_id, mine.open

-- name: end_notices
-- A notice that was replaced while its attempt was under way is not sent again.
with mine as (
    select n.notice_id, n.state, n.superseded_by is not null as replaced from notice n
    where n.notice_id = any($1::uuid[]) order by n.notice_id for update
)
update notice n set possibly_told = e.possibly_told, endpoint = e.endpoint, expires_at = e.expires_at,
    state = case when mine.replaced and not e.positive then 'SUPERSEDED' else e.state end,
    reason = case when mine.replaced and not e.positive then 'SUPERSEDED' else e.reason end,
    ended_at = case when mine.replaced then $9::timestamptz else e.ended_at end
from mine
join unnest($1::uuid[], $2::text[], $3::text[], $4::bool[], $5::smallint[], $6::timestamptz[], $7::timestamptz[],
            $8::bool[])
    as e (notice_id, state, reason, possibly_told, endpoint, expires_at, ended_at, positive) using (notice_id)
where n.notice_id = mine.notice_id
  and (mine.state = 'SENDING' or e.positive and mine.state in ('QUEUED', 'FAILED', 'SUPERSEDED'))
returning n.notice_id, n.state

-- name: lock_standings
select endpoint_id, state, not_before, failures, reason from endpoint_state
where endpoint_id = any($1::text[]) order by endpoint_id for update

-- name: store_standings
insert into endpoint_state (endpoint_id, state, not_before, failures, reason, changed_at)
select e.*, $6::timestamptz from unnest($1::text[], $2::text[], $3::timestamptz[], $4::int[], $5::text[]) as e
on conflict (endpoint_id) do update set state = excluded.state, not_before = excluded.not_before,
    failures = excluded.failures, reason = excluded.reason, changed_at = excluded.changed_at

-- name: lock_lanes
-- A statement of its own: what follows sees every notice committed before these locks were granted.
select l.recipient_id from lane l
join unnest($1::text[], $2::uuid[]) as mine (recipient_id, encounter_id) using (recipient_id, encounter_id)
where l.lease = any($3::uuid[])
order by l.recipient_id collate "C", l.encounter_id
for update of l

-- name: release_lanes
-- The lease ends; a lane with open notices is due at the time given, or parked where that is null: until its endpoint is
-- back, or until $6.
update lane l set lease = null, worker_id = null,
    due_at = case when open.any then mine.due_at end,
    waits_for = case when open.any then mine.waits_for end,
    parked_until = mine.parked_until
from unnest($1::text[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::text[], $6::timestamptz[])
    as mine (recipient_id, encounter_id, lease, due_at, waits_for, parked_until),
lateral (
    select exists (
        select from notice n where n.recipient_id = mine.recipient_id and n.encounter_id = mine.encounter_id
            and n.ended_at is null
    ) as any
) open
where l.recipient_id = mine.recipient_id and l.encounter_id = mine.encounter_id and l.lease = mine.lease

-- name: wake_lanes
-- Lanes that wait for these endpoints are due now, $3 of each; the next sweep finds the others, and one that is locked.
with waiting as (
    select locked.place from unnest($1::text[]) as e (endpoint_id) cross join lateral (
        select l.ctid as place from lane l
        where l.waits_for = e.endpoint_id and l.lease is null and (l.due_at is null or l.due_at > $2)
        limit $3 for update skip locked
    ) locked
)
update lane l set due_at = $2, waits_for = null from waiting where l.ctid = waiting.place

-- name: sweep_parked
-- Parked lanes, $2 of each endpoint that is neither paused nor resting any more, and $2 of each whose first notice has
-- expired.
with recursive parked as (
    (select waits_for from lane where due_at is null and waits_for is not null and lease is null
     order by waits_for limit 1)
    union all
    select next.waits_for from parked p cross join lateral (
        select l.waits_for from lane l
        where l.due_at is null and l.waits_for is not null and l.lease is null and l.waits_for > p.waits_for
        order by l.waits_for limit 1
    ) next
), standing as (
    select p.waits_for, exists (
        select from endpoint_state e where e.endpoint_id = p.waits_for
            and (e.state = 'PAUSED' or e.state = 'ACTIVE' and e.not_before is not null)
    ) as away
    from parked p
), waiting as (
    select locked.place from standing s cross join lateral (
        select l.ctid as place from lane l
        where l.waits_for = s.waits_for and l.due_at is null and l.lease is null
          and l.parked_until <= case when s.away then $1 else 'infinity'::timestamptz end
        order by l.parked_until limit $2 for update skip locked
    ) locked
)
update lane l set due_at = $1 from waiting where l.ctid = waiting.place
returning l.recipient_id

-- name: next_due
with recursive waiting as (
    (select recipient_id, due_at from lane where lease is null and due_at is not null
     order by recipient_id, due_at limit 1)
    union all
    select next.* from waiting w cross join lateral (
        select l.recipient_id, l.due_at from lane l
        where l.lease is null and l.due_at is not null and l.recipient_id > w.recipient_id
        order by l.recipient_id, l.due_at limit 1
    ) next
)
select least(
    (select min(due_at) from waiting),
    (select min(not_before) from endpoint_state where state = 'ACTIVE')
) as at

-- name: heartbeat
insert into delivery_worker (worker_id, started_at, heartbeat_at) values ($1, clock_timestamp(), clock_timestamp())
on conflict (worker_id) do update set heartbeat_at = excluded.heartbeat_at

-- name: retire_worker
delete from delivery_worker where worker_id = $1

-- name: retire_lost_workers
-- By the database's clock, so that the clocks of the workers' machines do not matter.
delete from delivery_worker where worker_id in (
    select worker_id from delivery_worker
    where heartbeat_at < clock_timestamp() - $1::interval and worker_id <> $2
    for update skip locked
)

-- name: orphaned_attempts
-- Attempts under way in lanes whose worker is gone.
select a.attempt_id, n.notice_id, n.recipient_id, n.encounter_id, a.endpoint_id
from lane l
join notice n on n.recipient_id = l.recipient_id and n.encounter_id = l.encounter_id and n.ended_at is null
    and n.state = 'SENDING'
join attempt a on a.notice_id = n.notice_id and a.ended_at is null
where l.lease is not null and not exists (select from delivery_worker w where w.worker_id = l.worker_id)
order by a.attempt_id
for update of a

-- name: close_orphaned_attempts
update attempt set ended_at = $2, outcome = 'ambiguous', detail = 'worker lost'
where attempt_id = any($1::uuid[]) and ended_at is null
returning attempt_id

-- name: requeue_orphaned_notices
update notice set state = case when superseded_by is null then 'QUEUED' else 'SUPERSEDED' end,
    reason = case when superseded_by is not null then 'SUPERSEDED' end,
    ended_at = case when superseded_by is not null then $2::timestamptz end
where notice_id = any($1::uuid[]) and state = 'SENDING'

-- name: free_orphaned_lanes
with orphaned as (
    select l.recipient_id, l.encounter_id from lane l
    where l.lease is not null and not exists (select from delivery_worker w where w.worker_id = l.worker_id)
    order by l.recipient_id collate "C", l.encounter_id
    for update of l
)
update lane l set lease = null, worker_id = null, due_at = $1 from orphaned
where l.recipient_id = orphaned.recipient_id and l.encounter_id = orphaned.encounter_id
returning l.recipient_id

-- name: list_endpoint_states
select endpoint_id, state, not_before, failures, reason, changed_at,
       (select count(*) from lane where waits_for = e.endpoint_id) as lanes
from endpoint_state e

-- name: close_endpoint_items
update work_item set closed_at = $2, closed_by = $3, resolution = 'resumed'
where kind in ('ENDPOINT_PAUSED', 'ENDPOINT_DISABLED') and subject = $1 and closed_at is null
returning work_item_id

-- name: list_dead_letters
select n.notice_id, n.recipient_id, n.encounter_id, n.reason, n.attempts, n.created_at, n.ended_at, n.possibly_told,
       n.body, a.endpoint_id, a.outcome, a.status, a.detail
from notice n
left join lateral (
    select endpoint_id, outcome, status, detail from attempt where notice_id = n.notice_id
    order by number desc limit 1
) a on true
where n.state = 'FAILED' and ($1::text is null or n.recipient_id = $1)
order by n.ended_at desc, n.sequence desc limit $2

-- name: lock_dead_letters
-- `overtaken`: something newer was decided about the same fact for the same recipient.
select n.notice_id, n.recipient_id, n.encounter_id, n.reason,
       n.superseded_by is not null or exists (
           select from decision d join decision newer
               on newer.encounter_id = d.encounter_id and newer.recipient_id = d.recipient_id
              and newer.fact_kind = d.fact_kind and newer.occurrence = d.occurrence
              and newer.decision_id > d.decision_id
           where d.notice_id = n.notice_id and d.encounter_id = n.encounter_id
       ) as overtaken
from notice n
where n.notice_id = any($1::uuid[]) and n.state = 'FAILED'
order by n.notice_id
for update of n

-- name: replay_notices
update notice set state = 'QUEUED', reason = null, ended_at = null, endpoint = 0, expires_at = $2
where notice_id = any($1::uuid[]) and state = 'FAILED'

-- name: make_lanes_due
insert into lane (recipient_id, encounter_id, due_at)
select l.recipient_id, l.encounter_id, $3 from unnest($1::text[], $2::uuid[]) as l (recipient_id, encounter_id)
order by l.recipient_id collate "C", l.encounter_id
on conflict (recipient_id, encounter_id) do update set due_at = excluded.due_at

-- name: close_notice_items
update work_item set closed_at = $2, closed_by = $3, resolution = 'replayed'
where notice_id = any($1::uuid[]) and kind in ('NOTICE_UNDELIVERABLE', 'CANCELLATION_NOT_SENDABLE')
  and closed_at is null
returning work_item_id, notice_id

-- name: unalerted_items
select work_item_id, kind, subject, summary, feed, message_id, encounter_id, notice_id, opened_at from work_item
where alerted_at is null and closed_at is null
order by opened_at limit $1
for update skip locked

-- name: mark_alerted
update work_item set alerted_at = $2 where work_item_id = any($1::uuid[])

-- name: open_items
select kind, count(*) as items from work_item where closed_at is null group by kind

-- name: last_received
-- Within the days that matter alone: the table grows without end.
select feed, max(received_at) as at from message_seen
where day >= $1 and feed = any($2::text[]) group by feed

-- name: close_silent_feeds
update work_item set closed_at = $2, closed_by = 'tocengine', resolution = 'messages arrive again'
where kind = 'FEED_SILENT' and subject = any($1::text[]) and closed_at is null
returning work_item_id, subject
