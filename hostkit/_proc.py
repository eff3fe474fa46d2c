"""What ``/proc`` tells of processes, and how to kill one whose number may be somebody else's by now."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

PROC = "/proc"


def pids(proc: str = PROC) -> list[int]:
    """Return the processes that there are; none where they can't be seen."""
    return [int(name) for name in names(proc) if name.isdecimal()]


def names(place: str) -> list[str]:
    """Return what is in a directory; nothing where there is none any more."""
    with suppress(OSError):
        return os.listdir(place)
    return []


def contents(path: str) -> bytes:
    """Return what a file of /proc says. Raises ``OSError``. Looked at often: a file object costs as much again."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def is_there(pid: int) -> bool:
    """Whether there is a process of that number, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def killed(pid: int, *, still: Callable[[], bool]) -> int | None:
    """Kill a process if it is ``still`` the one that is meant, and return a descriptor that tells of its end; None otherwise."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # it has just ended, or there is no descriptor left
        return None
    # The number may be another process's by now: the descriptor can't be.
    if not still():
        os.close(pidfd)
        return None
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return pidfd
