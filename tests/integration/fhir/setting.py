"""Owns the partner of the FHIR tests: a server with a log that records, and an HTTP client in front of it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from tocengine.adapters.fhir.clients import ClientStore, add_client
from tocengine.adapters.fhir.server import FhirServer, create_app
from tocengine.adapters.fhir.sources import ResourceServers
from tocengine.adapters.fhir.subscriptions import Subscriptions
from tocengine.adapters.intake import Intake
from tocengine.audit import PostgresAuditTrail
from tocengine.config import FhirSourceSettings, HttpSettings
from tocengine.eventlog.memory import MemoryEventLog
from tocengine.eventlog.records import CloudEventRecords, KeyHasher
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.profile import SendingFacility, Source, SourceProfile
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.postgres import Pool
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems

NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
FEED = FeedName("valley-fhir")
SOURCE = Source(
    feed=FEED, facility=SendingFacility(id=FacilityId("valley"), name="Valley General"), profile=SourceProfile()
)
LIMIT = 64 * 1024
BASE = "https://toc.example.org/fhir"
FHIR = {"Content-Type": "application/fhir+json"}


class Partner:
    """A server with a log that records, and a partner's HTTP client in front of it."""

    def __init__(
        self,
        pool: Pool,
        session: aiohttp.ClientSession,
        sources: tuple[Source, ...] = (SOURCE,),
        settings: HttpSettings = HttpSettings(listen="127.0.0.1:0", max_body_bytes=LIMIT),  # noqa: B008
        servers: dict[FeedName, FhirSourceSettings] | None = None,
    ) -> None:
        self.pool, self.session = pool, session
        self.log, self.metrics = MemoryEventLog(), Metrics()
        self.servers = ResourceServers(servers or {}, self.metrics, LIMIT)
        self.subscriptions = Subscriptions(pool, PostgresWorkItems(), self.servers, self.metrics)
        clients = ClientStore(pool, refresh_s=0.0)
        intake = Intake(self.log, FhirNormalizer(SOURCE), CloudEventRecords(KeyHasher(bytes(32))), self.metrics)
        app = create_app(
            intake,
            {source.feed: source for source in sources},
            clients,
            pool,
            self.metrics,
            settings,
            lambda: NOW,
            self.subscriptions,
            base_url=BASE,
            secret=bytes(32),
        )
        self.server = FhirServer(app, clients, settings, self.metrics)

    async def post(
        self, body: Any, path: str = "/fhir/$process-message", headers: dict[str, str] | None = None
    ) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.session.post(url, data=body, headers=FHIR | (headers or {})) as response:
            (issue,) = orjson.loads(await response.read())["issue"]
            return response, issue

    def stored(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (topic, _), records in self.log.records.items():
            found[topic] += len(records)
        return found

    async def client(self, name: str = "valley", feed: FeedName = FEED) -> dict[str, str]:
        added = await add_client(self.pool, PostgresAuditTrail(), name, feed, "operator", NOW)
        return {"Authorization": f"Bearer {added.key}"}


Start = Callable[..., Awaitable[Partner]]
"""Starts a partner's server as `Partner` is told, and ends it with the test."""
