"""The worker's own place: its temporary directory and its descriptors."""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
import tempfile

from ._table import Held

_numbers = itertools.count(1)


def path(name: str) -> str:
    """Return a new name in the worker's own temporary directory."""
    return os.path.join(tempfile.gettempdir(), f"escape-{os.getpid()}-{next(_numbers)}-{name}")


def descriptors() -> dict[int, os.stat_result]:
    """Return what is open beside the standard streams; asked one by one, because /proc may not be there."""
    found = {}
    for fd in range(3, 256):
        try:
            found[fd] = os.fstat(fd)
        except OSError:
            continue
    return found


def lifeline() -> int:
    """Return the descriptor that ends this process with its host: the only one that sends signals."""
    for fd in descriptors():
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ASYNC:
            return fd
    raise Held("hidden: no descriptor here sends a signal")


def answers() -> list[int]:
    """Return the pipes into which this worker writes to its host."""
    return [
        fd
        for fd, status in descriptors().items()
        if stat.S_ISFIFO(status.st_mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    ]


def controls() -> list[int]:
    """Return the sockets on which this worker speaks with its host."""
    return [fd for fd, status in descriptors().items() if stat.S_ISSOCK(status.st_mode)]


def notes() -> int:
    """Return the file without a name in which this worker notes what it begins."""
    for fd, status in descriptors().items():
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
            return fd
    raise Held("hidden: no file without a name is open here")
