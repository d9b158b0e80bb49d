"""Owns the processes of an engine on one machine: PostgreSQL first, then the roles; what dies is started again.

Runs on plain asyncio on the main thread: the kernel ends every child when that thread ends (child.py). The roles
know nothing of it: they attach to the database like any command and reconnect when it was away.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import msgspec
import structlog

from tocengine.child import die_with_parent, ended
from tocengine.embedded import EmbeddedPostgres
from tocengine.errors import ConfigurationError, UnavailableError
from tocengine.postgres import migrate, unavailable_errors
from tocengine.process import drain_on_signals

END_S = 9.4  # from the signal to the end of everything
DRAIN_S = 8.6  # what the roles get of it; the rest is for the database's shutdown checkpoint
STEADY_S = 10.0  # a child that ran this long starts its backoff anew
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0

log = structlog.get_logger()


class ChildCommand(msgspec.Struct, frozen=True):
    """One role process: the name it is logged under and its command line."""

    name: str
    arguments: Sequence[str]


def restart_delay(failures: int) -> float:
    """Seconds to wait before a child is started again after `failures` ends in a row (1 is the first)."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 10))


def run_supervisor(
    commands: Sequence[ChildCommand],
    server: EmbeddedPostgres | None,
    alongside: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Runs the engine until SIGTERM or SIGINT and returns the exit status: 0 after an orderly end.

    `alongside` (the engine's own admin listener) runs until the roles have ended. Raises ConfigurationError and
    UnavailableError for what prevents the start.
    """

    async def main() -> int:
        return await Supervisor(commands, server, alongside).run()

    return asyncio.run(main())


class Supervisor:
    """Starts, watches, restarts and drains the children."""

    def __init__(
        self,
        commands: Sequence[ChildCommand],
        server: EmbeddedPostgres | None,
        alongside: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._commands = commands
        self._server = server
        self._alongside = alongside
        self._drain = asyncio.Event()
        self._exit_status = 0
        self._end_by = float("inf")
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self) -> int:
        """Returns the exit status once everything has ended."""
        drain_on_signals(self._drain, self._kill_children)
        keepers: list[asyncio.Task[None]] = []
        beside: list[asyncio.Task[None]] = []
        try:
            if self._server is not None:
                await self._start_server(self._server)
                beside.append(asyncio.create_task(self._keep_server(self._server)))
            if self._alongside is not None:
                beside.append(asyncio.create_task(_run(self._alongside)))
            keepers = [asyncio.create_task(self._keep(command)) for command in self._commands]
            draining = asyncio.create_task(self._drain.wait())
            await asyncio.wait([draining, *keepers, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in (*keepers, *beside):
                if task.done():
                    task.result()  # neither ends before the drain unless by an error
            self._drain.set()
            self._end_by = asyncio.get_running_loop().time() + END_S
            await self._drain_children(keepers)
        finally:
            self._kill_children()
            for task in (*keepers, *beside):
                task.cancel()
            await asyncio.gather(*keepers, *beside, return_exceptions=True)
            if self._server is not None:
                left = self._end_by - asyncio.get_running_loop().time()
                await self._server.stop(min(5.0, max(0.5, left)))
        log.info("ended", exit_status=self._exit_status)
        return self._exit_status

    async def _start_server(self, server: EmbeddedPostgres) -> None:
        dsn = await server.start()
        with unavailable_errors():
            connection = await asyncpg.connect(dsn)
        try:
            await migrate(connection)
        finally:
            await connection.close()
        log.info("database ready")

    async def _keep_server(self, server: EmbeddedPostgres) -> None:
        """PostgreSQL is back a moment after it died; backends it left behind may delay that a little."""
        failures = 0
        while True:
            status = await server.wait()
            log.error("the database ended", exit_status=status)
            while True:
                failures += 1
                try:
                    await server.restart()
                except UnavailableError as error:
                    log.error("the database does not start", reason=str(error), attempt=failures)
                    await asyncio.sleep(restart_delay(failures))
                else:
                    log.info("database ready", attempt=failures)
                    failures = 0
                    break

    async def _keep(self, command: ChildCommand) -> None:
        """Runs one role until the drain; a role that calls its configuration unusable ends the engine."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._drain.is_set():
            started = loop.time()
            process = self._spawn(command)
            status = await ended(process)
            if self._drain.is_set():
                log.info("role ended", role=command.name, exit_status=status)
                orderly = status in (0, -signal.SIGTERM)  # the signal met it before it had begun
                self._exit_status = self._exit_status or (0 if orderly else 1)
                return
            if status == ConfigurationError.exit_code:
                log.error("role refused its configuration", role=command.name, exit_status=status)
                self._exit_status = status
                return
            failures = 1 if loop.time() - started >= STEADY_S else failures + 1
            delay = restart_delay(failures)
            log.error("role ended, starting again", role=command.name, exit_status=status, seconds=delay)
            await self._sleep_unless_draining(delay)

    async def _sleep_unless_draining(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drain.wait(), seconds)

    def _spawn(self, command: ChildCommand) -> subprocess.Popen[bytes]:
        """In a group of its own, so that a terminal's Ctrl-C reaches a role only through the supervisor's drain."""
        process = subprocess.Popen(
            list(command.arguments),
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        self._children[command.name] = process
        log.info("role started", role=command.name, pid=process.pid)
        return process

    async def _drain_children(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        for process in self._children.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        if keepers:
            _, late = await asyncio.wait(keepers, timeout=DRAIN_S)
            if late:
                log.error("roles did not end in time", count=len(late), seconds=DRAIN_S)
                self._kill_children()
                await asyncio.wait(late)

    def _kill_children(self) -> None:
        for process in self._children.values():
            if process.poll() is None:
                process.kill()


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def role_command(name: str, roles: Sequence[str], configuration: os.PathLike[str], executable: str) -> ChildCommand:
    """The command line of ``tocengine run --role ROLE...`` under the interpreter `executable`, supervised as `name`."""
    selected = [word for role in roles for word in ("--role", role)]
    command = (executable, "-m", "tocengine", "run", "--config", os.fspath(configuration), *selected)
    return ChildCommand(name, (*command, "--supervised", name))
