"""Roles answer for themselves; the supervisor's listener answers for all of them."""

import asyncio
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tocengine.admin import engine_app, merge_metrics, role_app
from tocengine.telemetry import Metrics
from tocengine.web import WebServer

PAGE = """# HELP tocengine_messages_received_total Messages received
# TYPE tocengine_messages_received_total counter
tocengine_messages_received_total{feed="a"} 3.0
"""


def test_merged_metrics_keep_each_role_apart() -> None:
    merged = merge_metrics({"ingest": PAGE, "route": PAGE.replace("3.0", "4.0")}).decode()
    (family,) = text_string_to_metric_families(merged)
    found = {sample.labels["role"]: sample.value for sample in family.samples}
    assert found == {"ingest": 3.0, "route": 4.0}


async def test_engine_is_ready_when_every_role_is(tmp_path: Path) -> None:
    healthy = {"ingest": True, "route": True}

    def checks(role: str) -> dict[str, "object"]:
        async def check() -> bool:
            return healthy[role]

        return {"database": check}

    async def refresh() -> None:
        return None

    sockets = {role: tmp_path / f"{role}.sock" for role in healthy}
    roles = [
        WebServer(role_app(Metrics().registry, checks(role), refresh), path)  # type: ignore[arg-type]
        for role, path in sockets.items()
    ]
    engine = WebServer(engine_app(sockets), "127.0.0.1:0")
    servers = [*roles, engine]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{engine.port}") as session:
            assert (await session.get("/readyz")).status == 200
            healthy["route"] = False
            answer = await session.get("/readyz")
            assert (answer.status, await answer.json()) == (503, {"ingest": True, "route": False})
            assert 'role="ingest"' in await (await session.get("/metrics")).text()
            await roles[0].stop()
            answer = await session.get("/readyz")
            assert await answer.json() == {"ingest": False, "route": False}
            assert (await session.get("/livez")).status == 200
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
