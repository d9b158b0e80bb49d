"""The FHIR endpoint over real HTTP: who may send, what is refused, and nothing positive before it is durable."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import orjson
import pytest

from tests.integration.fhir.setting import BASE, FEED, LIMIT, NOW, SOURCE, Partner, Start
from tests.unit.adapters.fhir.bundles import bundle, encoded, resource
from tocengine.adapters.fhir.clients import ClientStore, add_client, list_clients, revoke_client
from tocengine.adapters.fhir.server import FhirServer, create_app
from tocengine.adapters.fhir.sources import ResourceServers
from tocengine.adapters.fhir.subscriptions import Subscriptions
from tocengine.audit import PostgresAuditTrail
from tocengine.config import HttpSettings
from tocengine.errors import ConfigurationError
from tocengine.eventlog import Topic
from tocengine.model.event import EventRecord
from tocengine.model.ids import FeedName
from tocengine.model.message import Message
from tocengine.model.profile import Source, SourceProfile
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems


@pytest.mark.parametrize("path", ["/fhir/$process-message", "/fhir/%24process-message", "/fhir", "/fhir/Bundle"])
async def test_a_notification_is_answered_once_it_is_durable(partner: Partner, path: str) -> None:
    response, issue = await partner.post(encoded(bundle()), path)
    assert (response.status, response.content_type, issue["severity"]) == (202, "application/fhir+json", "information")
    assert issue["diagnostics"].startswith("message ")
    assert partner.stored() == {"toc.messages.v1": 1, "toc.events.v1": 1}


async def test_a_repeat_is_answered_the_same(partner: Partner) -> None:
    first = await partner.post(encoded(bundle()))
    second = await partner.post(encoded(bundle()))
    assert first[1] == second[1]


async def test_storage_trouble_gets_no_positive_answer(partner: Partner) -> None:
    partner.log.available = False
    response, issue = await partner.post(encoded(bundle()))
    assert (response.status, response.headers["Retry-After"], issue["code"]) == (503, "5", "transient")
    partner.log.available = True
    assert (await partner.post(encoded(bundle())))[0].status == 202


async def test_an_r5_encounter_is_refused_by_path_and_kept(partner: Partner) -> None:
    sent = bundle()
    encounter = resource(sent, "Encounter")
    encounter["actualPeriod"] = encounter.pop("period")
    response, issue = await partner.post(encoded(sent))
    assert (response.status, issue["severity"]) == (400, "error")
    assert issue["expression"] == ["Bundle.entry[1].resource.actualPeriod"]
    assert "R5" in issue["details"]["text"]
    assert partner.stored() == {"toc.quarantine.v1": 1}


async def test_what_lacks_its_keys_is_refused_and_kept(partner: Partner) -> None:
    response, issue = await partner.post(encoded(bundle(identifier=None)))
    assert (response.status, issue["code"]) == (422, "required")
    assert issue["expression"] == ["Bundle.entry[1].resource.identifier"]
    assert partner.stored() == {"toc.quarantine.v1": 1}


@pytest.mark.parametrize("body", [b"", b"MSH|^~\\&|", b"[" * 3000, b'{"resourceType":"Bundle"}'])
async def test_what_is_no_message_is_refused_and_kept(partner: Partner, body: bytes) -> None:
    response, issue = await partner.post(body)
    assert (response.status, issue["severity"]) == (400, "error")
    assert partner.stored() == {"toc.quarantine.v1": 1}


async def test_a_refusal_is_given_also_when_it_cannot_be_kept(partner: Partner) -> None:
    partner.log.available = False
    assert (await partner.post(b"{}"))[0].status == 400


async def test_other_content_is_not_read(partner: Partner) -> None:
    for headers in ({"Content-Type": "text/plain"}, {"Content-Encoding": "br"}):
        assert (await partner.post(encoded(bundle()), headers=headers))[0].status == 415
    assert (await partner.post(encoded(bundle()), "/fhir/$process-message?async=true"))[0].status == 422
    assert set(partner.stored()) == {Topic.QUARANTINE}


async def test_the_limit_holds_whether_or_not_the_length_is_announced(partner: Partner) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2 * LIMIT // 1024):
            yield b" " * 1024

    assert (await partner.post(b" " * (LIMIT + 1)))[0].status == 413
    assert (await partner.post(endless()))[0].status == 413
    assert set(partner.stored()) == {Topic.QUARANTINE}


async def test_a_large_message_is_taken_too(partner: Partner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocengine.adapters.fhir.server.LARGE_BYTES", 100)
    assert (await partner.post(encoded(bundle())))[0].status == 202
    assert (await partner.post(encoded(bundle(status="gone"))))[0].status == 400


async def test_a_large_message_is_read_beside_the_event_loop(partner: Partner, monkeypatch: pytest.MonkeyPatch) -> None:
    read_in: list[int] = []
    normalize = FhirNormalizer.normalize

    def noted(self: FhirNormalizer, message: Message) -> Sequence[EventRecord]:
        read_in.append(threading.get_ident())
        return normalize(self, message)

    monkeypatch.setattr(FhirNormalizer, "normalize", noted)
    assert (await partner.post(encoded(bundle())))[0].status == 202
    monkeypatch.setattr("tocengine.adapters.intake.LARGE_BYTES", 100)
    assert (await partner.post(encoded(bundle("admit", "in-progress"))))[0].status == 202
    here = threading.get_ident()
    assert [thread == here for thread in read_in] == [True, False]


async def test_other_addresses_answer_in_fhir_too(partner: Partner) -> None:
    assert (await partner.post(b"{}", "/fhir/Patient"))[0].status == 404
    async with partner.session.get(f"http://127.0.0.1:{partner.server.port}/fhir/$process-message") as response:
        assert response.status == 405
    async with partner.session.get(f"http://127.0.0.1:{partner.server.port}/fhir/metadata") as response:
        statement = orjson.loads(await response.read())
    assert (statement["resourceType"], statement["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    assert statement["rest"][0]["operation"][0]["name"] == "process-message"


async def test_the_capability_statement_is_valid(partner: Partner) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    async with partner.session.get(f"http://127.0.0.1:{partner.server.port}/fhir/metadata") as response:
        get_fhir_model_class("CapabilityStatement").model_validate_json(await response.read())


async def test_with_a_client_configured_only_its_key_opens(partner: Partner) -> None:
    assert (await partner.post(encoded(bundle())))[0].status == 202
    key = await partner.client()
    response, issue = await partner.post(encoded(bundle()))
    assert (response.status, issue["code"]) == (401, "login")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await partner.post(encoded(bundle()), headers={"Authorization": "Bearer tock_wrong"}))[0].status == 401
    assert (await partner.post(encoded(bundle()), headers=key))[0].status == 202
    bare = {"X-API-Key": key["Authorization"].removeprefix("Bearer ")}
    assert (await partner.post(encoded(bundle()), headers=bare))[0].status == 202


async def test_a_revoked_key_is_refused_and_the_door_stays_locked(partner: Partner) -> None:
    key = await partner.client()
    await revoke_client(partner.pool, PostgresAuditTrail(), "valley", "operator", NOW)
    assert (await partner.post(encoded(bundle()), headers=key))[0].status == 401
    assert (await partner.post(encoded(bundle())))[0].status == 401
    with pytest.raises(ConfigurationError):
        await revoke_client(partner.pool, PostgresAuditTrail(), "valley", "operator", NOW)


async def test_a_client_of_a_feed_that_is_not_here_is_forbidden(partner: Partner) -> None:
    key = await partner.client("other", FeedName("elsewhere"))
    assert (await partner.post(encoded(bundle()), headers=key))[0].status == 403


async def test_clients_are_listed_without_keys_and_recorded(pool: Pool) -> None:
    added = await add_client(pool, PostgresAuditTrail(), "valley", FEED, "operator", NOW)
    with pytest.raises(ConfigurationError, match="exists"):
        await add_client(pool, PostgresAuditTrail(), "valley", FEED, "operator", NOW)
    await revoke_client(pool, PostgresAuditTrail(), "valley", "operator", NOW)
    (client,) = await list_clients(pool)
    assert (client.client_id, client.revoked_at) == (added.client_id, NOW)
    dump = repr(
        [tuple(row) for row in await pool.fetch("select * from fhir_client join fhir_credential using (client_id)")]
    )
    assert added.key not in dump
    rows = await pool.fetch("select action, actor, detail from audit_record order by audit_id")
    assert [(row["action"], row["actor"], orjson.loads(row["detail"])["change"]) for row in rows] == [
        ("CLIENT_CHANGED", "operator", "added"),
        ("CLIENT_CHANGED", "operator", "revoked"),
    ]
    assert added.key not in repr([row["detail"] for row in rows])


async def test_two_feeds_need_a_client_to_tell_them_apart(start: Start) -> None:
    other = Source(feed=FeedName("second"), facility=SOURCE.facility, profile=SourceProfile())
    partner = await start(sources=(SOURCE, other))
    assert (await partner.post(encoded(bundle())))[0].status == 401


async def test_without_clients_it_listens_on_loopback_only(pool: Pool) -> None:
    settings = HttpSettings(listen="0.0.0.0:0")
    clients = ClientStore(pool, refresh_s=0.0)
    app = create_app(
        _NoIntake(),
        {FEED: SOURCE},
        clients,
        pool,
        Metrics(),
        settings,
        lambda: NOW,
        Subscriptions(pool, PostgresWorkItems(), ResourceServers({}, Metrics(), LIMIT), Metrics()),
        base_url=BASE,
        secret=bytes(32),
    )
    with pytest.raises(ConfigurationError, match="no FHIR client"):
        await FhirServer(app, clients, settings, Metrics()).start()
    await add_client(pool, PostgresAuditTrail(), "valley", FEED, "operator", NOW)
    server = FhirServer(app, clients, settings, Metrics())
    await server.start()
    await server.stop()


async def test_known_keys_outlive_an_outage_of_the_database(pool: Pool) -> None:
    added = await add_client(pool, PostgresAuditTrail(), "valley", FEED, "operator", NOW)
    store = ClientStore(pool, refresh_s=0.0)
    assert await store.by_key(added.key)
    await pool.close()
    assert await store.by_key(added.key)


async def test_draining_answers_what_is_under_way(partner: Partner) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    append = partner.log.append

    async def slow(records: Any) -> None:
        reached.set()
        await go_on.wait()
        await append(records)

    partner.log.append = slow  # type: ignore[method-assign]
    request = asyncio.create_task(partner.post(encoded(bundle())))
    await reached.wait()
    stopping = asyncio.create_task(partner.server.drain())
    await asyncio.sleep(0)
    go_on.set()
    assert (await request)[0].status == 202
    await stopping
    with pytest.raises(aiohttp.ClientConnectionError):
        await partner.post(encoded(bundle()))


async def test_answers_and_metrics_hold_no_content(partner: Partner) -> None:
    from prometheus_client import generate_latest

    await partner.post(encoded(bundle()))
    _, issue = await partner.post(encoded(bundle(status="O'NEIL")))
    exposed = generate_latest(partner.metrics.registry).decode() + repr(issue)
    assert "NEIL" not in exposed
    assert 'tocengine_messages_answered_total{code="202",feed="valley-fhir"} 1.0' in exposed
    assert 'tocengine_messages_answered_total{code="400",feed="valley-fhir"} 1.0' in exposed


class _NoIntake:
    async def turn(self, message: object) -> Any:
        raise AssertionError("nothing is sent in this test")

    async def accept(self, message: object, line: object = None) -> Any:
        raise AssertionError("nothing is sent in this test")

    async def refuse(self, message: object, error: object, line: object = None) -> Any:
        raise AssertionError("nothing is sent in this test")

    async def accept_whole(self, messages: object, ignored: object = ()) -> Any:
        raise AssertionError("nothing is sent in this test")

    async def ignore(self, message: object, line: object = None) -> Any:
        raise AssertionError("nothing is sent in this test")
