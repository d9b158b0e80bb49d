"""Owns how a role's process runs and ends: the first signal drains it, the second ends it at once."""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable

import structlog
import uvloop

SIGNALS = (signal.SIGTERM, signal.SIGINT)
COLLECT_AFTER = (50_000, 20, 20)
"""When garbage is looked for (gc.set_threshold). A batch makes tens of thousands of objects, few of them in cycles: at
the default of 700 a sixth of the CPU goes into looking at them while they are still in use."""

log = structlog.get_logger()


def run_until_drained(main: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Runs `main` under uvloop and returns its exit status; the event it gets is set when the process shall drain.

    What is acknowledged is durable already, so a second signal may end the process at any point.
    """

    gc.set_threshold(*COLLECT_AFTER)

    async def run() -> int:
        drain = asyncio.Event()
        drain_on_signals(drain)
        return await main(drain)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def settle_memory() -> None:
    """Call it once what lives as long as the process is made: no later search for garbage looks at it again."""
    gc.collect()
    gc.freeze()


def drain_on_signals(drain: asyncio.Event, at_once: Callable[[], None] = lambda: None) -> None:
    """SIGTERM and SIGINT set `drain`; the next one calls `at_once` and ends the process with 128 + signal."""

    def receive(number: signal.Signals) -> None:
        if drain.is_set():
            at_once()
            os._exit(128 + number)
        log.info("draining", signal=number.name)
        drain.set()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, receive, number)
