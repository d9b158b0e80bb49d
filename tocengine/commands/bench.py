"""Owns `tocengine bench`: a load on the running engine of this configuration, and what it came to."""

import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import typer

from tocengine.commands import output
from tocengine.commands.session import ConfigOption, connected, load, run
from tocengine.config import Config
from tocengine.errors import ConfigurationError, TocError
from tocengine.simulation.load.bench import Shape
from tocengine.simulation.load.bench import bench as load_on
from tocengine.simulation.load.figures import Figures, figures_table
from tocengine.simulation.load.target import Target, target_of
from tocengine.simulation.load.visits import SIZES, Mix

RECEIVER = ip_address("127.0.0.1")


def bench(
    messages: int = typer.Option(3000, min=1, help="Discharges to send, one notice each."),
    senders: int = typer.Option(16, min=1, max=256, help="Stop-and-wait connections."),
    rate: float = typer.Option(0.0, min=0, help="Offered messages per second; 0 is as fast as they are answered."),
    size: str = typer.Option("2 KB", help=f"Of an HL7 v2 message: {' or '.join(SIZES)}."),
    told_every: int = typer.Option(1, min=1, help="One discharge in so many leads to a notice; 12 is realistic."),
    early_every: int = typer.Option(0, min=0, help="One in so many comes before its admission and is held; 0: none."),
    bundles: bool = typer.Option(False, "--fhir", help="Discharges are FHIR Bundles."),
    feed: str = typer.Option("", help="The feed to send to; otherwise the first that takes what is sent."),
    broker: int = typer.Option(0, "--broker-pid", help="A Kafka broker on this machine whose CPU is counted too."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    config: Path = ConfigOption,
) -> None:
    """Measure the running engine under load: invented visits in, checked notices out. Not for an engine in production.

    The last line of output is one JSON object. Exit status 1: something was lost, came twice or out of order.
    """
    settings = load(config)
    if size not in SIZES:
        output.fail(f"--size {size!r}: there are {' and '.join(SIZES)}", 2)
    mix = Mix(size=SIZES[size], told_every=told_every, early_every=early_every)
    shape = Shape(messages=messages, connections=senders, rate=rate, mix=mix)
    try:
        target = target_of(settings, config, feed=feed, bundles=bundles)
        _check_receiver(settings)
    except TocError as error:
        output.fail(str(error), error.exit_code)
    if not yes:
        typer.confirm("Invented visits and facilities stay in this engine's database. Go on?", abort=True, err=True)
    figures, processes = run(_measure(settings, target, shape, broker or None))
    output.stdout.print(figures_table(f"feed {target.feed}", figures, processes))
    output.document(figures)
    sys.stdout.flush()
    raise typer.Exit(0 if figures.exact else 1)


def _check_receiver(config: Config) -> None:
    """Raises ConfigurationError where the engine would not deliver to the receiver on loopback."""
    if not any(RECEIVER in ip_network(network) for network in config.delivery.allowed_networks):
        raise ConfigurationError(
            "the engine may not deliver to this machine", hint='[delivery] allowed_networks = ["127.0.0.0/8"]'
        )


async def _measure(
    config: Config, target: Target, shape: Shape, broker: int | None
) -> tuple[Figures, dict[str, float]]:
    async with connected(config) as pool, load_on(pool, target, shape, broker=broker) as load_going_on:
        await load_going_on.admit(0, shape.messages)
        return await load_going_on.measure(0, shape.messages)
