-- FHIR API clients: a key is shown once and kept only as a hash.

create table fhir_client (
    client_id  uuid        primary key,
    name       text        not null unique,
    feed       text        not null,
    key_hash   bytea       not null unique,
    created_at timestamptz not null,
    created_by text        not null,
    revoked_at timestamptz
);
