"""The web server on a thread of its own, so that signals and exit stay the main thread's.

starting ─► serving ─ close() ─► streams end ─► open answers get a second ─► what is left is cut
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .._errors import HostkitError
from .._log import tell
from ._app import Dashboard
from ._guard import Guard, HostNames

# Connections at the same time: browsers, their questions, and whoever tries.
_MOST = 128
# A connection on which nothing moves while nobody answers it.
_IDLE = 10.0
_HEADERS = 16 * 1024
_SEND_BUFFER = 128 * 1024


class Serving:
    """A dashboard on a listening socket. ``close`` ends all of it, the socket included; idempotent."""

    def __init__(
        self, dashboard: Dashboard, listener: socket.socket, *, token: str, names: HostNames, penalty: float = 0.5
    ) -> None:
        self._dashboard = dashboard
        self._listener = listener
        # What one browser doesn't read waits here; accepted connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.guard = Guard(dashboard.app, token=token, names=names, penalty=penalty)
        self._server = _Server(
            uvicorn.Config(
                self.guard,
                loop="asyncio",
                http=_Connection,
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                h11_max_incomplete_event_size=_HEADERS,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name="hostkit-dashboard-server", daemon=True)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        host, port = self._listener.getsockname()[:2]
        if ip_address(host).is_unspecified:
            host = socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def start(self) -> None:
        """Return when requests are answered. Raises ``HostkitError``."""
        self._thread.start()
        self._server.began.wait()
        if self._server.loop is None:
            raise HostkitError("the dashboard's web server can't be started; -vv shows why")

    def wait(self) -> None:
        """Wait until the server ends, which it doesn't by itself."""
        self._thread.join()

    def close(self) -> None:
        """End all streams, then the server."""
        loop = self._server.loop
        if loop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # it has ended just now
                loop.call_soon_threadsafe(self._end)
            self._thread.join(3.0)
        self._listener.close()

    def _end(self) -> None:
        self._dashboard.browsers.close()
        self._server.ending.set()

    def _run(self) -> None:
        with _words_of_uvicorn():
            try:
                self._server.run(sockets=[self._listener])
            finally:
                self._server.began.set()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.began = threading.Event()
        self.ending = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.loop = asyncio.get_running_loop()
        self.began.set()

    async def main_loop(self) -> None:
        # uvicorn's own looks ten times a second whether it is to end.
        await self.on_tick(0)
        await self.ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets=sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Connection):
                connection.cut()
        await asyncio.sleep(0)


class _Connection(H11Protocol):
    """uvicorn's, with an end: it waits for ever for a request that never comes whole, and for a reader that never reads."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: uvicorn's
        super().__init__(*arguments, **named)
        self.app_state = {**self.app_state, "cut": self.cut}
        self._idle_with: object = self  # the last answer that was given when it was found idle; itself before the first look

    def connection_made(self, transport: Any) -> None:  # Any: asyncio's transports
        super().connection_made(transport)
        if len(self.connections) > _MOST:
            self.cut()
        else:
            self._look()

    def cut(self) -> None:
        """End the connection now, whatever is still to be sent."""
        self.transport.abort()

    def _look(self) -> None:
        if self not in self.connections:
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and self._idle_with is self.cycle:
            self.cut()
            return
        self._idle_with = self if answering else self.cycle
        self.loop.call_later(_IDLE, self._look)


@contextmanager
def _words_of_uvicorn() -> Iterator[None]:
    """Let what uvicorn logs in the block be hostkit's log at DEBUG; what concerns an operator is told elsewhere."""
    logger, handler = logging.getLogger("uvicorn"), _Told()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Told(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell("DEBUG", self.format(record))
