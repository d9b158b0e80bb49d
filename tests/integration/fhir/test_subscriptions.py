"""Subscription notifications over HTTP: handshake, heartbeat, gaps, and what is fetched from the sender's server."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.integration.fhir.setting import FEED, Partner, Start
from tests.unit.adapters.fhir.bundles import Bundle, bundle, encoded
from tests.unit.adapters.fhir.written import notification
from tocengine.config import FhirSourceSettings

BASE = "https://ehr.example.org/fhir"


async def gaps(partner: Partner) -> list[str]:
    rows = await partner.pool.fetch(
        "select summary from work_item where kind = 'SUBSCRIPTION_GAP' and closed_at is null order by opened_at"
    )
    return [row["summary"] for row in rows]


async def send(partner: Partner, **about: Any) -> int:
    response, _ = await partner.post(encoded(notification(bundle(), **about)), "/fhir")
    return response.status


async def test_handshake_and_heartbeat_are_noted_and_no_message(partner: Partner) -> None:
    assert await send(partner, kind="handshake", numbers=(), total=0) == 200
    assert await send(partner, kind="heartbeat", numbers=(), total=0) == 200
    assert partner.stored() == {}
    assert await gaps(partner) == []


async def test_full_resources_become_events(partner: Partner) -> None:
    assert await send(partner, numbers=(1,), method="POST") == 202
    assert partner.stored() == {"toc.messages.v1": 1, "toc.events.v1": 1}


async def test_a_missing_event_opens_a_work_item_that_closes_when_it_comes(partner: Partner) -> None:
    await send(partner, kind="handshake", numbers=(), total=0)
    for number in (1, 4):
        assert await send(partner, numbers=(number,)) == 202
    assert await gaps(partner) == [
        "Events 2 to 3 of a subscription of feed valley-fhir did not arrive: ask its sender for them."
    ]
    await send(partner, numbers=(2,))
    assert len(await gaps(partner)) == 1
    await send(partner, numbers=(3,))
    assert await gaps(partner) == []
    assert partner.metrics.fhir_events_missing.labels(FEED)._value.get() == 2


async def test_a_heartbeat_shows_what_did_not_come(partner: Partner) -> None:
    await send(partner, numbers=(1,))
    await send(partner, kind="heartbeat", numbers=(), total=2)
    assert len(await gaps(partner)) == 1


async def test_ids_alone_are_kept_for_a_person_where_no_server_is_configured(partner: Partner) -> None:
    response, issue = await partner.post(encoded(notification(bundle(), resources=False)), "/fhir")
    assert (response.status, issue["severity"]) == (202, "warning")
    assert partner.stored() == {"toc.messages.v1": 1, "toc.quarantine.v1": 1}


@pytest.mark.parametrize(
    ("change", "location"),
    [
        (lambda b: b["entry"][0]["resource"].update(resourceType="Patient"), "Bundle.entry[0]"),
        (lambda b: b["entry"][0]["resource"]["parameter"].pop(0), "Bundle.entry[0].resource"),
        (lambda b: b["entry"][0]["resource"]["parameter"].pop(2), "Bundle.entry[0].resource"),
        (
            lambda b: b["entry"][0]["resource"]["parameter"][-1]["part"].pop(0),
            "Bundle.entry[0].resource.parameter",
        ),
    ],
)
async def test_a_notification_that_says_too_little_is_refused(partner: Partner, change: Any, location: str) -> None:
    sent = notification(bundle())
    change(sent)
    response, issue = await partner.post(encoded(sent), "/fhir")
    assert (response.status, issue["expression"]) == (400, [location])


# --- the sender's server


class Ehr:
    """A sender's FHIR server on loopback: gives resources by id, and events by number, to who has its token."""

    def __init__(self) -> None:
        self.resources: dict[str, Bundle] = {}
        self.events: dict[int, Bundle] = {}
        self.asked: list[str] = []
        self.status = 200
        self.base = ""

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/fhir/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.base = f"http://127.0.0.1:{runner.addresses[0][1]}/fhir"
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.asked.append(path)
        if self.status != 200 or request.headers.get("Authorization") != "Bearer t-1":
            return web.Response(status=self.status if self.status != 200 else 401)
        found = self.resources.get(path)
        if path.endswith("$events"):
            found = self.events.get(int(request.query["eventsSinceNumber"]))
        return web.Response(body=orjson.dumps(found)) if found else web.Response(status=404)

    def of(self, sent: Bundle) -> Bundle:
        """`sent` with its addresses on this server."""
        found: Bundle = orjson.loads(orjson.dumps(sent).replace(BASE.encode(), self.base.encode()))
        return found


