"""Owns `make soak`: where the soaked engine runs, and what is printed of it. Exit status 1 where a promise broke."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from tests.acceptance.setting import ROLES, ScaledOut, Setting, embedded, scaled_out
from tests.endurance.partners import FailingReceivers
from tests.endurance.soak import PATIENCE_S, Kill, Plan, Report, embedded_kills, soaking
from tests.services.kafka import JavaKafka
from tocengine.embedded import EmbeddedPostgres

BROKERS = 3
console = Console(highlight=False)


def main(
    minutes: Annotated[float, typer.Option(help="How long to load and kill.")] = 60.0,
    rate: Annotated[float, typer.Option(help="Offered messages per second.")] = 40.0,
    kill_every: Annotated[float, typer.Option(help="Seconds between two kills, on average.")] = 90.0,
    kafka: Annotated[bool, typer.Option(help="On Kafka (three brokers), a process per role.")] = False,
    log: Annotated[Path, typer.Option(help="Where figures go on the way, a JSON object a line.")] = Path("soak.jsonl"),
) -> None:
    """Load the engine while its parts are killed, and prove that nothing was lost or told twice."""
    report = asyncio.run(_soak(Plan(minutes=minutes, rate=rate, kill_every_s=kill_every), kafka, log))
    for name in report.__struct_fields__:
        console.print(f"{name:<20}{getattr(report, name)}")
    defects = report.defects()
    console.print("nothing lost, nothing twice, memory flat, no lag" if not defects else "; ".join(defects))
    print(msgspec.json.encode(report).decode())
    raise typer.Exit(1 if defects else 0)


async def _soak(plan: Plan, kafka: bool, log: Path) -> Report:
    secret = secrets.token_bytes(24)
    with tempfile.TemporaryDirectory(prefix="tocengine-soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        async with FailingReceivers(secret) as receivers:
            if not kafka:
                setting = embedded(folder, receivers, secret)
                async with soaking(setting, receivers, embedded_kills(setting), plan, log) as soak:
                    return await soak.run()
            async with (
                _on_kafka(folder, receivers, secret) as (scaled, kills),
                soaking(scaled, receivers, kills, plan, log) as soak,
            ):
                return await soak.run()


@asynccontextmanager
async def _on_kafka(
    folder: Path, receivers: FailingReceivers, secret: bytes
) -> AsyncIterator[tuple[Setting, Mapping[str, Kill]]]:
    """A process per role, three brokers, and a PostgreSQL of their own; whoever kills starts again."""
    brokers = await asyncio.to_thread(JavaKafka, BROKERS)
    server = EmbeddedPostgres(folder / "shared")
    try:
        setting = scaled_out(folder, receivers, secret, await server.start(), brokers.bootstrap, BROKERS)
        yield setting, _kafka_kills(setting, server, brokers)
    finally:
        await server.stop()
        brokers.stop()


def _kafka_kills(setting: ScaledOut, server: EmbeddedPostgres, brokers: JavaKafka) -> Mapping[str, Kill]:
    turn = iter(range(1_000_000))

    def role_killer(role: str) -> Kill:
        async def kill() -> None:
            await setting.kill_and_restart(role, PATIENCE_S)

        return kill

    async def kill_postgres() -> None:
        assert server.process is not None
        server.process.kill()
        await server.wait()
        await server.restart()

    async def kill_broker() -> None:
        number = next(turn) % BROKERS
        brokers.kill_broker(number)
        await asyncio.sleep(10)
        await asyncio.to_thread(brokers.start_broker, number)

    return {**{role: role_killer(role) for role in ROLES}, "postgres": kill_postgres, "broker": kill_broker}


if __name__ == "__main__":
    typer.run(main)
