-- name: mark_seen
-- One row per event; a row that is not returned was a repeat.
insert into message_seen (day, message_id, revision, part, feed, control_id, trigger, answered, received_at,
                          disposition, encounter_id, patient_id)
select s.* from unnest($1::date[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::text[],
                       $8::text[], $9::timestamptz[], $10::text[], $11::uuid[], $12::uuid[]) as s
on conflict (day, message_id, revision, part) do nothing
returning message_id, revision, part

-- name: insert_patients
-- No conflict target: two unique keys mean the same row here, and a race may show as either.
insert into patient (patient_id, domain, value, updated_at)
select p.patient_id, p.domain, p.value, $4
from unnest($1::uuid[], $2::text[], $3::text[]) as p (patient_id, domain, value)
order by p.patient_id
on conflict do nothing

-- name: lock_patients
select patient_id from patient where patient_id = any($1::uuid[]) order by patient_id for no key update

-- name: families
-- The survivors of these patients with all their aliases, as they are once the locks are held.
with root as (select distinct coalesce(survivor_id, patient_id) as id from patient where patient_id = any($1::uuid[]))
select p.patient_id, p.domain, p.value, p.survivor_id, p.moved_from, p.moved_at, p.statements
from root join patient p on p.patient_id = root.id
union all
select p.patient_id, p.domain, p.value, p.survivor_id, p.moved_from, p.moved_at, p.statements
from root join patient p on p.survivor_id = root.id

-- name: update_patients
update patient set survivor_id = p.survivor_id, moved_from = p.moved_from, moved_at = p.moved_at,
       statements = p.statements, updated_at = $6
from unnest($1::uuid[], $2::uuid[], $3::int[], $4::uuid[], $5::timestamptz[])
    as p (patient_id, survivor_id, statements, moved_from, moved_at)
where patient.patient_id = p.patient_id

-- name: edges
-- All that was ever said of keys of a kind ($1) that hang together with these ($2).
with recursive reached (id) as (
    select unnest($2::uuid[])
    union
    select hop.id from reached, lateral (
        select surviving_id as id from identity_edge where prior_id = reached.id and kind = $1
        union all
        select prior_id from identity_edge where surviving_id = reached.id and kind = $1
    ) as hop
)
select e.* from reached join identity_edge e on e.prior_id = reached.id and e.kind = $1

-- name: forget_edges
-- What an earlier revision of messages said of keys.
delete from identity_edge using unnest($1::uuid[], $2::smallint[]) as e (message_id, part)
where identity_edge.message_id = e.message_id and identity_edge.part = e.part

-- name: store_edges
insert into identity_edge (kind, prior_id, surviving_id, moved, message_id, part, place, revision, recorded_at, sequence,
                           received_at)
select e.* from unnest($1::text[], $2::uuid[], $3::uuid[], $4::bool[], $5::uuid[], $6::smallint[], $7::smallint[],
                       $8::smallint[], $9::timestamptz[], $10::int[], $11::timestamptz[]) as e
on conflict (message_id, part, place) do nothing

-- name: insert_encounters
insert into encounter (encounter_id, domain, visit_number, patient_id, feed, facility, state, body, revision, updated_at)
select e.encounter_id, e.domain, e.visit_number, e.patient_id, e.feed, e.facility, 'NONE', $8, 0, $7
from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[])
    as e (encounter_id, domain, visit_number, patient_id, feed, facility)
order by e.encounter_id
on conflict do nothing

-- name: lock_encounters
-- By id ($1) with those merged into them, open or closed since $3 under numbers ($2), and all under numbers ($4), in id
-- order.
select encounter_id, domain, visit_number, patient_id, survivor_id, body from encounter
where encounter_id = any($1::uuid[])
   or survivor_id = any($1::uuid[])
   or (patient_id = any($2::uuid[]) and (closed_at is null or closed_at > $3))
   or patient_id = any($4::uuid[])
order by encounter_id
for no key update

-- name: update_encounters
update encounter set patient_id = e.patient_id, feed = e.feed, facility = e.facility, state = e.state, body = e.body,
       opened_at = e.opened_at, closed_at = e.closed_at, survivor_id = e.survivor_id,
       revision = encounter.revision + 1, updated_at = $9
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::timestamptz[],
            $8::timestamptz[], $10::uuid[])
    as e (encounter_id, patient_id, feed, facility, state, body, opened_at, closed_at, survivor_id)