@pytest.fixture
async def ehr() -> AsyncIterator[Ehr]:
    ehr = Ehr()
    runner = await ehr.start()
    yield ehr
    await runner.cleanup()


@pytest.fixture
async def connected(start: Start, ehr: Ehr) -> AsyncIterator[Partner]:
    partner = await start(servers={FEED: FhirSourceSettings(base_url=ehr.base, token="t-1")})
    async with partner.servers:
        yield partner


def told_of(ehr: Ehr, number: int = 1) -> Bundle:
    """A notification of ids alone, whose resources the server has."""
    whole = ehr.of(notification(bundle(), numbers=(number,), method="POST"))
    for entry in whole["entry"][1:]:
        ehr.resources[entry["fullUrl"].removeprefix(ehr.base + "/")] = entry["resource"]
    return whole | {"entry": whole["entry"][:1]}


async def test_what_is_only_told_of_is_fetched(connected: Partner, ehr: Ehr) -> None:
    response, _ = await connected.post(encoded(told_of(ehr)), "/fhir")
    assert response.status == 202
    assert connected.stored() == {"toc.messages.v1": 1, "toc.events.v1": 1}
    assert {"Encounter/e", "Patient/p", "Practitioner/dr", "Location/dest"} <= set(ehr.asked)
    ((_, stored),) = [(k, v) for k, v in connected.log.records.items() if k[0] == "toc.messages.v1"]
    assert b"V500" in stored[0].value  # with what was fetched, so that it can be read again


async def test_a_server_that_is_away_gets_the_notification_sent_again(connected: Partner, ehr: Ehr) -> None:
    sent = told_of(ehr)
    ehr.status = 503
    assert (await connected.post(encoded(sent), "/fhir"))[0].status == 503
    assert connected.stored() == {}
    ehr.status = 200
    assert (await connected.post(encoded(sent), "/fhir"))[0].status == 202


async def test_what_a_server_gives_is_looked_at_like_what_is_sent(connected: Partner, ehr: Ehr) -> None:
    sent = told_of(ehr)
    (patient,) = [each for each in ehr.resources.values() if each["resourceType"] == "Patient"]
    patient["nickname"] = "no element of R4"
    response, issue = await connected.post(encoded(sent), "/fhir")
    assert (response.status, issue["severity"]) == (400, "error")
    assert issue["expression"][0].endswith(".nickname")
    assert connected.stored() == {"toc.quarantine.v1": 1}


async def test_a_server_that_refuses_leaves_it_to_a_person(connected: Partner, ehr: Ehr) -> None:
    sent = told_of(ehr)
    ehr.status = 403
    assert (await connected.post(encoded(sent), "/fhir"))[1]["severity"] == "warning"
    assert connected.stored()["toc.quarantine.v1"] == 1


async def test_no_other_server_is_ever_asked(connected: Partner, ehr: Ehr) -> None:
    for focus in (
        "http://127.0.0.1:1/fhir/Encounter/e",
        f"{ehr.base}/../admin/Encounter/e",
        f"{ehr.base}.evil/Encounter/e",
    ):
        sent = notification(bundle(), resources=False, focus=focus)
        assert (await connected.post(encoded(sent), "/fhir"))[1]["severity"] == "warning"
    assert ehr.asked == []


async def test_missing_events_are_asked_for(connected: Partner, ehr: Ehr) -> None:
    ehr.events[2] = ehr.of(notification(bundle(), kind="query-event", numbers=(2,), total=3))
    assert (await connected.post(encoded(ehr.of(notification(bundle(), numbers=(1,)))), "/fhir"))[0].status == 202
    assert (await connected.post(encoded(ehr.of(notification(bundle(), numbers=(3,)))), "/fhir"))[0].status == 202
    await connected.subscriptions.drain()
    assert "Subscription/admissions/$events" in ehr.asked
    assert await gaps(connected) == []
    assert connected.stored()["toc.messages.v1"] == 3
