"""Who gets in: the right host name, the same origin, and for everything but the page's own files the token.

request ─► host name ─► (a file of the page) ─► origin ─► token ─► route ─► headers that keep a browser from more than this page needs

The token is sent by hand in ``Authorization``, never as a cookie: a browser sends cookies of 127.0.0.1 to every port there, other users'
servers included, and sends them without being asked.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from .._log import tell

# Any: ASGI's messages.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
# Connections are counted, and each waits this long for the answer to a wrong token: that bounds how many can be tried.
_PENALTY = 0.5
_TELL_EVERY = 10.0


class Guard:
    """An ASGI application around another one. Belongs to the event loop."""

    def __init__(
        self, app: App, *, token: str, names: HostNames, penalty: float = _PENALTY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._names = names
        self._penalty = penalty
        self._clock = clock
        self._told_at = -_TELL_EVERY
        self._untold = 0
        self.wrong = 0  # tokens that were not the right one

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, sentence, guessed = refusal
        if guessed:
            self._count(scope)
            await asyncio.sleep(self._penalty)
        await refuse(guarded, status, sentence)

    def _refusal(self, scope: Message) -> tuple[int, str, bool] | None:
        """Return status, sentence and whether a token was tried, or None for a request that may pass."""
        headers = Headers(scope["headers"])
        host = headers.only(b"host")
        if host is None or not self._names.has(host):
            return 421, "this dashboard doesn't answer for that host name; hostkit dashboard --allow-host NAME lets it", False
        path = scope["path"]
        if not path.startswith("/api/") and path != "/metrics":
            return None
        if not _same_origin(headers, host):
            return 403, "requests from other pages are refused", False
        given = headers.only(b"authorization")
        if given is None:
            return 401, "the token is missing: Authorization: Bearer TOKEN", False
        kind, _, token = given.partition(" ")
        right = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token)
        if kind.lower() != "bearer" or not right:
            return 401, "that is not the token", True
        return None

    def _count(self, scope: Message) -> None:
        self.wrong += 1
        self._untold += 1
        now = self._clock()
        if now - self._told_at < _TELL_EVERY:
            return
        many = "a wrong token was" if self._untold == 1 else f"{self._untold} wrong tokens were"
        tell("WARNING", f"{many} sent to the dashboard, last from {(scope.get('client') or ('?',))[0]}")
        self._told_at, self._untold = now, 0


class HostNames:
    """The names by which a browser may call this server: a page of another name, which an attacker's DNS leads here, is refused.

    An address is no name that DNS decides: on loopback its own pass, elsewhere all. Ports don't matter, a tunnel has its own.
    """

    def __init__(self, more: Iterable[str] = (), *, loopback: bool = True) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in more)}
        self._loopback = loopback

    def has(self, host: str) -> bool:
        """Tell whether a Host header has one of these names."""
        name, port = split(host)
        if name in self._names and (not port or port.isdecimal()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback


def split(host: str) -> tuple[str, str]:
    """Return the name, in lower case and without brackets, and the port of a Host header."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name.lower(), port.removeprefix(":")
    name, _, port = host.partition(":")
    return name.lower().rstrip("."), port


class Headers:
    """A request's headers."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = list(pairs)

    def only(self, name: bytes) -> str | None:
        """Return the value of a header that is there once; None where it is missing or there are several to choose from."""
        found = [value for key, value in self._pairs if key == name]
        return found[0].decode("latin-1") if len(found) == 1 else None

    def has(self, name: bytes) -> bool:
        """Tell whether a header is there at all."""
        return any(key == name for key, _ in self._pairs)


async def refuse(send: Send, status: int, sentence: str) -> None:
    """Answer with a sentence, and let the connection end: what else comes on it is not read."""
    body = sentence.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _same_origin(headers: Headers, host: str) -> bool:
    """Tell whether a request comes from this page, or from no page at all: a program sends neither of these headers."""
    if headers.has(b"sec-fetch-site") and headers.only(b"sec-fetch-site") != "same-origin":
        return False
    if not headers.has(b"origin"):
        return True
    origin = headers.only(b"origin") or ""
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()
