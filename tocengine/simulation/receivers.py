"""Owns the simulated receivers: a webhook receiver and a FHIR `$process-message` receiver, strict about what they take.

Both keep every notice they accepted, refuse an unsigned or malformed one, and fail a share of first attempts so that
retries are seen.
"""

import asyncio
import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import orjson
from aiohttp import web

from tocengine.simulation.day import Expected

FHIR_KINDS = {
    ("notification-admit", "EMER"): "ED_REGISTRATION",
    ("notification-admit", "IMP"): "INPATIENT_ADMIT",
    ("notification-discharge", "EMER"): "ED_DISCHARGE",
    ("notification-discharge", "IMP"): "INPATIENT_DISCHARGE",
}
FHIR_STATUSES = {"in-progress": ("DISCHARGE_CANCELLED", "CANCELLED"), "entered-in-error": (None, "RETRACTED")}


@dataclass
class Receivers:
    """An HTTP server on loopback that plays every partner. `fail_every` n answers 503 to each n-th new notice once."""

    secret: bytes
    fail_every: int = 0
    answer: Callable[[str], int] | None = None  # overrides the status for a notice id: fault injection
    arrivals: list[tuple[Expected, str]] = field(default_factory=list)  # what was accepted, with its notice id
    bodies: dict[str, bytes] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    port: int = 0

    async def __aenter__(self) -> "Receivers":
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/webhook/{recipient}", self._webhook)
        app.router.add_post("/fhir/{recipient}/$process-message", self._fhir)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def arrived(self, count: int, deadline_s: float = 20.0) -> None:
        """Returns when `count` notices were accepted; raises TimeoutError if they were not in time."""
        async with asyncio.timeout(deadline_s):
            while len(self.arrivals) < count:  # noqa: ASYNC110 - a poll is all a test or demo needs
                await asyncio.sleep(0.02)

    @property
    def accepted(self) -> Counter[Expected]:
        """How often each notice was accepted; the same notice id taken twice counts twice."""
        return Counter(notice for notice, _ in self.arrivals)

    async def _webhook(self, request: web.Request) -> web.Response:
        body = await request.read()
        notice_id = request.headers.get("webhook-id", "")
        if not self._signed(notice_id, request.headers, body):
            return self._refuse("signature", 401)
        if failed := self._failing(notice_id):
            return failed
        data = orjson.loads(body)["data"]
        visit = data.get("encounter", {}).get("visit_number") or self._visit_of(data["supersedes"])
        notice = Expected(request.match_info["recipient"], visit, data["kind"], data["status"])
        return self._accept(notice, notice_id, body)

    async def _fhir(self, request: web.Request) -> web.Response:
        body = await request.read()
        bundle = orjson.loads(body)
        header = bundle["entry"][0]["resource"]
        if bundle.get("type") != "message" or header["resourceType"] != "MessageHeader":
            return self._refuse("not a message bundle", 400)
        notice_id = bundle["identifier"]["value"].removeprefix("urn:uuid:")
        if failed := self._failing(notice_id):
            return failed
        encounter = next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Encounter")
        kind = FHIR_KINDS[header["eventCoding"]["code"], encounter["class"]["code"]]
        status = "NEW"
        if kind.endswith("DISCHARGE") and encounter["status"] in FHIR_STATUSES:
            kind, status = (
                FHIR_STATUSES[encounter["status"]][0] or kind,
                FHIR_STATUSES[encounter["status"]][1],
            )
        visit = encounter["identifier"][0]["value"]
        return self._accept(Expected(request.match_info["recipient"], visit, kind, status), notice_id, body)

    def _visit_of(self, notice_id: str) -> str:
        """A retraction says no more than which notice it takes back."""
        return next(notice.visit for notice, known in self.arrivals if known == notice_id)

    def _signed(self, notice_id: str, headers: Mapping[str, str], body: bytes) -> bool:
        get = headers.get
        content = b".".join((notice_id.encode(), get("webhook-timestamp", "").encode(), body))
        want = base64.b64encode(hmac.digest(self.secret, content, hashlib.sha256)).decode()
        return any(hmac.compare_digest(given, f"v1,{want}") for given in get("webhook-signature", "").split())

    def _failing(self, notice_id: str) -> web.Response | None:
        first = not self.attempts[notice_id]
        self.attempts[notice_id] += 1
        if self.answer and (status := self.answer(notice_id)) >= 300:
            return web.Response(status=status)
        if first and self.fail_every and len(self.attempts) % self.fail_every == 0:
            return web.Response(status=503)
        return None

    def _accept(self, notice: Expected, notice_id: str, body: bytes) -> web.Response:
        self.arrivals.append((notice, notice_id))
        self.bodies[notice_id] = body
        return web.Response(status=200)

    def _refuse(self, why: str, status: int) -> web.Response:
        self.refused[why] += 1
        return web.Response(status=status)
