"""A channel with the asyncio calls that are in it, in the order in which they were sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from .._channel import Channel
from .._contract import ExecutionContext
from .._worker._frames import Frame
from ._asked import Asked


class WaitingCall:
    """A call and the future that somebody awaits."""

    __slots__ = ("asked", "context", "future", "gone", "tries")

    def __init__(self, context: ExecutionContext, asked: Asked, future: asyncio.Future[Frame]) -> None:
        self.context = context
        self.asked = asked
        self.future = future
        self.gone = False  # nobody waits for it any more
        self.tries = 0

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.gone = True
        if not self.future.done():
            self.future.set_exception(error)


class Flow:
    """Only for the loop's own thread. ``on_read`` is called with the flow whenever there is something to read, or the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel, *, on_read: Callable[[Flow], object]) -> None:
        self.channel = channel
        self.calls: deque[WaitingCall] = deque()
        self.left: bytes | memoryview = b""  # what could not be sent at once
        self.exhausted = False  # its worker takes no more calls
        self.stopped = False
        self._loop = loop
        self._answered = 0
        self._since = 0.0
        loop.add_reader(channel.fileno(), on_read, self)
        loop.add_reader(channel.over, on_read, self)

    def stop(self) -> None:
        """Look at the channel no more. Idempotent."""
        if not self.stopped:
            self.stopped = True
            if not self._loop.is_closed():
                self._loop.remove_reader(self.channel.fileno())
                self._loop.remove_reader(self.channel.over)
                self._loop.remove_writer(self.channel.requests)

    def fill(self, queue: deque[WaitingCall], most: int) -> None:
        """Send calls from a queue until the channel has ``most``. One that can't be sent fails, and costs the others nothing."""
        if self.stopped or self.exhausted or self.left or self.channel.link.over:
            return
        room = most - len(self.calls)
        if not self.calls:
            self._since = monotonic()
        frames: list[bytes] = []
        while queue and room > 0:
            call = queue.popleft()
            if call.gone:
                continue
            try:
                frames.append(call.asked.frame(self.channel))
            except Exception as error:  # no memory is left, or its buffers can't be read any more
                call.fail(error)
                continue
            self.calls.append(call)
            room -= 1
        if frames:
            self.channel.call_id = self.calls[0].asked.call_id
            self._write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _write(self, data: bytes) -> None:
        sent = self.channel.write(data)
        if sent < len(data):
            self.left = memoryview(data)[sent:]
            self._loop.add_writer(self.channel.requests, self._write_more)

    def _write_more(self) -> None:
        self.left = self.left[self.channel.write(self.left) :]
        if not self.left:
            self._loop.remove_writer(self.channel.requests)

    def answered(self) -> WaitingCall:
        """Take the first call out: it has its answer."""
        self._answered += 1
        call = self.calls.popleft()
        if self.calls:
            # The one that runs now: whoever closes the plugin cancels it, and its CPU seconds are counted.
            self.channel.call_id = self.calls[0].asked.call_id
        return call

    def seconds_a_call(self) -> float | None:
        """Return what a call has taken since this was asked last; None where none was answered."""
        if not self._answered:
            return None
        now = monotonic()
        seconds = max(now - self._since, 1e-6) / self._answered
        self._since, self._answered = now, 0
        return seconds
