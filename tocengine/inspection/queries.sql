-- name: messages_by_id  One message, by its own id.
select * from message_seen where message_id = $1 order by revision, part;

-- name: messages_by_control_id  The messages a feed sent under one control id, newest first.
select * from message_seen where feed = $1 and control_id = $2 order by received_at desc, revision, part limit 50;

-- name: messages_by_notice  The message that caused a notice.
select seen.* from notice
join lateral (select message_id from decision where notice_id = notice.notice_id order by decision_id limit 1) cause on true
join message_seen seen on seen.message_id = cause.message_id
where notice.notice_id = $1 order by seen.revision, seen.part;

-- name: quarantined  What was set aside of one message.
select message_id, stage, feed, control_id, reason, location, code, text, answered, content_type, received_at, state
from quarantine where message_id = $1;

-- name: quarantined_by_control_id
select message_id, stage, feed, control_id, reason, location, code, text, answered, content_type, received_at, state
from quarantine where feed = $1 and control_id = $2 order by received_at desc limit 50;

-- name: encounter_states
select encounter_id, state, revision, opened_at, closed_at, updated_at from encounter where encounter_id = any($1::uuid[]);

-- name: transitions_of_message
select transition_id, encounter_id, kind, status, occurrence, effective, created_at
from transition where message_id = $1 order by created_at, transition_id;

-- name: decisions_of_message
select decision_id, encounter_id, recipient_id, fact_kind, occurrence, basis, reason, notice_id, evidence, decided_at
from decision where message_id = $1 order by decision_id;

-- name: notices  Notices with where they stand.
select notice_id, recipient_id, encounter_id, state, possibly_told, attempts, created_at, expires_at, ended_at, reason
from notice where notice_id = any($1::uuid[]) order by sequence;

-- name: attempts
select attempt_id, notice_id, number, endpoint_id, started_at, ended_at, outcome, status, detail
from attempt where notice_id = any($1::uuid[]) order by started_at;

-- name: audit_of_message  Every audit row about a message or one of its notices; $3 are the encounters they are of.
select audit_id, at, action, actor, notice_id, recipient_id, detail
from audit_record
where encounter_id = any($3::uuid[]) and (message_id = $1 or notice_id = any($2::uuid[]))
   or encounter_id is null and message_id = $1
   or encounter_id is null and notice_id = any($2::uuid[])
order by audit_id;

-- name: status_messages
select feed, disposition, count(*) as count, max(received_at) as last_received_at
from message_seen group by feed, disposition order by feed, disposition;

-- name: status_quarantine
select feed, reason, count(*) as count from quarantine where state = 'OPEN' group by feed, reason order by feed, reason;

-- name: status_transitions
select kind, status, count(*) as count from transition group by kind, status order by kind, status;

-- name: status_notices
select recipient_id, state, count(*) as count from notice group by recipient_id, state order by recipient_id, state;

-- name: status_unsent
select reason, count(*) as count from decision where reason is not null group by reason order by reason;

-- name: status_attempts
select outcome, count(*) as count from attempt group by outcome order by outcome;

-- name: status_open
select (select count(*) from outbox) as outbox,
       (select count(*) from work_item where closed_at is null) as work_items,
       (select count(*) from endpoint_state where state <> 'ACTIVE') as endpoints_stopped,
       (select min(created_at) from notice where ended_at is null) as oldest_open_notice;

-- name: gauge_notices
select state, count(*) as count from notice where ended_at is null group by state;

-- name: gauge_endpoints
select count(*) from endpoint_state where state <> 'ACTIVE';

-- name: gauge_held
select count(*) from held_event;
