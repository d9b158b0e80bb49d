-- Messages seen, patients, encounters with their history, and what is told of them.

create table message_seen (
    day          date        not null,  -- of MSH-7, which the id is made of too: one partition a day
    message_id   uuid        not null,
    revision     smallint    not null,  -- 0 as received, higher when normalized again; -1 was set aside unread
    part         smallint    not null,
    feed         text        not null,
    control_id   text        not null,
    trigger      text        not null,
    answered     text        not null,
    received_at  timestamptz not null,
    disposition  text        not null,  -- TRACKED | HELD | NOT_HANDLED | QUARANTINED | SET_ASIDE
    encounter_id uuid,
    patient_id   uuid,
    tracked_at   timestamptz not null default clock_timestamp(),
    primary key (day, message_id, revision, part)
) partition by range (day);
create index message_seen_by_id on message_seen (message_id);
create index message_seen_by_control_id on message_seen (feed, control_id);
create table message_seen_other partition of message_seen default;  -- days nobody prepared: wrong clocks, old messages

create function prepare_message_seen(first_day date, last_day date) returns int language plpgsql as $$
-- A partition for each day that has none; what was kept elsewhere of that day moves there. Returns how many were made.
declare
    one  date;
    name text;
    made int := 0;
begin
    for one in select generate_series(first_day, last_day, interval '1 day')::date loop
        name := 'message_seen_' || to_char(one, 'YYYYMMDD');
        continue when to_regclass(name) is not null;
        execute format('create table %I (like message_seen including all)', name);
        execute format('with moved as (delete from message_seen_other where day = %L returning *) '
                       'insert into %I select * from moved', one, name);
        execute format('alter table message_seen attach partition %I for values from (%L) to (%L)', name, one, one + 1);
        made := made + 1;
    end loop;
    return made;
end $$;
select prepare_message_seen(current_date - 1, current_date + 7);

create table quarantine (
    message_id  uuid        primary key,
    stage       text        not null,
    feed        text        not null,
    control_id  text        not null,
    reason      text        not null,
    location    text        not null,
    code        text        not null,
    text        text        not null,
    answered    text        not null,
    content_type text       not null,
    body        bytea       not null,
    received_at timestamptz not null,
    revision    smallint    not null,                 -- of the event that could not be tracked; -1 there was none
    state       text        not null default 'OPEN',  -- OPEN | RETRIED | DISCARDED
    retries     int         not null default 0,
    settled_at  timestamptz,
    settled_by  text,
    resolution  text                                  -- why it was discarded; what became of it otherwise
);
create index quarantine_open on quarantine (received_at) where state = 'OPEN';

create table patient (
    patient_id  uuid        primary key,
    domain      text        not null,
    value       text        not null,
    survivor_id uuid        references patient,  -- set by a merge or move: this key is an alias from then on
    moved_from  uuid,                            -- the number changed hands (A43): up to moved_at it was this patient's
    moved_at    timestamptz,
    statements  int         not null default 0,  -- rows of patient_event under this key
    updated_at  timestamptz not null,
    unique (domain, value)
);
create index patient_by_survivor on patient (survivor_id) where survivor_id is not null;

create table identity_edge (  -- what messages said of keys; families are folded from it in canonical order
    kind         text        not null,  -- PATIENT | VISIT | ACCOUNT | LINK | UNLINK
    prior_id     uuid        not null,
    surviving_id uuid        not null,
    moved        boolean     not null,
    message_id   uuid        not null,
    part         smallint    not null,
    place        smallint    not null,
    revision     smallint    not null,
    recorded_at  timestamptz not null,
    sequence     int         not null,
    received_at  timestamptz not null,
    primary key (message_id, part, place)
);
create index identity_edge_by_prior on identity_edge (prior_id, kind);
create index identity_edge_by_surviving on identity_edge (surviving_id, kind);

