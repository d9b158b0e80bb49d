"""Owns how what a subscription only told of is fetched from its sender's FHIR server, within limits.

Only addresses below the configured base are asked, whatever a notification names: its sender may be anyone who has
the client's key, and the credential is for that server alone.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from tocengine import __version__
from tocengine.config import FhirSourceSettings
from tocengine.credentials import resolve_secret
from tocengine.errors import SyntaxRefusedError, UnavailableError
from tocengine.formats.fhir.json_body import parse_json
from tocengine.formats.fhir.resources import Json, Resource, references_in
from tocengine.formats.fhir.subscriptions import SubscriptionStatus
from tocengine.model.ids import FeedName
from tocengine.telemetry import Metrics

MAX_RESOURCES = 50
_TYPES = frozenset({"Patient", "Practitioner", "PractitionerRole", "Organization", "Location", "Condition"})
_RESOURCE = re.compile(r"([A-Z][A-Za-z]{1,63})/[A-Za-z0-9.\-]{1,64}")
_SUBSCRIPTION = re.compile(r"Subscription/[A-Za-z0-9.\-]{1,64}")
_HOPS = 2  # the encounter's own references, and theirs (a practitioner role's practitioner)


class ResourceServers:
    """The FHIR servers of the feeds that have one configured. One pooled client."""

    def __init__(self, sources: Mapping[FeedName, FhirSourceSettings], metrics: Metrics, max_bytes: int) -> None:
        self._sources, self._metrics, self._max_bytes = sources, metrics, max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"user-agent": f"tocengine/{__version__}", "accept": "application/fhir+json"}
        self._session = aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def has(self, feed: FeedName) -> bool:
        """Whether `feed` has a server to ask."""
        return feed in self._sources

    async def completed(self, feed: FeedName, bundle: Resource, status: SubscriptionStatus) -> bytes | None:
        """The notification with the resources its events are about; None where the server has or gives none of them.

        Raises UnavailableError where the server does not answer: the notification shall come again.
        """
        source = self._sources[feed]
        known = {str(item.get("fullUrl")) for item in _entries(bundle)}
        added: dict[str, Resource] = {}
        wanted = {event.focus for event in status.events if "/Encounter/" in f"/{event.focus}"}
        wanted |= {target for resource in _resources(bundle, wanted) for target in _followed(resource)}
        async with asyncio.timeout(source.timeout_s * 2) as _:
            for _hop in range(_HOPS + 1):
                asked = sorted(wanted - known - added.keys())[: MAX_RESOURCES - len(added)]
                found = await asyncio.gather(*(self._resource(feed, target) for target in asked))
                added |= {target: resource for target, resource in zip(asked, found, strict=True) if resource}
                wanted = {target for resource in found if resource for target in _followed(resource)}
        if not added:
            return None
        entries: list[Json] = [
            {"fullUrl": target, "resource": resource, "request": {"method": "PUT", "url": target}}
            for target, resource in added.items()
        ]
        return orjson.dumps({**bundle, "entry": [*_entries(bundle), *entries]})

    async def events(self, feed: FeedName, subscription: str, first: int, last: int) -> bytes | None:
        """What ``$events`` gives of the events from `first` to `last`; None where the server does not have them.

        Raises UnavailableError.
        """
        base = self._sources[feed].base_url.rstrip("/")
        path = subscription.removeprefix(base + "/")
        if not _SUBSCRIPTION.fullmatch(path):
            return None
        query = f"eventsSinceNumber={first}&eventsUntilNumber={last}&content=full-resource"
        return await self._get(feed, f"{base}/{path}/$events?{query}")

    async def _resource(self, feed: FeedName, target: str) -> Resource | None:
        base = self._sources[feed].base_url.rstrip("/")
        path = target.removeprefix(base + "/")
        if not _RESOURCE.fullmatch(path):
            return None
        body = await self._get(feed, f"{base}/{path}")
        try:
            resource = parse_json(body) if body is not None else None
        except SyntaxRefusedError:
            return None
        return resource if resource and resource.get("resourceType") == path.partition("/")[0] else None

    async def _get(self, feed: FeedName, url: str) -> bytes | None:
        assert self._session is not None, "used outside of its context"
        source = self._sources[feed]
        headers = {"authorization": f"Bearer {resolve_secret(source.token)}"} if source.token else {}
        outcome = "failed"
        try:
            async with (
                asyncio.timeout(source.timeout_s),
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                if response.status == 429 or response.status >= 500:
                    raise UnavailableError("the sender's FHIR server cannot answer now")
                if response.status != 200:
                    outcome = "refused"
                    return None
                body = await _bounded(response.content, self._max_bytes)
                outcome = "fetched" if body is not None else "too_large"
                return body
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnavailableError("the sender's FHIR server did not answer") from error
        finally:
            self._metrics.fhir_fetched.labels(feed, outcome).inc()


async def _bounded(stream: aiohttp.StreamReader, limit: int) -> bytes | None:
    body = bytearray()
    async for part in stream.iter_any():
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


def _entries(bundle: Resource) -> list[Resource]:
    listed = bundle.get("entry")
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _resources(bundle: Resource, urls: set[str]) -> Iterator[Resource]:
    for item in _entries(bundle):
        resource = item.get("resource")
        if isinstance(resource, dict) and item.get("fullUrl") in urls:
            yield resource


def _followed(resource: Resource) -> Iterator[str]:
    for target in references_in(resource):
        match = _RESOURCE.search(target)
        if match and match[1] in _TYPES:
            yield target
