-- name: add_client  The name must be free, also of revoked clients.
insert into fhir_client (client_id, name, feed, scopes, requests_per_minute, created_at, created_by)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: add_credentials
insert into fhir_credential (client_id, kind, digest, jwks, created_at)
select $1, kind, digest, jwks, $5 from unnest($2::text[], $3::bytea[], $4::bytea[]) given(kind, digest, jwks);

-- name: remove_credentials  All of a kind, before others take their place.
delete from fhir_credential where client_id = $1 and kind = $2;

-- name: active_client
select client_id from fhir_client where name = $1 and revoked_at is null for update;

-- name: list_clients
select client.client_id, name, feed, scopes, requests_per_minute, client.created_at, created_by, revoked_at,
       coalesce(array_agg(kind order by credential_id) filter (where kind is not null), '{}') as kinds,
       coalesce(array_agg(digest order by credential_id) filter (where kind is not null), '{}') as digests,
       coalesce(array_agg(jwks order by credential_id) filter (where kind is not null), '{}') as key_sets
from fhir_client client left join fhir_credential using (client_id)
group by client.client_id order by name;

-- name: revoke_client
update fhir_client set revoked_at = $2 where name = $1 and revoked_at is null returning client_id;

-- name: forget_assertions  A few at a time.
delete from fhir_assertion where (client_id, jti) in (
    select client_id, jti from fhir_assertion where expires_at < $1 limit 100
);

-- name: use_assertion  No row where it was used before.
insert into fhir_assertion (client_id, jti, expires_at) values ($1, $2, $3) on conflict do nothing returning 1;

-- name: message_status  What became of one message; no row of message_seen: it is on the log and not read yet.
select seen.disposition, quarantine.reason, quarantine.location, quarantine.state
from (select $1::uuid as message_id) wanted
left join lateral (
    select disposition from message_seen where message_id = wanted.message_id
    order by (disposition = 'TRACKED') desc, revision desc limit 1
) seen on true
left join quarantine on quarantine.message_id = wanted.message_id;

-- name: lock_subscription  Until the end of the transaction: notifications may come to several processes at once.
select pg_advisory_xact_lock(hashtextextended($1, 0));

-- name: heard
select heard from fhir_subscription where feed = $1 and subscription = $2;

-- name: keep_heard
insert into fhir_subscription (feed, subscription, heard, updated_at) values ($1, $2, $3, $4)
on conflict (feed, subscription) do update set heard = excluded.heard, updated_at = excluded.updated_at;