where encounter.encounter_id = e.encounter_id

-- name: former_homes
-- The encounters an earlier revision of these messages belongs to.
select distinct e.encounter_id, e.message_id, e.part
from message_seen s join encounter_event e on e.encounter_id = s.encounter_id and e.message_id = s.message_id
where s.message_id = any($1::uuid[])

-- name: read_history
select encounter_id, summary from encounter_event where encounter_id = any($1::uuid[])

-- name: read_statements
select patient_id, summary from patient_event where patient_id = any($1::uuid[])

-- name: store_events
insert into encounter_event (encounter_id, message_id, part, revision, recorded_at, received_at, linked, summary, fhir)
select e.* from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::timestamptz[], $6::timestamptz[],
                       $7::bool[], $8::bytea[], $9::bytea[]) as e
on conflict (encounter_id, message_id, part) do update set revision = excluded.revision,
    recorded_at = excluded.recorded_at, linked = excluded.linked, summary = excluded.summary, fhir = excluded.fhir

-- name: store_statements
insert into patient_event (patient_id, message_id, part, revision, recorded_at, received_at, summary, fhir)
select e.* from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::timestamptz[], $6::timestamptz[],
                       $7::bytea[], $8::bytea[]) as e
on conflict (patient_id, message_id, part) do update set revision = excluded.revision,
    recorded_at = excluded.recorded_at, summary = excluded.summary, fhir = excluded.fhir

-- name: forget_events
delete from encounter_event using unnest($1::uuid[], $2::uuid[], $3::smallint[]) as e (encounter_id, message_id, part)
where encounter_event.encounter_id = e.encounter_id and encounter_event.message_id = e.message_id
  and encounter_event.part = e.part

-- name: read_chart
-- The content of all events about encounters and those merged into them, and of what was said of patients ($2) of them
-- ($3): each encounter with every number of its patient.
with member as (
    select unnest($1::uuid[]) as root, unnest($1::uuid[]) as encounter_id
    union all
    select survivor_id, encounter_id from encounter where survivor_id = any($1::uuid[])
)
select m.root as encounter_id, e.summary, e.fhir
from member m join encounter_event e on e.encounter_id = m.encounter_id and not e.linked
union all
select n.encounter_id, s.summary, s.fhir
from unnest($2::uuid[], $3::uuid[]) as n (patient_id, encounter_id)
join patient_event s on s.patient_id = n.patient_id

-- name: store_snapshots
insert into snapshot (snapshot_id, encounter_id, content, fhir, created_at)
select s.* from unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bytea[], $5::timestamptz[]) as s
on conflict (snapshot_id) do nothing

-- name: store_transitions
insert into transition (transition_id, encounter_id, kind, status, fact_kind, occurrence, watched, snapshot_id,
                        supersedes, message_id, effective, created_at)
select t.* from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bytea[], $8::uuid[],
                       $9::uuid[], $10::uuid[], $11::text[], $12::timestamptz[]) as t

-- name: fill_outbox
-- In order; the relay is woken when the transaction commits.
with filled as (
    insert into outbox (topic, key, headers, value)
    select o.topic, o.key, o.headers, o.value
    from unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[]) with ordinality as o (topic, key, headers, value, place)
    order by o.place
    returning 1
)
select pg_notify('outbox', '') from (select from filled limit 1) as any_of_them

-- name: read_waiting
-- Held back: on partitions ($1) whose time has come ($2), of these encounters, or now read again as another revision.
select h.message_id, h.part, h.partition, h.encounter_id, h.release_at, h.summary, h.fhir from held_event h
where exists (select from unnest($1::int[], $2::timestamptz[]) as p (partition, until)
              where p.partition = h.partition and h.release_at <= p.until)
   or h.encounter_id = any($3::uuid[]) or h.message_id = any($4::uuid[])

-- name: count_waiting
select count(*) from held_event

-- name: window_ended
select exists (select from held_event where release_at <= $1)

-- name: read_ended
select h.message_id, h.part, h.partition, h.encounter_id, h.release_at, h.summary, h.fhir from held_event h
join unnest($1::int[], $2::timestamptz[]) as p (partition, until) on p.partition = h.partition and h.release_at <= p.until

