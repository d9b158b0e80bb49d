"""Owns the running engine that a load is for: where it listens, what it holds, and what its processes use.

Whatever runs on this machine is found in /proc: the engine by its configuration file, PostgreSQL by one of its
backends. What runs elsewhere is not counted, and figures say so.
"""

from pathlib import Path

import msgspec

from tocengine.config import Config, FeedSettings, listen_address
from tocengine.errors import ConfigurationError
from tocengine.model.profile import SourceProfile
from tocengine.postgres import Pool
from tocengine.simulation.load import usage
from tocengine.simulation.load.visits import Hospital


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A feed of a running engine, and whose name its messages have to carry."""

    configuration: Path
    feed: str
    host: str
    port: int
    bundles: bool  # the feed takes FHIR
    on_kafka: bool
    hospital: Hospital


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds so far; the engine's by process, PostgreSQL's and the broker's None where they run elsewhere."""

    engine: dict[str, float]
    postgres: float | None
    kafka: float | None

    def since(self, before: "Usage") -> "Usage":
        """What was used between the two."""

        def less(now: float | None, then: float | None) -> float | None:
            return None if now is None or then is None else now - then

        return Usage(
            engine={name: used - before.engine.get(name, 0.0) for name, used in self.engine.items()},
            postgres=less(self.postgres, before.postgres),
            kafka=less(self.kafka, before.kafka),
        )


def target_of(config: Config, configuration: Path, *, feed: str = "", bundles: bool = False) -> Target:
    """The feed named `feed`, or the first one that takes what is to be sent. Raises ConfigurationError."""
    wanted = "fhir" if bundles else "mllp"
    fitting = [each for each in config.feeds if each.protocol == wanted and feed in ("", each.name)]
    if not fitting:
        named = f"no feed {feed!r}" if feed else "no feed"
        raise ConfigurationError(f"there is {named} with protocol = {wanted!r}", file=str(configuration))
    chosen = fitting[0]
    tls = config.http.tls if bundles else chosen.tls
    if tls is not None or chosen.shadow:
        raise ConfigurationError(f"feed {chosen.name!r}: a load needs a feed without tls and without shadow")
    host, port = listen_address(config.http.listen if bundles else chosen.listen)
    return Target(
        configuration=configuration.resolve(),
        feed=chosen.name,
        host=host,
        port=port,
        bundles=bundles,
        on_kafka=config.event_log.kind == "kafka",
        hospital=_hospital(config, chosen),
    )


def _hospital(config: Config, feed: FeedSettings) -> Hospital:
    profile = config.profiles.get(feed.profile, SourceProfile())
    facility = profile.match.msh4 or profile.mrn_authority or feed.facility.upper()
    authority = profile.mrn_authority or facility
    systems = {domain.name: domain.system for domain in config.identifier_domains if domain.system}
    return Hospital(
        application=profile.match.msh3 or "BENCH",
        facility=facility,
        authority=authority,
        system=systems.get(authority, Hospital().system),
    )


class Machine:
    """What the engine's processes use on this machine."""

    def __init__(self, target: Target, postgres: int | None, broker: int | None) -> None:
        self._target, self._postgres, self._broker = target, postgres, broker

    def usage(self) -> Usage:
        """What has been used so far. PostgreSQL is counted by its process tree, ended backends included."""
        return Usage(
            engine={
                usage.roles(usage.arguments(pid)) or "supervisor": usage.own_cpu_s(pid) for pid in self.engine_pids()
            },
            postgres=usage.tree_cpu_s(self._postgres) if self._postgres else None,
            kafka=usage.tree_cpu_s(self._broker) if self._broker else None if self._target.on_kafka else 0.0,
        )

    def engine_pids(self) -> list[int]:
        """The processes that run this configuration: the roles, and the supervisor where there is one."""
        return [pid for pid in usage.everything() if self._runs(pid)]

    def _runs(self, pid: int) -> bool:
        try:
            words = usage.arguments(pid)
            if "run" not in words or not any(Path(word).name == "tocengine" for word in words):
                return False
            named = words[words.index("--config") + 1] if "--config" in words else _from_environment(pid)
            return (Path(f"/proc/{pid}/cwd").resolve() / named).resolve() == self._target.configuration
        except (OSError, IndexError):
            return False  # it has ended, or is another user's


def _from_environment(pid: int) -> str:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    named = [word.partition(b"=")[2].decode() for word in words if word.startswith(b"TOCENGINE_CONFIG=")]
    return named[0] if named else "tocengine.toml"


async def postgres_here(pool: Pool) -> int | None:
    """The head of the process tree of the server that `pool` talks to, None where it is not on this machine."""
    async with pool.acquire() as connection:
        backend: int = await connection.fetchval("select pg_backend_pid()")
        try:
            return usage.parent(backend) if usage.program(backend) == "postgres" else None
        except OSError:
            return None


async def stored_bytes(pool: Pool) -> int:
    """The size of the database."""
    return int(await pool.fetchval("select pg_database_size(current_database())"))


async def routed(pool: Pool, feed: str) -> int:
    """How many messages of the feed are folded. Raises asyncpg's errors."""
    return int(await pool.fetchval("select count(*) from message_seen where feed = $1", feed))
