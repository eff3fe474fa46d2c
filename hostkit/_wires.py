"""The descriptors between the host and one worker: control socket, channels, lifeline, fault dump and outputs.

The host's ends are attributes. The worker's are in ``theirs``, by name, until ``hand_over`` closes them in this process.
"""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import ExitStack
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
        self._theirs = ExitStack()
        self._mine = ExitStack()
        try:
            self.control, self.theirs.control = self._socketpair()
            self._mine.callback(self.control.close)
            for _ in range(channels):
                mine, other = self._socketpair()
                self.sockets.append(mine)
                self.theirs.channels.append(other)
            self.theirs.lifeline, self.lifeline = self._lifeline()
            self.faults = _unlinked_file()
            self._mine.callback(os.close, self.faults)
            for name in ("stdout", "stderr", "log"):
                setattr(self.theirs, name, self._output(plugin, name))
        except BaseException:
            self.hand_over()
            self.close()
            for mine in self.sockets:
                mine.close()
            raise

    def hand_over(self) -> None:
        """Close the worker's ends here, once it has them. Idempotent."""
        self._theirs.close()

    def close(self) -> None:
        """Close the host's ends. Idempotent."""
        self._mine.close()

    def forget(self) -> None:
        """Close this process's copies in a fork of the host: by number and without a lock, which another thread may have held."""
        self.control.close()
        for mine in self.sockets:
            mine.close()
        for fd in (self.lifeline, self.faults, *(pipe.fd for pipe in self.outputs.values())):
            try:
                os.close(fd)
            except OSError:
                pass  # closed before the fork
        self._mine.pop_all()
        self._theirs.close()

    def _socketpair(self) -> tuple[socket.socket, int]:
        mine, other = socket.socketpair()
        fd = other.detach()
        self._theirs.callback(os.close, fd)
        return mine, fd

    def _lifeline(self) -> tuple[int, int]:
        read, write = os.pipe()
        self._theirs.callback(os.close, read)
        self._mine.callback(os.close, write)
        return read, write

    def _output(self, plugin: str, source: str) -> int:
        read, write = os.pipe()
        self._theirs.callback(os.close, write)
        self.outputs[source] = OutputPipe(read, source, plugin=plugin)
        self._mine.callback(self.outputs[source].close)
        return write


def _unlinked_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hostkit-faults")
    fd, path = tempfile.mkstemp(prefix="hostkit-faults-")
    os.unlink(path)
    return fd
