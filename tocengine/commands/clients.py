"""Owns the commands around FHIR API clients: who may send on which feed, and what each proves itself by."""

from pathlib import Path

import msgspec
import typer

from tocengine.adapters.fhir.clients import (
    DEFAULT_SCOPES,
    Credentials,
    NewClient,
    add_client,
    list_clients,
    renew_client,
    revoke_client,
)
from tocengine.adapters.fhir.registration import read_certificates, read_jwks, read_scopes
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run, user
from tocengine.deployment import fhir_base
from tocengine.errors import TocError
from tocengine.model.ids import FeedName

clients = typer.Typer(no_args_is_help=True, help="FHIR API clients: who may send, on which feed.")

_CertificateOption = typer.Option([], "--certificate", help="PEM of a client certificate to pin; may be repeated.")
_JwksOption = typer.Option(None, "--jwks", help="Public keys for SMART Backend Services: a JWK Set, or a PEM key.")


@clients.command("add")
def add(
    name: str,
    feed: str = typer.Option(..., "--feed"),
    certificate: list[Path] = _CertificateOption,
    jwks: Path | None = _JwksOption,
    key: bool | None = typer.Option(None, "--key/--no-key", help="An API key; by default where nothing else is given."),
    scopes: str = typer.Option(DEFAULT_SCOPES, help="What its access tokens may allow."),
    requests_per_minute: int | None = typer.Option(None, min=1, help="Instead of http.requests_per_minute."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Add a client; shows its key, this once, and its client id."""
    settings = load(config)
    if feed not in {each.name for each in settings.feeds if each.protocol == "fhir"}:
        output.fail(f"no feed {feed!r} with protocol fhir is configured", 2)
    credentials = _credentials(certificate, jwks, key)

    async def work() -> NewClient:
        async with connected(settings) as pool:
            return await add_client(
                pool,
                PostgresAuditTrail(),
                name,
                FeedName(feed),
                user(),
                utc_now(),
                credentials,
                scopes=read_scopes(scopes),
                requests_per_minute=requests_per_minute,
            )

    made = run(work())
    if not as_json:
        output.stdout.print(f"Client {name} may send on feed {feed}.", markup=False)
    _show(made, fhir_base(settings) if jwks else "", as_json=as_json)


@clients.command("renew")
def renew(
    name: str,
    certificate: list[Path] = _CertificateOption,
    jwks: Path | None = _JwksOption,
    key: bool | None = typer.Option(None, "--key/--no-key", help="A new API key; by default if nothing else is given."),
    keep: bool = typer.Option(False, "--keep", help="Let the old ones count too, until they are renewed without it."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Give a client new credentials; the old ones of the same kind end within 2 s."""
    settings = load(config)
    credentials = _credentials(certificate, jwks, key)

    async def work() -> NewClient:
        async with connected(settings) as pool:
            return await renew_client(pool, PostgresAuditTrail(), name, user(), utc_now(), credentials, keep=keep)

    made = run(work())
    if not as_json:
        output.stdout.print(f"Client {name} is renewed.", markup=False)
    _show(made, fhir_base(settings) if jwks else "", as_json=as_json)


@clients.command("list")
def list_all(config: Path = ConfigOption, as_json: bool = JsonOption) -> None:
    """Every client, revoked ones too."""

    async def work() -> list[dict[str, object]]:
        async with connected(load(config)) as pool:
            return [msgspec.structs.asdict(client) for client in await list_clients(pool)]

    output.rows(run(work()), as_json=as_json, title="FHIR clients", empty="No clients: FHIR is taken on loopback only.")


@clients.command("revoke")
def revoke(name: str, config: Path = ConfigOption) -> None:
    """End a client; its credentials are refused within 2 s."""

    async def work() -> None:
        async with connected(load(config)) as pool:
            await revoke_client(pool, PostgresAuditTrail(), name, user(), utc_now())

    run(work())
    output.stdout.print(f"Client {name} is revoked.", markup=False)


def _credentials(certificates: list[Path], jwks: Path | None, key: bool | None) -> Credentials:
    try:
        return Credentials(
            key=key if key is not None else not (certificates or jwks),
            certificates=tuple(der for path in certificates for der in read_certificates(path)),
            jwks=read_jwks(jwks) if jwks else None,
        )
    except TocError as error:
        output.fail(str(error), error.exit_code)


def _show(made: NewClient, base_url: str, *, as_json: bool) -> None:
    if as_json:
        output.document({"client_id": made.client_id, "key": made.key or None})
        return
    output.stdout.print(f"Client id: {made.client_id}", markup=False)
    if base_url:
        output.stdout.print(f"Tokens: {base_url}/auth/token", markup=False)
    if made.key:
        output.stdout.print(f"Its key, not shown again:\n{made.key}", markup=False)
