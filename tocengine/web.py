"""Owns how a Starlette application is served inside a role's process: uvicorn without its own signals or logs."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tocengine.config import listen_address
from tocengine.errors import ConfigurationError
from tocengine.tls import LOOK_S, ListenerTls


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process (`process.py`), not to one of its listeners."""
        yield


class _TlsProtocol(HttpToolsProtocol):
    """HTTP with the peer's certificate in the scope, as the ASGI TLS extension 0.2 names it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        connection = self.transport.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True) if connection is not None else None
        chain = (ssl.DER_cert_to_PEM_cert(shown),) if shown else ()
        self.scope["extensions"] = {"tls": {"client_cert_chain": chain}}


class WebServer:
    """Serves one application on ``host:port`` (port 0 picks a free one) or on a unix socket.

    `max_connections` answers 503 to whoever comes while there are as many (0: any number).
    """

    def __init__(
        self,
        app: ASGIApp,
        listen: str | Path,
        *,
        drain_s: float = 5.0,
        tls: ListenerTls | None = None,
        max_connections: int = 0,
    ) -> None:
        self._listen = listen
        self._tls = tls
        self.tls_look_s = LOOK_S
        config = uvicorn.Config(
            app,
            http=_TlsProtocol if tls else "httptools",
            ssl_context_factory=(lambda _config, _default: tls.handing_over()) if tls else None,
            limit_concurrency=max_connections or None,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(drain_s) or 1,
        )
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Returns when the listener accepts connections. Raises ConfigurationError if the address cannot be bound."""
        try:
            bound = _bind(self._listen)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {self._listen}: {error.strerror}") from None
        if bound.family != socket.AF_UNIX:
            self.port = bound.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]), name=f"web {self._listen}")
        while not self._server.started:
            await asyncio.sleep(0.01)
            if self._task.done():
                self._task.result()
        if self._tls is not None:
            self._following = asyncio.create_task(self._follow(self._tls), name=f"tls {self._listen}")

    async def _follow(self, tls: ListenerTls) -> None:
        while True:
            await asyncio.sleep(self.tls_look_s)
            tls.refresh()

    async def stop(self) -> None:
        """Stops accepting, lets open requests finish within the drain time."""
        if self._following is not None:
            self._following.cancel()
        if self._task is not None:
            self._server.should_exit = True
            await self._task


def _bind(listen: str | Path) -> socket.socket:
    if isinstance(listen, Path):
        listen.unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound.bind(str(listen))
        listen.chmod(0o600)
    else:
        host, port = listen_address(listen)
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    bound.listen(1024)
    bound.setblocking(False)
    return bound
