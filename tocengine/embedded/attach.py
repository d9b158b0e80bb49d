"""Owns how a process comes to a database: the configured one, the running engine's, or one it starts itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tocengine.config import Config
from tocengine.credentials import resolve_secret
from tocengine.embedded import datadir
from tocengine.embedded.server import EmbeddedPostgres, connection_url, lock_holder
from tocengine.errors import ConfigurationError, UnavailableError

_POLL_S = 0.02


@asynccontextmanager
async def database(config: Config, *, patience_s: float = 30.0) -> AsyncIterator[str]:
    """The DSN of the engine's database for as long as the context is open.

    With `postgres.dsn` set that is the answer. Otherwise a command attaches to the embedded server of the engine
    that is running, waiting up to `patience_s` while it (re)starts, and starts the server itself where no
    engine runs. Raises UnavailableError and ConfigurationError. Schema and reachability are the caller's to check
    (`tocengine.postgres.migrate`).
    """
    if config.postgres.dsn:
        yield resolve_secret(config.postgres.dsn)
        return
    server = EmbeddedPostgres(config.engine.data_dir)
    deadline = asyncio.get_running_loop().time() + patience_s
    while not server.acquire():
        dsn = running_server(config.engine.data_dir)
        if dsn is not None:
            yield dsn
            return
        if asyncio.get_running_loop().time() > deadline:
            raise UnavailableError(
                f"process {lock_holder(config.engine.data_dir)} owns {config.engine.data_dir},"
                " but its PostgreSQL is not ready"
            )
        await asyncio.sleep(_POLL_S)
    dsn = await server.start()
    try:
        yield dsn
    finally:
        await server.stop()


def running_server(data_dir: Path) -> str | None:
    """The DSN of the server running on `data_dir`, or None while there is none that takes connections.

    Raises ConfigurationError where the engine runs as a user whose files this process cannot read.
    """
    home = data_dir / "postgres"
    try:
        file = datadir.read_server_file(home / "data")
        if file is None or not file.ready or datadir.server_pid(home / "data") != file.pid:
            return None
        return connection_url(Path(file.socket_folder), (home / "password").read_text())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise ConfigurationError(
            f"the files in {home} cannot be read", hint="run the command as the user the engine runs as"
        ) from error
