"""The descriptors between the host and one worker: control socket, channels, lifeline, fault dump and outputs.

The host's ends are attributes. The worker's are in ``theirs``, by name, until ``hand_over`` closes them in this process.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from ._log import OutputPipe
from ._worker._frames import notes_size

# Bytes of a fault dump that are told.
_MOST_DUMP = 64 * 1024


@dataclass(slots=True)
class Theirs:
    """What the worker inherits; of each channel the end to read calls from and the one to write answers to."""

    control: int = -1
    channels: list[tuple[int, int]] = field(default_factory=list)
    lifeline: int = -1
    stdout: int = -1
    stderr: int = -1
    log: int = -1

    @property
    def all(self) -> list[int]:
        """Every descriptor but the outputs."""
        return [self.control, *(fd for ends in self.channels for fd in ends), self.lifeline, self.log]


@dataclass(slots=True)
class Ends:
    """The host's ends of one channel, -1 once they are closed.

    ``unread`` reads the same pipe as the worker does: as long as it is open a write to a worker that has gone raises no signal, also
    in an application that gave SIGPIPE its deadly default back. ``over`` is readable once the link has hung up.
    """

    requests: int = -1
    unread: int = -1
    answers: int = -1
    over: int = -1

    def close(self) -> None:
        """Close them all. Idempotent."""
        for name in ("requests", "unread", "answers", "over"):
            # First forgotten, then closed: a fork in between must not close whatever has the number by then.
            fd = getattr(self, name)
            setattr(self, name, -1)
            _close(fd)


class Wires:
    """All of one worker's descriptors. A constructor that raises leaves none behind.

    ``close`` leaves the channels' ends alone: they belong to whoever uses them at the moment.
    """

    def __init__(self, plugin: str, channels: int) -> None:
        self.theirs = Theirs()
        self.ends: list[Ends] = []
        self.outputs: dict[str, OutputPipe] = {}
        self.control: socket.socket | None = None
        self.lifeline = -1
        self.faults = -1
        self.hangup = -1
        self._given = ExitStack()
        try:
            self._open(plugin, channels)
        except BaseException:
            self.hand_over()
            self.close()
            for mine in self.ends:
                mine.close()
            raise

    def _open(self, plugin: str, channels: int) -> None:
        self.control, self.theirs.control = self._socketpair()
        over, self.hangup = os.pipe()
        try:
            for _ in range(channels):
                self._channel(over)
        finally:
            os.close(over)
        self.theirs.lifeline, self.lifeline = self._pipe(given=0)
        self.faults = _unlinked_file()
        # The notes come first, and the dump is written behind them.
        os.ftruncate(self.faults, notes_size(channels))
        _seal_against_shrinking(self.faults)
        os.lseek(self.faults, notes_size(channels), os.SEEK_SET)
        for name in ("stdout", "stderr", "log"):
            read, write = self._pipe(given=1)
            setattr(self.theirs, name, write)
            self.outputs[name] = OutputPipe(read, name, plugin=plugin)

    def _channel(self, over: int) -> None:
        self.ends.append(mine := Ends())
        calls, mine.requests = self._pipe(given=0)
        mine.answers, answers = self._pipe(given=1)
        mine.unread = os.dup(calls)
        mine.over = os.dup(over)
        self.theirs.channels.append((calls, answers))

    def _socketpair(self) -> tuple[socket.socket, int]:
        mine, other = socket.socketpair()
        fd = other.detach()
        self._given.callback(os.close, fd)
        return mine, fd

    def _pipe(self, *, given: int) -> tuple[int, int]:
        ends = os.pipe()
        self._given.callback(os.close, ends[given])
        return ends

    def hand_over(self) -> None:
        """Close the worker's ends here, once it has them. Idempotent."""
        self._given.close()

    def close(self) -> None:
        """Close the host's ends. Idempotent."""
        for pipe in self.outputs.values():
            pipe.close()
        self._close_others()

    def notes(self) -> tuple[int, ...]:
        """Return the call that the worker began last, for each channel."""
        count = len(self.ends)
        # Not mapped: a worker that cuts the file short must not end the host.
        noted = os.pread(self.faults, 8 * count, 0)
        return struct.unpack(f"@{len(noted) // 8}Q", noted[: len(noted) // 8 * 8])

    def fault_dump(self) -> str:
        """Return what the worker's fault handler wrote."""
        return os.pread(self.faults, _MOST_DUMP, notes_size(len(self.ends))).decode("utf-8", "backslashreplace")

    def hang_up(self) -> None:
        """Wake everybody who waits on a channel. Idempotent."""
        fd, self.hangup = self.hangup, -1
        _close(fd)

    def forget(self) -> None:
        """Close this process's copies in a fork of the host, taking no lock: another thread may have held it in the parent."""
        for pipe in self.outputs.values():
            fd, pipe.fd = pipe.fd, -1
            _close(fd)
        for mine in self.ends:
            mine.close()
        self._close_others()

    def _close_others(self) -> None:
        if self.control is not None:
            self.control.close()
        # First forgotten, then closed: a fork in between must not close whatever has the number by then.
        for name in ("lifeline", "faults", "hangup"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            _close(fd)


def _close(fd: int) -> None:
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


def _unlinked_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hostkit-faults", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd, path = tempfile.mkstemp(prefix="hostkit-faults-")
    os.unlink(path)
    return fd


def _seal_against_shrinking(fd: int) -> None:
    """Keep the worker from cutting off the notes, which it has mapped: it would die of that. The dump behind them may grow."""
    if sys.platform == "linux":
        import fcntl  # not on every system

        with suppress(OSError):  # a file that is no memfd
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
