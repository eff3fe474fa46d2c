"""The host's end of one channel: one call at a time, straight from the caller's thread or task to the worker and back."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._deadline import Deadline
from ._worker._frames import Assembler, Frame, FrameError, send_all

if TYPE_CHECKING:
    from ._link import Link

# The kernel's own time limit on a blocking socket: no poll before each read, and set only when it changes.
_TIMEVAL = struct.Struct("@qq") if struct.calcsize("@l") == 8 else struct.Struct("@ll")
_FOR_EVER = _TIMEVAL.pack(0, 0)


class Late(Exception):
    """The deadline passed; ``half_sent`` where the request itself was still under way."""

    def __init__(self, *, half_sent: bool) -> None:
        super().__init__()
        self.half_sent = half_sent


class Ended(Exception):
    """The worker closed its end."""


class Channel:
    """One socketpair to a worker. Used by one caller at a time; its owner is whoever took it from the idle ones."""

    __slots__ = ("_assembler", "_limit", "_socket", "link")

    def __init__(self, link: Link, connection: socket.socket, cap: int) -> None:
        self.link = link
        self._socket = connection
        self._assembler = Assembler(cap + 4096)
        self._limit = 0.0

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._socket.fileno() < 0

    def send(self, pieces: list[bytes], deadline: Deadline) -> None:
        """Send one frame. Raises ``Late`` and ``Ended``."""
        self._limit_to(deadline.remaining())
        sent = 0

        def some(left: list[memoryview]) -> int:
            nonlocal sent
            while True:
                try:
                    count = self._socket.sendmsg(left)
                except BlockingIOError:
                    count = 0
                if deadline.at != math.inf and (count < sum(map(len, left)) or not count):
                    self._check(deadline, half_sent=True)
                if count:
                    sent += count
                    return count

        try:
            send_all(some, pieces)
        except (BrokenPipeError, ConnectionResetError):
            raise Ended from None

    def receive(self, call_id: int, deadline: Deadline) -> Frame:
        """Return the next frame of this call. Raises ``Late``, ``Ended`` and ``FrameError``."""
        first = True

        def more(room: memoryview) -> int:
            nonlocal first
            while True:
                if not first:
                    # What trickles in byte by byte has the one deadline of the whole frame.
                    self._check(deadline, half_sent=False)
                first = False
                try:
                    return self._socket.recv_into(room)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    raise Ended from None

        return self._mine(self._assembler.receive(more), call_id)

    async def asend(self, pieces: list[bytes], deadline: Deadline) -> None:
        """``send`` for a task."""
        left = [memoryview(piece) for piece in pieces if piece]
        while left:
            try:
                sent = self._socket.sendmsg(left, [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until(loop.add_writer, loop.remove_writer, deadline, half_sent=True)
                continue
            except (BrokenPipeError, ConnectionResetError):
                raise Ended from None
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    async def areceive(self, call_id: int, deadline: Deadline) -> Frame:
        """``receive`` for a task."""
        loop = asyncio.get_running_loop()
        while True:
            frame = self._assembler.pop()
            if frame is not None:
                return self._mine(frame, call_id)
            await self._until(loop.add_reader, loop.remove_reader, deadline, half_sent=False)
            if self.read_some() == 0:
                raise Ended

    def read_some(self) -> int | None:
        """Take in what is there without waiting; return the number of bytes, 0 at the end, None where there was nothing."""
        try:
            with self._assembler.room() as room:
                count = self._socket.recv_into(room, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return 0
        self._assembler.arrived(count)
        return count

    def pop(self, call_id: int) -> Frame | None:
        """Return the next whole frame that is here already. Raises ``FrameError``."""
        frame = self._assembler.pop()
        return None if frame is None else self._mine(frame, call_id)

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
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, whole)

    def _check(self, deadline: Deadline, *, half_sent: bool) -> None:
        left = deadline.remaining()
        if left <= 0.0:
            raise Late(half_sent=half_sent)
        self._limit_to(left)

    async def _until(
        self,
        add: Callable[..., object],
        remove: Callable[[int], object],
        deadline: Deadline,
        *,
        half_sent: bool,
    ) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fd = self._socket.fileno()
        add(fd, _resolve, ready)
        try:
            await asyncio.wait([ready], timeout=deadline.wait())
        finally:
            remove(fd)
        if not ready.done():
            raise Late(half_sent=half_sent)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _timeval(seconds: float) -> bytes:
    seconds = min(seconds, 1e8)
    return _TIMEVAL.pack(int(seconds), max(1, int(seconds % 1 * 1_000_000)))
