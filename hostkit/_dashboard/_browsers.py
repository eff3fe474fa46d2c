"""Everybody who watches. A browser that reads slowly gets the newest event and misses those before; one that doesn't read is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from .._errors import HostkitError
from .._log import tell

Send = Callable[[MutableMapping[str, Any]], Any]  # Any: ASGI's messages, and what awaits
Receive = Callable[[], Any]

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class Crowded(HostkitError):
    """As many watch, or ask, as may."""


class Browsers:
    """All mailboxes. Belongs to the event loop: only ``call_soon_threadsafe`` leads here from other threads."""

    def __init__(self, most: int = 32, *, stall: float = 10.0) -> None:
        self._most = most
        self._stall = stall
        self._mailboxes: set[Mailbox] = set()
        self.missed = 0  # events that browsers were too slow for
        self.cut = 0  # browsers that didn't read

    def __len__(self) -> int:
        return len(self._mailboxes)

    def join(self) -> Mailbox:
        """Return a new browser's mailbox. Raises ``Crowded``."""
        if len(self) >= self._most:
            raise Crowded(f"{self._most} browsers watch already; close one of them")
        mailbox = Mailbox()
        self._mailboxes.add(mailbox)
        return mailbox

    def publish(self, event: bytes) -> None:
        """Put an event into every mailbox."""
        for mailbox in self._mailboxes:
            self.missed += mailbox.put(event)

    def close(self) -> None:
        """End every stream."""
        for mailbox in self._mailboxes:
            mailbox.close()

    async def serve(self, mailbox: Mailbox, first: bytes, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Send what comes into a mailbox until the browser goes away, stops reading, or all streams end."""
        writing = asyncio.ensure_future(self._write(mailbox, first, send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except TimeoutError:
            self.cut += 1
            tell("WARNING", f"a browser at {_client(scope)} has read nothing for {self._stall:g} s and was cut off")
            cut = scope.get("state", {}).get("cut")
            if cut is not None:
                cut()
        finally:
            self._mailboxes.discard(mailbox)
            for task in (writing, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):  # what became of it was seen above
                    await task

    async def _write(self, mailbox: Mailbox, first: bytes, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        event: bytes | None = first
        while event is not None:
            # The server's send returns when the buffer before it has room again: memory has a bound, and so has the waiting.
            async with asyncio.timeout(self._stall):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            event = await mailbox.next()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Mailbox:
    """Room for one event."""

    def __init__(self) -> None:
        self._event: bytes | None = None
        self._missed = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, event: bytes) -> int:
        """Put the newest event in the place of one that wasn't taken; return how many that were."""
        missed = int(self._event is not None)
        self._missed += missed
        self._event = event
        self._changed.set()
        return missed

    def close(self) -> None:
        """Nothing comes any more."""
        self._closed = True
        self._changed.set()

    async def next(self) -> bytes | None:
        """Return the next event, told how many were missed before it; None at the end."""
        await self._changed.wait()
        if self._closed:
            return None
        self._changed.clear()
        event, missed = self._event or b"", self._missed
        self._event, self._missed = None, 0
        return b"event: missed\ndata: %d\n\n%b" % (missed, event) if missed else event


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _client(scope: MutableMapping[str, Any]) -> str:
    return str((scope.get("client") or ("?",))[0])
