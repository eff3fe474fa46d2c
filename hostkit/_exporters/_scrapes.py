"""Where Prometheus fetches its metrics: an HTTP server of few connections, none of which lasts.

connect ─► (a thread) ─► GET /metrics ─► a registry's metrics, as text
              └► cut off after some seconds, when too many come, and when the host is closed

prometheus_client's own server has no limit: a client that sends nothing, or reads nothing, keeps its thread and its descriptor for ever,
and they outlive the server.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .._lifetimes import close_in_forks
from .._log import tell
from .._worker._failure import message, type_name

# Connections at a time, seconds for each, and seconds between two looks for those that have had theirs.
_MOST, _SECONDS, _LOOK = 16, 10.0, 1.0
# Seconds that ending may take while a scrape is being answered.
_GRACE = 1.0


class Scrapes(ThreadingMixIn, TCPServer):
    """Answers scrapes at an address from its making to ``close``. Raises ``OSError`` where it can't be had."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _MOST

    def __init__(self, host: str, port: int, registry: Collector, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry
        self._clock = clock
        self._lock = Lock()  # guards _open; whoever closes a connection has taken it out before, so that nobody cuts another one's
        self._open: dict[socket.socket, tuple[Thread, float]] = {}
        self._closed = False
        address: Any  # two or four of them, as the family has it
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        super().__init__(address, _Scrape)
        close_in_forks(self)
        self._thread = Thread(target=self.serve_forever, args=(_LOOK,), name="hostkit-scrapes", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # no thread to be had
            self.server_close()
            raise

    @property
    def address(self) -> str:
        """Where it can be scraped: ``http://127.0.0.1:9464/metrics``."""
        host, port = self.server_address[:2]
        shown = host if isinstance(host, str) else bytes(host).decode()
        return f"http://[{shown}]:{port}/metrics" if ":" in shown else f"http://{shown}:{port}/metrics"

    def process_request(self, request: Any, client_address: Any) -> None:  # Any: what socketserver has there
        """Answer a client on a thread of its own; if there are too many, the one that has been there for longest has to go."""
        thread = Thread(target=self.process_request_thread, args=(request, client_address), name="hostkit-scrape", daemon=True)
        with self._lock:
            if len(self._open) >= _MOST:
                _cut(next(iter(self._open)))
            self._open[request] = (thread, self._clock())
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Let go of a client."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off who has had their time."""
        late = self._clock() - _SECONDS
        with self._lock:
            for connection, (_, since) in self._open.items():
                if since <= late:
                    _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client went away, or was cut off."""

    def close(self) -> None:
        """Take no more scrapes, and cut off those that are there. Idempotent."""
        if self._closed:
            return
        self._closed = True
        _cut(self.socket)  # so that the thread wakes up
        self.shutdown()
        self.server_close()
        with self._lock:
            left = [thread for thread, _ in self._open.values()]
            for connection in self._open:
                _cut(connection)
        end = time.monotonic() + _GRACE
        for thread in (self._thread, *left):
            thread.join(max(0.0, end - time.monotonic()))

    def forget(self) -> None:
        """Let go in a fork of the parent's descriptors: with a copy of them the port would stay taken."""
        self._closed = True
        for each in (self.socket, *self._open):
            fd = each.detach()
            if fd >= 0:
                os.close(fd)


def _cut(connection: socket.socket) -> None:
    """Wake up whoever waits for this socket, on whatever thread."""
    with suppress(OSError):  # the other side was quicker
        connection.shutdown(socket.SHUT_RDWR)


class _Scrape(BaseHTTPRequestHandler):
    """One client's request."""

    server_version = "hostkit"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the metrics, in the format that was asked for."""
        if urlsplit(self.path).path not in ("/metrics", "/"):
            self.send_error(404, "the metrics are at /metrics")
            return
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        try:
            assert isinstance(self.server, Scrapes)
            text = encode(self.server.registry)
        except Exception as error:  # the client hears that there is nothing, the operator why
            tell("ERROR", f"metrics can't be collected: {type_name(error)}: {message(error)}")
            self.send_error(500, "the metrics can't be collected; the host's log says why")
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Content-Type-Options", "nosniff")  # a plugin's name may look like a page
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing: each scrape would be a line on stderr."""
