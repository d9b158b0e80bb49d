"""Owns what a person does with endpoints: list them, test one, pause one, resume one."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import uuid4

import msgspec

from tocengine.delivery.addresses import AddressBook, ResolveSecret
from tocengine.delivery.breaker import FRESH, EndpointStanding, EndpointStatus
from tocengine.delivery.channels.base import HttpPoster, classify
from tocengine.delivery.channels.webhook import signed_headers
from tocengine.delivery.postgres import QUERIES, lock_standings, store_standings, wake_lanes
from tocengine.delivery.work import endpoint_changed
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.directory import ChannelKind, Endpoint, Recipient
from tocengine.model.ids import EndpointId, RecipientId
from tocengine.model.notice import Failure, Outcome
from tocengine.ports import NOTICES_DUE, AuditTrail, Transaction


class EndpointLine(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of the directory and how it stands. `lanes` wait for it."""

    endpoint_id: EndpointId
    recipient_id: RecipientId
    channel: ChannelKind
    url: str
    status: EndpointStatus
    not_before: datetime | None = None
    failures: int = 0
    reason: str = ""
    changed_at: datetime | None = None
    lanes: int = 0


async def list_endpoints(transaction: Transaction, recipients: Iterable[Recipient]) -> Sequence[EndpointLine]:
    """Every endpoint of `recipients`, in the directory's order."""
    rows = {row["endpoint_id"]: row for row in await transaction.fetch(QUERIES["list_endpoint_states"])}
    lines = []
    for recipient in recipients:
        for endpoint in recipient.endpoints:
            row = rows.get(endpoint.id)
            known = {} if row is None else {name: row[name] for name in _STORED}
            lines.append(
                EndpointLine(
                    endpoint_id=endpoint.id,
                    recipient_id=recipient.recipient_id,
                    channel=endpoint.channel,
                    url=endpoint.url,
                    status=EndpointStatus.ACTIVE if row is None else EndpointStatus(row["state"]),
                    **known,
                )
            )
    return lines


_STORED = ("not_before", "failures", "reason", "changed_at", "lanes")


async def pause(
    transaction: Transaction, audit: AuditTrail, endpoint_id: str, actor: str, now: datetime
) -> EndpointStatus:
    """Sends nothing there until it is resumed; what is due waits. Returns how it stood before."""
    before = await _stored(transaction, endpoint_id)
    standing = EndpointStanding(status=EndpointStatus.PAUSED, reason="by command")
    await store_standings(transaction, {endpoint_id: standing}, now)
    record, _ = endpoint_changed(endpoint_id, standing, now, actor)
    await audit.record(transaction, [record])
    return before.status


async def resume(
    transaction: Transaction, audit: AuditTrail, endpoint_id: str, actor: str, now: datetime
) -> EndpointStatus:
    """Sends there again, from a paused, disabled or resting endpoint, and closes its work items. Returns how it
    stood before."""
    before = await _stored(transaction, endpoint_id)
    await store_standings(transaction, {endpoint_id: FRESH}, now)
    closed = await transaction.fetch(QUERIES["close_endpoint_items"], endpoint_id, now, actor)
    await wake_lanes(transaction, [endpoint_id], now)
    record, _ = endpoint_changed(endpoint_id, FRESH, now, actor)
    records = [record] + [
        AuditRecord(
            action=AuditAction.WORK_ITEM_CLOSED,
            at=now,
            actor=actor,
            detail={"work_item": str(row["work_item_id"]), "endpoint": endpoint_id},
        )
        for row in closed
    ]
    await audit.record(transaction, records)
    await transaction.execute("select pg_notify($1, '')", NOTICES_DUE)
    return before.status


async def _stored(transaction: Transaction, endpoint_id: str) -> EndpointStanding:
    return (await lock_standings(transaction, [endpoint_id])).get(endpoint_id, FRESH)


async def probe(poster: HttpPoster, endpoint: Endpoint, resolve: ResolveSecret, now: datetime) -> Outcome:
    """Tries an endpoint without any patient's data and without a trace in its state.

    A webhook gets a signed message of type ``ping``; a FHIR endpoint is asked for its capability statement.
    """
    address = AddressBook(resolve).address(endpoint, now)
    if address is None:
        return Outcome(failure=Failure.PAUSE, delivered=False, reached=False, detail="secret not available")
    if endpoint.channel is ChannelKind.FHIR:
        url = f"{address.url.rstrip('/')}/metadata"
        headers = {**address.headers, "accept": "application/fhir+json"}
        answer = await poster.get(url, headers, address.timeout_s, now)
    else:
        identifier = str(uuid4())
        body = msgspec.json.encode({"type": "ping", "timestamp": now.isoformat(), "data": {"id": identifier}})
        headers = signed_headers(identifier, body, address.secrets, now, address.headers)
        answer = await poster.post(address.url, body, headers, address.timeout_s, now, read=False)
    return answer if isinstance(answer, Outcome) else classify(answer)
