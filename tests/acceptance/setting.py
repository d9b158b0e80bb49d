"""Owns the running engine of an acceptance test: the real program as processes, on the embedded default or on Kafka."""

import asyncio
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tocengine.simulation.configuration import Ports, write_directory, write_settings
from tocengine.simulation.engine import EngineProcess
from tocengine.simulation.receivers import Receivers

ROLES = ("ingest", "route", "deliver")


def children(pid: int) -> dict[int, list[str]]:
    """The child processes of `pid` with their command lines."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            found[int(child)] = [part.decode() for part in command if part]
    return found


@dataclass
class Setting:
    """An engine with its partners. `kill` names what to kill: a role, `postgres`, or a broker given by the test."""

    folder: Path
    receivers: Receivers
    ports: Ports
    secret: bytes
    processes: dict[str, EngineProcess] = field(default_factory=dict)

    @property
    def engine(self) -> EngineProcess:
        """The process to ask commands of."""
        return next(iter(self.processes.values()))

    async def apply(self, panels: Mapping[str, Sequence[str]] | None = None) -> None:
        """Applies the simulated partners' directory; a running engine follows within 2 s."""
        path = write_directory(self.folder, self.receivers.port, self.secret, panels or {})
        status, out, error = await self.engine.call("apply", "-f", str(path))
        assert status == 0, out + error

    async def start(self, deadline_s: float = 30.0) -> None:
        """Starts every process and waits until all are ready."""
        await asyncio.gather(*(process.start(deadline_s) for process in self.processes.values()))

    async def stop(self) -> list[int]:
        """Drains every process; their exit statuses."""
        return [await process.stop() for process in self.processes.values()]


class Embedded(Setting):
    """The embedded default: a supervisor with PostgreSQL and two role processes as its children."""

    def kill(self, target: str) -> None:
        """kill -9 of a child of the supervisor, which must start it again by itself."""
        mark = "postgres" if target == "postgres" else "deliver" if target in ("route", "deliver") else target
        (pid,) = [
            pid
            for pid, command in children(self.engine.pid).items()
            if (Path(command[0]).name.startswith("postgres") if mark == "postgres" else mark in command)
        ]
        os.kill(pid, signal.SIGKILL)


class ScaledOut(Setting):
    """One process per role on Kafka; the test plays the orchestrator that starts a dead one again."""

    async def kill_and_restart(self, role: str, deadline_s: float = 30.0) -> None:
        """kill -9 of one role, then a new process of it, ready within the deadline."""
        await self.processes[role].killed()
        await self.processes[role].start(deadline_s)

    def second(self, role: str) -> tuple[EngineProcess, Ports]:
        """Another process of a role, not started yet, with listeners of its own; kept as ``ROLE-2``."""
        ports = Ports.free()
        text = (self.folder / "tocengine.toml").read_text()
        for mine, its in ((self.ports.mllp, ports.mllp), (self.ports.http, ports.http)):
            text = text.replace(f"127.0.0.1:{mine}", f"127.0.0.1:{its}")
        path = self.folder / f"{role}-2.toml"
        path.write_text(text)
        environment = {"TOCENGINE__ADMIN__LISTEN": f"127.0.0.1:{ports.admin}"}
        process = EngineProcess(path, ports.admin, "--role", role, name=f"{role}-2", environment=environment)
        self.processes[f"{role}-2"] = process
        return process, ports


def embedded(
    folder: Path,
    receivers: Receivers,
    secret: bytes,
    extra: str = "",
    environment: Mapping[str, str] | None = None,
) -> Embedded:
    """The simulated setting on the embedded default."""
    ports = Ports.free()
    setting = Embedded(folder, receivers, ports, secret)
    path = write_settings(folder, ports, extra)
    setting.processes["engine"] = EngineProcess(path, ports.admin, environment=environment)
    return setting


def scaled_out(
    folder: Path, receivers: Receivers, secret: bytes, dsn: str, bootstrap: str, brokers: int, extra: str = ""
) -> ScaledOut:
    """The simulated setting with a process per role, on Kafka and the PostgreSQL at `dsn`."""
    for name in ("patient_hash", "audit_signing"):
        (folder / name).write_text(secrets.token_hex(32))
    kafka = f"""
[postgres]
dsn = "{dsn}"

[event_log]
kind = "kafka"

[event_log.kafka]
bootstrap_servers = "{bootstrap}"
topic_prefix = "t{secrets.token_hex(4)}."
partitions = 4
replication_factor = {brokers}
min_insync = {min(brokers, 2)}

[keys]
patient_hash = "file:{folder}/patient_hash"
audit_signing = "file:{folder}/audit_signing"
"""
    ports = Ports.free()
    path = write_settings(folder, ports, kafka + extra)
    setting = ScaledOut(folder, receivers, ports, secret)
    for role in ROLES:
        admin = Ports.free().admin
        environment = {"TOCENGINE__ADMIN__LISTEN": f"127.0.0.1:{admin}"}
        setting.processes[role] = EngineProcess(path, admin, "--role", role, name=role, environment=environment)
    return setting
