"""The host's side of the memory that it shares with one worker: it alone creates segments, and it believes nothing about them.

A segment is a memfd that is sealed against shrinking and growing: a worker that could truncate one would kill the host with SIGBUS
when it reads there. Its descriptor is passed by SCM_RIGHTS on the control socket and closed; the mappings stay.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ._worker._frames import MEMORY, FrameError, packed
from ._worker._segments import Reader, Segment, Writer, mapped, segment_size

if sys.platform == "linux":
    import fcntl


class Arena:
    """The memory shared with one worker. Thread-safe.

    ``limit`` is the most bytes of one message's buffers; each direction has at most twice as much. ``send`` sends a frame on the
    control socket, with a descriptor or without. Views outlive it, and the worker.
    """

    def __init__(self, limit: int, send: Callable[[bytes, int | None], None]) -> None:
        self.limit = limit
        self._send = send
        self._numbers = itertools.count(1)
        self._most = 2 * segment_size(limit)
        self._writer = Writer(self._most)
        self._reader = Reader(limit)

    def pack(self, buffers: Sequence[Any]) -> tuple[list[list[int]], bytes]:
        """Put a request's buffers where the worker finds them; return what to tell it, and the bytes that go with the frame."""
        return self._writer.pack(buffers, self._room)

    def freed(self) -> list[int]:
        """Return the worker's segments whose views have died, to tell it with the next call."""
        return self._reader.freed()

    def take(self, said: Mapping[str, Any], inline: bytes) -> list[memoryview]:
        """Return the buffers of an answer, after what else its frame says. Raises ``FrameError``."""
        if "freed" in said:
            self._writer.released(said["freed"])
        return self._reader.views(said["buffers"], inline) if "buffers" in said else []

    def hear(self, question: int, said: Mapping[str, Any]) -> None:
        """Take what a worker says in a MEMORY frame, and answer it. Raises ``FrameError``."""
        self._reader.drop(said.get("dropped", []))
        self._writer.released(said.get("freed", []))
        if "need" in said:
            self._needed(question, said["need"], new=said.get("new") is not False)

    def _needed(self, question: int, size: object, *, new: bool) -> None:
        if type(size) is not int or size <= 0:
            raise FrameError(f"a segment of {size!r} bytes was asked for")
        freed = self.freed()
        said: dict[str, Any] = {"freed": freed}
        there = any(self._reader.size_of(number) >= size for number in freed)
        if there or not new or self._reader.total + size > self._most:
            self._say(question, said)
        else:
            self._make(size, question, said, ours=False)

    def _room(self, size: int) -> Segment | None:
        size = segment_size(size)
        fits, dropped = self._writer.room_for(size)
        said: dict[str, Any] = {"dropped": dropped}
        if fits:
            return self._make(size, 0, said, ours=True)
        self._say(0, said)
        return None

    def _make(self, size: int, question: int, said: dict[str, Any], *, ours: bool) -> Segment | None:
        """Create a segment and pass it to the worker; None where the system has no descriptor or no memory left."""
        try:
            fd = _sealed(size)
        except OSError:
            self._say(question, said)
            return None
        try:
            segment = Segment(next(self._numbers), size, mapped(fd, size, writable=ours))
            if ours:
                self._writer.add(segment, out=True)
            else:
                self._reader.add(segment)
            self._say(question, {**said, "segment": [segment.number, size, not ours]}, fd)
        except (OSError, ValueError):
            self._say(question, said)
            return None
        finally:
            os.close(fd)
        return segment

    def tidy(self) -> None:
        """Drop what has not been used for a while, and tell the worker what it can use again."""
        freed, dropped = self.freed(), self._writer.trim(time.monotonic())
        if freed or dropped:
            self._say(0, {"freed": freed, "dropped": dropped})

    @property
    def total(self) -> int:
        """Bytes of shared memory that the worker can reach."""
        return self._writer.total + self._reader.total

    def _say(self, question: int, said: Mapping[str, Any], fd: int | None = None) -> None:
        if question or any(said.values()):
            self._send(packed(MEMORY, question, meta=json.dumps(said).encode()), fd)


def _sealed(size: int) -> int:
    """Return the descriptor of new memory whose size nobody can change. Raises ``OSError`` where there is none."""
    if sys.platform != "linux":
        raise OSError("no memory that can be sealed on this system")
    fd = _memfd()
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise
    return fd


# From Linux 6.3 on, what a worker writes there can be kept from being executed.
_MFD_NOEXEC_SEAL = 8


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("hostkit", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("hostkit", flags)
