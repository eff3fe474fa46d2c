"""The host's end of one channel: one call at a time, straight from the caller's thread or task to the worker and back."""

from __future__ import annotations

import asyncio
import math
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ._deadline import Deadline
from ._worker._frames import END, ERROR, ITEM, RESULT, Assembler, Frame, FrameError

if TYPE_CHECKING:
    from ._link import Link

# The kernel's own time limit on a blocking socket: no poll before each read, and set only when it changes.
_TIMEVAL = struct.Struct("@qq") if struct.calcsize("@l") == 8 else struct.Struct("@ll")
_FOR_EVER = _TIMEVAL.pack(0, 0)


class Late(Exception):
    """The deadline passed."""


class Ended(Exception):
    """The worker closed its end."""


class Unread(Ended):
    """The worker ended without having read the whole request: its plugin knows nothing of this call.

    A Unix socket says so: EPIPE to whoever sends to a closed end, and ECONNRESET to whoever receives from an end that was closed
    with something unread in it.
    """


class Channel:
    """One socketpair to a worker. Used by one caller at a time; its owner is whoever took it from the idle ones.

    Only the owner closes it. Anybody may hang up, which ends the owner's waiting.
    """

    __slots__ = ("_assembler", "_closing", "_limit", "_socket", "call_id", "link")

    def __init__(self, link: Link, connection: socket.socket, cap: int) -> None:
        self.link = link
        self.call_id = 0  # of the call that has it, or had it last
        self._socket = connection
        self._assembler = Assembler(cap + 4096)
        self._limit = -1.0
        self._closing = threading.Lock()  # keeps hang_up off a descriptor that has just become somebody else's

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end. Idempotent."""
        with self._closing:
            self._socket.close()

    def hang_up(self) -> None:
        """End the conversation without closing the descriptor: whoever reads gets what is there, and then the end."""
        with self._closing, suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._socket.fileno() < 0

    @property
    def clean(self) -> bool:
        """Whether nothing has come that no call has asked for."""
        return not self._assembler.partial

    def send(self, pieces: list[bytes], deadline: Deadline) -> None:
        """Send one frame. Raises ``Late`` and ``Ended``."""
        left = [memoryview(piece) for piece in pieces if piece]
        self._send_some(left)
        while left:
            # Not a blocking send: its time limit begins anew with every portion that a slow reader takes.
            if not _writable(self._socket, deadline):
                raise Late
            self._send_some(left)

    def receive(self, call_id: int, deadline: Deadline) -> Frame:
        """Return the next frame of this call. Raises ``Late``, ``Ended`` and ``FrameError``."""
        self._limit_to(deadline.remaining())
        first = True

        def more(room: memoryview) -> int:
            nonlocal first
            try:
                while True:
                    if not first:
                        # What trickles in byte by byte has the one deadline of the whole frame.
                        self._check(deadline)
                    first = False
                    try:
                        return self._socket.recv_into(room)
                    except BlockingIOError:
                        continue
            except BaseException as error:
                # Its traceback would keep the view, and a buffer that is viewed can't grow for the next frame.
                room.release()
                if isinstance(error, ConnectionResetError):
                    raise Unread from None
                raise

        return self._mine(self._assembler.receive(more), call_id)

    async def asend(self, pieces: list[bytes], deadline: Deadline) -> None:
        """``send`` for a task."""
        left = [memoryview(piece) for piece in pieces if piece]
        self._send_some(left)
        while left:
            if deadline.passed:
                raise Late
            loop = asyncio.get_running_loop()
            await self._until(loop.add_writer, loop.remove_writer, deadline)
            self._send_some(left)

    async def areceive(self, call_id: int, deadline: Deadline) -> Frame:
        """``receive`` for a task."""
        loop = asyncio.get_running_loop()
        while True:
            frame = self._assembler.pop()
            if frame is not None:
                return self._mine(frame, call_id)
            if self._assembler.partial and deadline.passed:
                raise Late
            await self._until(loop.add_reader, loop.remove_reader, deadline)
            if self._read_some() == 0:
                raise Ended

    def read_late(self, call_id: int) -> bool:
        """Take in what is there of an answer that nobody waits for; return whether it has ended.

        Raises ``Ended`` and ``FrameError``.
        """
        # What has arrived already comes first: there is room for more only when no whole frame is left.
        if self._pop_late(call_id):
            return True
        count = self._read_some()
        if self._pop_late(call_id):
            return True
        if count == 0:
            raise Ended
        return False

    def _pop_late(self, call_id: int) -> bool:
        while (frame := self._assembler.pop()) is not None:
            kind = self._mine(frame, call_id).kind
            if kind in (RESULT, ERROR, END):
                return True
            if kind != ITEM:
                raise FrameError(f"a frame of kind {kind} as an answer")
        return False

    def _send_some(self, left: list[memoryview]) -> None:
        try:
            sent = self._socket.sendmsg(left, [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            raise Unread from None
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]

    def _read_some(self) -> int | None:
        """Take in what is there without waiting; return the number of bytes, 0 at the end, None where there was nothing."""
        try:
            with self._assembler.room() as room:
                count = self._socket.recv_into(room, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise Unread from None
        self._assembler.arrived(count)
        return count

    def _mine(self, frame: Frame | None, call_id: int) -> Frame:
        if frame is None:
            raise Ended
        if frame.call_id != call_id:
            raise FrameError(f"an answer to call {frame.call_id}, expected call {call_id}")
        return frame

    def _limit_to(self, seconds: float) -> None:
        # A tenth more or less doesn't matter: whoever wakes up early looks at the deadline.
        if seconds == self._limit or (seconds <= self._limit <= seconds * 1.1):
            return
        self._limit = seconds
        whole = _FOR_EVER if seconds == math.inf else _timeval(seconds)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, whole)

    def _check(self, deadline: Deadline) -> None:
        left = deadline.remaining()
        if left <= 0.0:
            raise Late
        self._limit_to(left)

    async def _until(self, add: Callable[..., object], remove: Callable[[int], object], deadline: Deadline) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fd = self._socket.fileno()
        add(fd, _resolve, ready)
        try:
            await asyncio.wait([ready], timeout=deadline.wait())
        finally:
            remove(fd)
        if not ready.done():
            raise Late


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _writable(connection: socket.socket, deadline: Deadline) -> bool:
    left = deadline.wait()
    if left == 0.0:
        return False
    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    return bool(poller.poll(None if left is None else left * 1000))


def _timeval(seconds: float) -> bytes:
    seconds = min(seconds, 1e8)
    return _TIMEVAL.pack(int(seconds), max(1, int(seconds % 1 * 1_000_000)))
