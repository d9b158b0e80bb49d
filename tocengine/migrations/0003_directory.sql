-- Who can be told. Every applied version of an object is kept; the row without `retired_at` is in force.

create table directory_object (
    kind       text        not null,  -- facility | practitioner
    id         text        not null,
    version    int         not null,
    body       bytea       not null,  -- model.directory.Recipient
    applied_at timestamptz not null,
    applied_by text        not null,
    retired_at timestamptz,
    primary key (kind, id, version)
);
create unique index directory_object_in_force on directory_object (kind, id) where retired_at is null;

create table panel_member (
    recipient_id text        not null,  -- or opt-out:RECIPIENT, opt-out: for everybody: who may not be told of the patient
    domain       text        not null,
    value        text        not null,
    starts       date,
    ends         date,
    family       text        not null default '',
    given        text        not null default '',
    birth_date   text        not null default '',
    sex          text        not null default '',
    applied_at   timestamptz not null,
    retired_at   timestamptz
);
create unique index panel_member_in_force on panel_member (domain, value, recipient_id) where retired_at is null;
create index panel_member_by_recipient on panel_member (recipient_id) where retired_at is null;

create table directory_version (
    singleton boolean primary key default true check (singleton),
    version   bigint  not null
);
insert into directory_version (version) values (0);