-- name: forget_held
with gone as (
    delete from held_event h using unnest($1::uuid[], $2::smallint[]) as g (message_id, part)
    where h.message_id = g.message_id and h.part = g.part
    returning h.message_id, h.part
)
delete from message_seen s using gone where s.message_id = gone.message_id and s.part = gone.part and s.revision = 0

-- name: store_waiting
with kept as (
    insert into held_event (message_id, part, partition, encounter_id, release_at, summary, fhir)
    select h.* from unnest($1::uuid[], $2::smallint[], $3::int[], $4::uuid[], $5::timestamptz[], $6::bytea[], $7::bytea[])
        as h
    returning message_id, part
)
update message_seen s set disposition = 'HELD' from kept where s.message_id = kept.message_id and s.part = kept.part

-- name: take_out
with gone as (
    delete from held_event h using unnest($1::uuid[], $2::smallint[]) as g (message_id, part)
    where h.message_id = g.message_id and h.part = g.part
    returning h.message_id, h.part
), applied as (
    update message_seen s set disposition = 'TRACKED' from gone
    where s.message_id = gone.message_id and s.part = gone.part and s.disposition = 'HELD'
)
select message_id, part from gone

-- name: encounters_by_visit
-- The surviving encounters, with the surviving record of the patient; domain '' is any.
select e.*, person.domain as patient_domain, person.value as patient_value
from encounter e
join patient filed on filed.patient_id = e.patient_id
join patient person on person.patient_id = coalesce(filed.survivor_id, filed.patient_id)
where e.encounter_id in (select coalesce(survivor_id, encounter_id) from encounter
                         where visit_number = $1 and ($2 = '' or domain = $2))
order by e.domain, e.visit_number

-- name: encounter_numbers
-- An encounter and those merged into it.
select encounter_id, domain, visit_number from encounter where encounter_id = $1 or survivor_id = $1
order by survivor_id nulls first, domain, visit_number

-- name: encounter_events
-- In the order in which they became known.
select learned_at, summary from encounter_event where encounter_id = any($1::uuid[]) order by learned_at

-- name: encounter_statements
-- What was said of persons without naming a visit, in the order in which it became known.
select learned_at, summary from patient_event where patient_id = any($1::uuid[]) order by learned_at

-- name: encounter_held
select held_at, release_at, summary, message_id from held_event where encounter_id = any($1::uuid[])

-- name: encounter_transitions
-- In the order in which they were said; the log is written in the batch that made them.
select t.kind, t.status, t.effective, t.supersedes, t.message_id,
       coalesce((select max(learned_at) from encounter_event v
                 where v.encounter_id = t.encounter_id and v.message_id = t.message_id), t.created_at) as stored_at
from transition t where t.encounter_id = any($1::uuid[]) order by t.created_at, t.transition_id

-- name: encounter_decisions
select d.recipient_id, d.fact_kind, d.occurrence, d.basis, d.reason, d.evidence, d.status, d.notice_id, d.message_id,
       greatest(d.decided_at, (select max(learned_at) from encounter_event v
                               where v.encounter_id = d.encounter_id and v.message_id = d.message_id)) as decided_at
from decision d where d.encounter_id = any($1::uuid[]) order by d.decision_id

-- name: encounter_notices
select notice_id, recipient_id, state, reason, ended_at from notice
where encounter_id = any($1::uuid[]) and ended_at is not null order by sequence

-- name: store_due
insert into encounter_due (encounter_id, kind, due_at)
select d.* from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as d
on conflict (encounter_id, kind) do update set due_at = excluded.due_at

-- name: take_due
-- Each with its encounter, locked as a batch locks it; another router's are skipped.
with due as (
    select d.encounter_id, d.kind, e.body from encounter_due d join encounter e using (encounter_id)
    where d.due_at <= $1 and d.kind <> 'TELLING' order by d.due_at limit $2
    for update skip locked
), gone as (
    delete from encounter_due d using due where d.encounter_id = due.encounter_id and d.kind = due.kind
)
select encounter_id, kind, body from due

-- name: take_telling
-- Encounters of which has to be decided anew who is told what.
delete from encounter_due where kind = 'TELLING' and encounter_id in (
    select encounter_id from encounter_due where kind = 'TELLING' and due_at <= $1
    order by encounter_id limit $2 for update skip locked
)
returning encounter_id

-- name: encounter_bundles
-- What the messages of encounters said, oldest first.
select fhir from encounter_event where encounter_id = any($1::uuid[]) and not linked order by recorded_at, received_at
