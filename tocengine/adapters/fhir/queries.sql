-- name: add_client stores a client with the hash of its key; the name must be free, also of revoked clients
insert into fhir_client (client_id, name, feed, key_hash, created_at, created_by)
values ($1, $2, $3, $4, $5, $6);

-- name: list_clients
select client_id, name, feed, key_hash, created_at, created_by, revoked_at from fhir_client order by name;

-- name: revoke_client
update fhir_client set revoked_at = $2 where name = $1 and revoked_at is null
returning client_id, name, feed, created_at, created_by, revoked_at;
