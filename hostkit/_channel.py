"""The host's end of one channel: one call at a time, straight from the caller's thread or task to the worker and back.

request ─► pipe ─► worker
answer  ◄─ pipe ◄─┘

Two pipes, not a socketpair: whoever sleeps in a Unix socket is woken when the other side takes what it sent, not only when the
answer comes, which is one more switch a call, and often to the other CPU (measured in docs/explanation/where-the-time-goes.md).
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from ._deadline import Deadline
from ._questions import spoken
from ._wires import Ends
from ._worker._frames import END, ERROR, ITEM, RESULT, Assembler, Frame, FrameError, Truncated

if TYPE_CHECKING:
    from ._link import Link

# All that an answer says beside its payload, for most calls of which the worker was asked when they ran.
_TIMES_ALONE = re.compile(rb'\{"timed": \[([0-9]{1,19}), ([0-9]{1,19})\]\}')

# The most milliseconds that poll takes, with room to spare: eleven days.
_LONGEST = 1e9


class Late(Exception):
    """The deadline passed."""


class Ended(Exception):
    """The worker closed its end."""


class Sending(Protocol):
    """A call that is being sent: ``left`` is what has not gone yet."""

    left: bytes | memoryview


class Channel:
    """Both pipes to a worker. Used by one owner at a time: whoever took it from the idle ones.

    ``number`` is its place among the worker's channels. Only the owner closes it. Anybody may hang up, which ends the owner's
    waiting.
    """

    __slots__ = (
        "_answers",
        "_assembler",
        "_closing",
        "_ends",
        "_hung_up",
        "_poll",
        "_requests",
        "call_id",
        "given_up",
        "link",
        "number",
    )

    def __init__(self, link: Link, number: int, ends: Ends, cap: int, *, buffers: int = 0) -> None:
        self.link = link
        self.number = number
        self.call_id = 0  # of the call that has it, or had it last
        self.given_up = False  # its owner waits for a call that was cancelled and goes on
        self._ends = ends
        self._requests = ends.requests
        self._answers = ends.answers
        self._assembler = Assembler(cap + 4096, buffers=buffers)
        self._hung_up = False
        # Guards the descriptors' ends: hang_up must not meet a number that is somebody else's by now.
        self._closing = threading.Lock()
        for fd in (ends.requests, ends.answers):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(ends.answers, select.POLLIN)
        self._poll.register(ends.over, 0)  # its end is always told

    def fileno(self) -> int:
        """Return the descriptor on which answers arrive, for a selector."""
        return self._ends.answers

    @property
    def requests(self) -> int:
        """The descriptor by which calls are sent."""
        return self._requests

    @property
    def over(self) -> int:
        """A descriptor that is readable once everything is over, whoever else may hold the other ends."""
        return self._ends.over

    def close(self) -> None:
        """Close this end. Idempotent."""
        with self._closing:
            self._ends.close()

    def hang_up(self) -> None:
        """Let the worker read the end of the requests, without closing the descriptor under its owner."""
        with self._closing, suppress(OSError):  # without a descriptor to spare the worker is ended by a signal
            if not self._hung_up and self._ends.requests >= 0:
                self._hung_up = True
                null = os.open(os.devnull, os.O_WRONLY)
                try:
                    os.dup2(null, self._ends.requests, inheritable=False)
                finally:
                    os.close(null)

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._ends.answers < 0

    @property
    def clean(self) -> bool:
        """Whether nothing has come that no call has asked for."""
        return not self._assembler.partial

    def write(self, data: bytes | memoryview) -> int:
        """Send what goes without waiting; return how many bytes went."""
        try:
            return os.write(self._requests, data)
        except BlockingIOError:
            return 0

    def send(self, asked: Sending, deadline: Deadline) -> None:
        """Send what is left of a call. Raises ``Late`` and ``Ended``."""
        poller = select.poll()
        poller.register(self._requests, select.POLLOUT)
        poller.register(self._ends.over, 0)
        while asked.left:
            if not poller.poll(_milliseconds(deadline)):
                raise Late
            self._send_some(asked)

    def _send_some(self, asked: Sending) -> None:
        sent = self.write(asked.left)
        if not sent and self._is_over():
            raise Ended
        asked.left = asked.left[sent:]

    def receive(self, call_id: int, deadline: Deadline) -> Frame:
        """Return the next frame of this call. Raises ``Late``, ``Ended`` and ``FrameError``."""
        assembler = self._assembler
        frame = assembler.pop() if assembler.partial else None
        while frame is None:
            wait = _milliseconds(deadline)
            if not self._poll.poll(wait) or (wait == 0.0 and assembler.partial):
                raise Late  # also where there is always a little more of an answer
            try:
                data = os.read(self._answers, assembler.wants)
            except BlockingIOError:  # it was the end of everything that woke the reader
                raise self.ended() from None
            if not data:
                raise self.ended()
            frame = assembler.take(data)
        if frame.call_id != call_id:
            raise _of_another(frame, call_id)
        if frame.meta:
            self._take_meta(frame)
        return frame

    def read(self) -> bool:
        """Take in what is there; return whether anything was."""
        try:
            data = os.read(self._answers, self._assembler.wants)
        except BlockingIOError:  # it was the end of everything that woke the reader
            return False
        self._assembler.feed(data)
        return bool(data)

    def pop(self) -> Frame | None:
        """Return the next whole frame that has been taken in. Raises ``FrameError``."""
        frame = self._assembler.pop()
        if frame is not None and frame.meta:
            self._take_meta(frame)
        return frame

    def ended(self) -> Exception:
        """Return how the answers ended."""
        if self._assembler.partial:
            return Truncated(f"truncated: the other side closed after {self._assembler.partial} bytes of a frame")
        return Ended()

    async def asend(self, asked: Sending, deadline: Deadline) -> None:
        """``send`` for a task."""
        loop = asyncio.get_running_loop()
        while asked.left:
            if deadline.passed:
                raise Late
            await self._until(self._requests, loop.add_writer, loop.remove_writer, deadline)
            self._send_some(asked)

    async def areceive(self, call_id: int, deadline: Deadline) -> Frame:
        """``receive`` for a task."""
        loop = asyncio.get_running_loop()
        while True:
            frame = self._assembler.pop()
            if frame is not None:
                if frame.call_id != call_id:
                    raise _of_another(frame, call_id)
                if frame.meta:
                    self._take_meta(frame)
                return frame
            if self._assembler.partial and deadline.passed:
                raise Late
            await self._until(self._answers, loop.add_reader, loop.remove_reader, deadline)
            if not self.read():
                raise self.ended()

    def read_late(self, owed: deque[int]) -> bool:
        """Take in what is there of answers that nobody waits for, and strike them off ``owed``; return whether none is left.

        Raises ``Ended`` and ``FrameError``.
        """
        while not self._popped_late(owed):
            try:
                data = os.read(self._answers, self._assembler.wants)
            except BlockingIOError:
                return False
            if not data:
                raise self.ended()
            self._assembler.feed(data)
        return True

    def _popped_late(self, owed: deque[int]) -> bool:
        while owed and (frame := self._assembler.pop()) is not None:
            if frame.call_id != owed[0]:
                raise _of_another(frame, owed[0])
            if frame.meta:
                self._take_meta(frame)
            if frame.kind in (RESULT, ERROR, END):
                owed.popleft()
            elif frame.kind != ITEM:
                raise FrameError(f"a frame of kind {frame.kind} as an answer")
        return not owed

    def _take_meta(self, frame: Frame) -> None:
        """Read what a frame says beside its payload: give it the views of its buffers, and take back what the worker has let go of.
        Raises ``FrameError``."""
        times = _TIMES_ALONE.fullmatch(frame.meta)
        if times is not None:
            frame.timed = [int(times[1]), int(times[2])], self.link.pid
        elif frame.kind != ERROR or b'"freed"' in frame.meta or b'"timed"' in frame.meta:
            said = spoken(frame.meta)
            frame.views = self.link.arena.take(said, frame.buffers)
            frame.violated = self.link.violation
            if "timed" in said:
                frame.timed = said["timed"], self.link.pid

    def _is_over(self) -> bool:
        poller = select.poll()
        poller.register(self._ends.over, 0)
        return bool(poller.poll(0))

    async def _until(self, fd: int, add: Callable[..., object], remove: Callable[[int], object], deadline: Deadline) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        over = self._ends.over
        add(fd, _resolve, ready)
        loop.add_reader(over, _resolve, ready)
        try:
            await asyncio.wait([ready], timeout=deadline.wait())
        finally:
            remove(fd)
            loop.remove_reader(over)
        if not ready.done():
            raise Late


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _of_another(frame: Frame, call_id: int) -> FrameError:
    return FrameError(f"an answer to call {frame.call_id}, expected call {call_id}")


def _milliseconds(deadline: Deadline) -> float | None:
    at = deadline.at
    return None if at == math.inf else min(max(0.0, (at - monotonic()) * 1000.0), _LONGEST)
