"""Owns the admin listener: `/metrics`, `/livez` and `/readyz` of a role, and of a whole engine under its supervisor.

A role is live while its event loop answers and ready while every named check passes. The supervisor's listener asks
each role over its unix socket and answers for all: one page of metrics, told apart by the label `role`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Check = Callable[[], Awaitable[bool]]


def role_app(
    registry: CollectorRegistry, checks: Mapping[str, Check], refresh: Callable[[], Awaitable[None]]
) -> Starlette:
    """The admin application of one role. `refresh` brings gauges that are read from the database up to date."""

    async def metrics(_request: Request) -> Response:
        await refresh()
        return Response(generate_latest(registry), media_type=METRICS_TYPE)

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def readyz(_request: Request) -> Response:
        results = {name: await _passes(check) for name, check in checks.items()}
        return JSONResponse(results, status_code=200 if all(results.values()) else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(2):
            return await check()
    except (OSError, TimeoutError, RuntimeError):
        return False


def engine_app(sockets: Mapping[str, Path]) -> Starlette:
    """The admin application of a supervised engine; `sockets` names each role's unix socket."""

    async def metrics(_request: Request) -> Response:
        pages = await _ask_all(sockets, "/metrics")
        return Response(merge_metrics({role: body for role, (_, body) in pages.items()}), media_type=METRICS_TYPE)

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def readyz(_request: Request) -> Response:
        answers = await _ask_all(sockets, "/readyz")
        results = {role: answers.get(role, (0, ""))[0] == 200 for role in sockets}
        return JSONResponse(results, status_code=200 if all(results.values()) else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])


async def _ask_all(sockets: Mapping[str, Path], path: str) -> dict[str, tuple[int, str]]:
    answers = await asyncio.gather(*(_ask(socket, path) for socket in sockets.values()))
    return {role: answer for role, answer in zip(sockets, answers, strict=True) if answer is not None}


async def _ask(socket: Path, path: str) -> tuple[int, str] | None:
    import aiohttp  # when first asked: the roles are starting by then, and need not wait for it

    timeout = aiohttp.ClientTimeout(total=3)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket)), timeout=timeout) as session,
            session.get(f"http://role{path}") as response,
        ):
            return response.status, await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def merge_metrics(pages: Mapping[str, str]) -> bytes:
    """Several roles' metric pages as one, each sample labelled with its role."""
    merged: dict[str, Metric] = {}
    for role, page in pages.items():
        for family in text_string_to_metric_families(page):
            into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                into.samples.append(sample._replace(labels={**sample.labels, "role": role}))
    registry = CollectorRegistry()
    registry.register(_Fixed(list(merged.values())))
    return generate_latest(registry)


class _Fixed:
    """A collector of ready-made families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
