-- Decisions, notices, and how they are delivered.

create table decision (
    decision_id  bigint generated always as identity primary key,
    encounter_id uuid        not null,
    recipient_id text        not null,  -- '' : nobody was found for the fact
    fact_kind    text        not null,
    occurrence   int         not null,
    watched      bytea       not null,
    basis        text[]      not null,
    reason       text,                  -- null: a notice was made
    status       text,                  -- of that notice: NEW | UPDATED | CANCELLED | RETRACTED
    level        text,                  -- of that notice
    patient_id   uuid        not null,  -- whose encounter it was then: a merge or move is told by the difference
    notice_id    uuid,
    evidence     text        not null,
    message_id   uuid        not null,
    decided_at   timestamptz not null
);
create index decision_by_encounter on decision (encounter_id, recipient_id);
create index decision_by_message on decision (message_id);

create table lane (
    recipient_id text collate "C" not null,  -- claims take recipients in this order, which does not depend on the server
    encounter_id uuid        not null,
    due_at       timestamptz,           -- null: nothing to send
    lease        uuid,                  -- the worker's token while it holds the lane
    worker_id    uuid,
    waits_for    text,                  -- the endpoint it waits for; with due_at null, parked until that one is back
    probe        boolean     not null default false,    -- the one lane sent to find out whether that one is back
    parked_until timestamptz,           -- of a parked lane: when its first notice expires
    primary key (recipient_id, encounter_id)
);
create index lane_due on lane (recipient_id, due_at) where lease is null and due_at is not null;
create index lane_by_worker on lane (worker_id) where lease is not null;
create index lane_waiting on lane (waits_for) where waits_for is not null;
create index lane_parked on lane (waits_for, parked_until) where due_at is null and waits_for is not null and lease is null;

create table notice (
    notice_id     uuid        primary key,
    sequence      bigint generated always as identity,  -- order within the lane
    recipient_id  text collate "C" not null,            -- as the lane
    encounter_id  uuid        not null,
    snapshot_id   uuid        not null,
    state         text        not null,
    possibly_told boolean     not null default false,   -- an attempt may have reached the recipient
    body          bytea       not null,                 -- model.notice.Notice
    endpoint      smallint    not null default 0,       -- index into the recipient's endpoints
    attempts      int         not null default 0,
    created_at    timestamptz not null,
    expires_at    timestamptz not null,
    ended_at      timestamptz,
    superseded_by uuid,                                 -- a newer notice says otherwise: no further attempt, no replay
    reason        text                                  -- why it ended other than by delivery
);
create index notice_open on notice (recipient_id, encounter_id, sequence) where ended_at is null;
create index notice_by_encounter on notice (encounter_id);

create table attempt (
    attempt_id  uuid        primary key,
    notice_id   uuid        not null,
    number      int         not null,
    endpoint_id text        not null,
    digest      bytea       not null,
    started_at  timestamptz not null,
    ended_at    timestamptz,
    outcome     text,                   -- delivered | received | transient | ambiguous | permanent | pause | disable
    status      int,
    detail      text
);
create index attempt_by_notice on attempt (notice_id);
create index attempt_open on attempt (started_at) where ended_at is null;

create table endpoint_state (
    endpoint_id text        primary key,
    state       text        not null default 'ACTIVE',  -- ACTIVE | PAUSED | DISABLED
    not_before  timestamptz,
    failures    int         not null default 0,
    reason      text        not null default '',
    changed_at  timestamptz not null
);

create table delivery_worker (
    worker_id    uuid        primary key,
    started_at   timestamptz not null,
    heartbeat_at timestamptz not null
);