create table encounter (
    encounter_id uuid        primary key,
    domain       text        not null,
    visit_number text        not null,
    patient_id   uuid        not null references patient,  -- the number it is filed under; patient.survivor_id says whose
    survivor_id  uuid        references encounter,         -- the visit it was merged into: state MERGED
    feed         text        not null,
    facility     text        not null,
    state        text        not null,
    body         bytea       not null,  -- encounters/state.py: EncounterBody
    revision     int         not null,
    opened_at    timestamptz,
    closed_at    timestamptz,
    updated_at   timestamptz not null,
    unique (domain, visit_number)
);
create index encounter_by_patient on encounter (patient_id);
create index encounter_by_survivor on encounter (survivor_id) where survivor_id is not null;

create table encounter_event (
    encounter_id uuid        not null,
    message_id   uuid        not null,
    part         smallint    not null,
    revision     smallint    not null,
    recorded_at  timestamptz not null,
    received_at  timestamptz not null,
    linked       boolean     not null,  -- an event of another visit that names this one; without content
    summary      bytea       not null,  -- model.event.Event
    fhir         bytea       not null,
    learned_at   timestamptz not null default clock_timestamp(),
    primary key (encounter_id, message_id, part)
);

create table held_event (  -- obviously early: waits for what it presupposes, or for the end of its window
    message_id   uuid        not null,
    part         smallint    not null,
    partition    int         not null,  -- of the event log: its owner releases it
    encounter_id uuid        not null,
    release_at   timestamptz not null,
    summary      bytea       not null,  -- model.event.Event
    fhir         bytea       not null,
    held_at      timestamptz not null default clock_timestamp(),
    primary key (message_id, part)
);
create index held_event_by_time on held_event (partition, release_at);
create index held_event_by_encounter on held_event (encounter_id);

create table encounter_due (  -- rules that fire later: what a person is asked when something has not come in time
    encounter_id uuid        not null,
    kind         text        not null,  -- ADMISSION | CLOSING
    due_at       timestamptz not null,
    primary key (encounter_id, kind)
);
create index encounter_due_by_time on encounter_due (due_at);

create table patient_event (  -- what was said of a person without naming a visit (A28, A31, A40); a move also under whom it leaves
    patient_id   uuid        not null,  -- of the key as it was sent, whatever it was merged into
    message_id   uuid        not null,
    part         smallint    not null,
    revision     smallint    not null,
    recorded_at  timestamptz not null,
    received_at  timestamptz not null,
    summary      bytea       not null,
    fhir         bytea       not null,
    learned_at   timestamptz not null default clock_timestamp(),
    primary key (patient_id, message_id, part)
);

create table snapshot (
    snapshot_id  uuid        primary key,
    encounter_id uuid        not null,
    content      bytea       not null,  -- model.encounter.Snapshot
    fhir         bytea       not null,  -- the chart: a collection Bundle
    created_at   timestamptz not null
);

create table transition (
    transition_id uuid        primary key,
    encounter_id  uuid        not null,
    kind          text        not null,
    status        text        not null,
    fact_kind     text        not null,
    occurrence    int         not null,
    watched       bytea       not null,
    snapshot_id   uuid,                   -- null: published, told to nobody (bed moves, leaves)
    supersedes    uuid,
    message_id    uuid        not null,
    effective     text        not null,
    created_at    timestamptz not null
);
create index transition_by_encounter on transition (encounter_id);
create index transition_by_message on transition (message_id);

create table outbox (
    outbox_id bigint generated always as identity primary key,
    topic     text  not null,
    key       bytea not null,
    headers   bytea not null,
    value     bytea not null
);

create table work_item (
    work_item_id uuid        primary key,
    kind         text        not null,
    subject      text        not null,
    summary      text        not null,
    feed         text        not null,
    message_id   uuid,
    encounter_id uuid,
    notice_id    uuid,
    opened_at    timestamptz not null,
    alerted_at   timestamptz,
    closed_at    timestamptz,
    closed_by    text,
    resolution   text
);
create unique index work_item_open on work_item (kind, subject) where closed_at is null;
create index work_item_unalerted on work_item (opened_at) where alerted_at is null;
