"""Owns a running engine as its users start it: a process of its own, asked over its commands and its admin listener."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import orjson


class EngineProcess:
    """`tocengine run` on a configuration file; its log goes to a file beside it."""

    def __init__(
        self,
        configuration: Path,
        admin_port: int,
        *arguments: str,
        name: str = "engine",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._configuration = configuration
        self._arguments = arguments
        self._environment = {**os.environ, **(environment or {})}
        self.admin = f"http://127.0.0.1:{admin_port}"
        self.log = configuration.parent / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the engine (of its supervisor, on the embedded default)."""
        assert self._process is not None
        return self._process.pid

    async def start(self, deadline_s: float = 30.0) -> None:
        """Starts it and returns when `/readyz` says so. Raises RuntimeError with the end of the log otherwise."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command("run", "--config", str(self._configuration), *self._arguments),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self.wait_ready(deadline_s)

    async def wait_ready(self, deadline_s: float = 30.0) -> None:
        """Returns when `/readyz` says so."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s), aiohttp.ClientSession() as session:
                while self._process.returncode is None:
                    if await self._is_ready(session):
                        return
                    await asyncio.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"the engine is not ready (exit status {self._process.returncode}):\n{tail}")

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.admin}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def ask(self, *arguments: str) -> list[dict[str, object]]:
        """What `tocengine ARGUMENTS --json` prints, an object a line."""
        status, out, error = await self.call(*arguments, "--json")
        if status not in (0, 1):
            raise RuntimeError(f"tocengine {' '.join(arguments)} failed with {status}: {error}")
        return [orjson.loads(line) for line in out.splitlines() if line]

    async def call(self, *arguments: str) -> tuple[int, str, str]:
        """Runs another command on the same configuration: exit status, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            *command(*arguments),
            env={**os.environ, "TOCENGINE_CONFIG": str(self._configuration)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), error.decode()

    async def stop(self, deadline_s: float = 15.0) -> int:
        """SIGTERM, then the exit status. Kills what does not end by the deadline and returns its negative signal."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), deadline_s)
            except TimeoutError:
                self._process.kill()
        return await self._process.wait()

    async def killed(self) -> None:
        """kill -9, and waits for the process to be gone."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


def command(*arguments: str) -> list[str]:
    """The command line of `tocengine ARGUMENTS` with this very interpreter."""
    return [sys.executable, "-m", "tocengine", *arguments]
