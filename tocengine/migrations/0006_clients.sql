-- FHIR API clients, what each proves itself by, and how far each subscription of a feed was heard.

create table fhir_client (
    client_id  uuid        primary key,
    name       text        not null unique,
    feed       text        not null,
    scopes     text        not null,
    requests_per_minute int,                    -- null: http.requests_per_minute
    created_at timestamptz not null,
    created_by text        not null,
    revoked_at timestamptz
);

create table fhir_credential (
    credential_id bigint generated always as identity primary key,
    client_id  uuid        not null references fhir_client,
    kind       text        not null,            -- KEY | CERTIFICATE | JWKS
    digest     bytea       unique,              -- SHA-256 of the key, which is shown once, or of the certificate
    jwks       bytea,                           -- the client's public keys
    created_at timestamptz not null
);
create index fhir_credential_by_client on fhir_credential (client_id);

create table fhir_assertion (                   -- used once: kept until they expire
    client_id  uuid        not null,
    jti        bytea       not null,            -- SHA-256
    expires_at timestamptz not null,
    primary key (client_id, jti)
);
create index fhir_assertion_by_expiry on fhir_assertion (expires_at);

create table fhir_subscription (
    feed         text        not null,
    subscription text        not null,          -- its URL on the sender's server
    heard        bytea       not null,          -- adapters/fhir/event_numbers.py: Heard
    updated_at   timestamptz not null,
    primary key (feed, subscription)
);
