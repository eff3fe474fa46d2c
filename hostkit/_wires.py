"""The descriptors between the host and one worker: control socket, channels, lifeline, fault dump and outputs.

The host's ends are attributes. The worker's are in ``theirs``, by name, until ``hand_over`` closes them in this process.
"""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from ._log import OutputPipe


@dataclass(slots=True)
class Theirs:
    """What the worker inherits."""

    control: int = -1
    channels: list[int] = field(default_factory=list)
    lifeline: int = -1
    stdout: int = -1
    stderr: int = -1
    log: int = -1


class Wires:
    """All of one worker's descriptors. A constructor that raises leaves none behind.

    ``close`` leaves the channels' sockets alone: they belong to whoever uses them at the moment.
    """

    def __init__(self, plugin: str, channels: int) -> None:
        self.theirs = Theirs()
        self.sockets: list[socket.socket] = []
        self.outputs: dict[str, OutputPipe] = {}
        self.control: socket.socket | None = None
        self.lifeline = -1
        self.faults = -1
        self._given = ExitStack()
        try:
            self._open(plugin, channels)
        except BaseException:
            self.hand_over()
            self.close()
            for mine in self.sockets:
                mine.close()
            raise

    def _open(self, plugin: str, channels: int) -> None:
        self.control, self.theirs.control = self._socketpair()
        for _ in range(channels):
            mine, other = self._socketpair()
            self.sockets.append(mine)
            self.theirs.channels.append(other)
        self.theirs.lifeline, self.lifeline = self._pipe(given=0)
        self.faults = _unlinked_file()
        for name in ("stdout", "stderr", "log"):
            read, write = self._pipe(given=1)
            setattr(self.theirs, name, write)
            self.outputs[name] = OutputPipe(read, name, plugin=plugin)

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

    def forget(self) -> None:
        """Close this process's copies in a fork of the host, taking no lock: another thread may have held it in the parent."""
        for pipe in self.outputs.values():
            fd, pipe.fd = pipe.fd, -1
            _close(fd)
        for mine in self.sockets:
            mine.close()
        self._close_others()

    def _close_others(self) -> None:
        if self.control is not None:
            self.control.close()
        # First forgotten, then closed: a fork in between must not close whatever has the number by then.
        for name in ("lifeline", "faults"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            _close(fd)


def _close(fd: int) -> None:
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


def _unlinked_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hostkit-faults")
    fd, path = tempfile.mkstemp(prefix="hostkit-faults-")
    os.unlink(path)
    return fd
