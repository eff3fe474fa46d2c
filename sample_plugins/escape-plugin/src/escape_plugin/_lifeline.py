"""The lifeline, which ends the worker with its host: cutting it, in every way that a descriptor has."""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable

from . import _own
from ._calls import call, opened
from ._table import Held, Target, act

_SETSIG, _GETSIG, _SETOWN_EX, _GETOWN_EX, _FIOASYNC = 10, 11, 15, 16, 0x5452


@act()
def disarm_lifeline(at: Target) -> str:
    """Take the lifeline's signal away (F_SETFL)."""
    return _silenced(_own.lifeline())


@act()
def change_lifeline_signal(at: Target) -> str:
    """Have the lifeline send a signal that ends nobody (F_SETSIG)."""
    fd = _own.lifeline()
    before = fcntl.fcntl(fd, _GETSIG)
    fcntl.fcntl(fd, _SETSIG, 23)
    found = fcntl.fcntl(fd, _GETSIG)
    fcntl.fcntl(fd, _SETSIG, before)
    return f"from {before} to {found}"


@act()
def change_lifeline_owner(at: Target) -> str:
    """Have the lifeline signal nobody (F_SETOWN)."""
    return _disowned(lambda fd: fcntl.fcntl(fd, fcntl.F_SETOWN, 0))


@act()
def change_lifeline_owner_ex(at: Target) -> str:
    """Have the lifeline signal nobody (F_SETOWN_EX)."""
    return _disowned(lambda fd: fcntl.fcntl(fd, _SETOWN_EX, bytes(ctypes.c_int(1)) + bytes(4)))


@act()
def silence_lifeline(at: Target) -> str:
    """Take the lifeline's signal away (FIOASYNC)."""
    fd = _own.lifeline()
    fcntl.ioctl(fd, _FIOASYNC, bytes(4))
    return _gone(fd)


@act()
def disarm_copy_of_lifeline(at: Target) -> str:
    """Take the lifeline's signal away by a copy of the descriptor (dup)."""
    return _by_copy(os.dup)


@act()
def disarm_fcntl_copy_of_lifeline(at: Target) -> str:
    """Take the lifeline's signal away by a copy of the descriptor (F_DUPFD)."""
    return _by_copy(lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100))


@act()
def disarm_sent_copy_of_lifeline(at: Target) -> str:
    """Take the lifeline's signal away by a copy of the descriptor that one sent oneself (SCM_RIGHTS)."""

    def sent(fd: int) -> int:
        one, other = socket.socketpair()
        with one, other:
            socket.send_fds(one, [b"x"], [fd])
            _, fds, _, _ = socket.recv_fds(other, 1, 1)
            if not fds:
                raise Held("limited: it did not arrive")
            return fds[0]

    return _by_copy(sent)


@act()
def disarm_taken_copy_of_lifeline(at: Target) -> str:
    """Take the lifeline's signal away by a copy of the descriptor that one took from oneself (pidfd_getfd)."""

    def taken(fd: int) -> int:
        oneself = call("pidfd_open", os.getpid(), 0)
        try:
            return call("pidfd_getfd", oneself, fd, 0)
        finally:
            os.close(oneself)

    return _by_copy(taken)


@act()
def hold_other_end_of_lifeline(at: Target) -> str:
    """Open the lifeline's other end, so that it never closes (/proc/self/fd)."""
    return opened(os.open(f"/proc/self/fd/{_own.lifeline()}", os.O_WRONLY | os.O_NONBLOCK), "the host's end")


@act()
def hold_end_of_a_thread(at: Target) -> str:
    """Open the other end of whatever pipe another thread keeps to itself (/proc/self/task)."""
    refused: OSError | None = None
    for thread in os.listdir("/proc/self/task"):
        for fd in os.listdir(f"/proc/self/task/{thread}/fd"):
            path = f"/proc/self/task/{thread}/fd/{fd}"
            try:
                if _is_lifeline(path):
                    return opened(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "the host's end")
            except FileNotFoundError:
                continue
            except OSError as error:
                refused = error
    raise refused or Held("hidden: no thread has it")


@act(alone=True)
def release_threads(at: Target) -> str:
    """Release every lock that another thread waits on, so that one that keeps the lifeline ends."""
    released = 0
    for frame in sys._current_frames().values():
        for found in [*frame.f_locals.values()]:
            if isinstance(found, _thread.LockType) and found.locked():
                released += 1
                found.release()
    if not released:
        raise Held("hidden: no thread waits on a lock")
    time.sleep(0.3)
    return f"released {released}, and it is still here"


@act(alone=True)
def close_lifeline(at: Target) -> str:
    """Close the lifeline."""
    fd = _own.lifeline()
    os.close(fd)
    return _closed(fd)


@act(alone=True)
def close_range_of_lifeline(at: Target) -> str:
    """Close the lifeline with whatever is beside it (close_range)."""
    fd = _own.lifeline()
    call("close_range", fd, fd, 0)
    return _closed(fd)


@act(alone=True)
def cover_lifeline(at: Target) -> str:
    """Put another descriptor in the lifeline's place (dup2)."""
    fd = _own.lifeline()
    os.dup2(0, fd)
    return _gone(fd)


@act()
def leave_group_of_lifeline(at: Target) -> str:
    """Leave the process group that the lifeline ends."""
    before = os.getpgrp()
    os.setpgid(0, os.getppid())
    if os.getpgrp() == before:
        raise Held("limited: it is still the same")
    return "left it"


def _is_lifeline(path: str) -> bool:
    """Return whether this is a pipe that is read, and none that leads to a call."""
    where, _, fd = path.rpartition("/fd/")
    with open(f"{where}/fdinfo/{fd}", encoding="utf-8") as file:
        flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags"))
    return bool(flags & os.O_ASYNC)


def _by_copy(made: Callable[[int], int]) -> str:
    copy = made(_own.lifeline())
    try:
        return _silenced(copy)
    finally:
        os.close(copy)


def _disowned(do: Callable[[int], object]) -> str:
    fd = _own.lifeline()
    before = fcntl.fcntl(fd, _GETOWN_EX, bytes(8))  # F_GETOWN can't tell a group from an error
    do(fd)
    found = fcntl.fcntl(fd, _GETOWN_EX, bytes(8))
    fcntl.fcntl(fd, _SETOWN_EX, before)
    if found == before:
        raise Held("limited: it is still the same")
    return f"from {before.hex()} to {found.hex()}"


def _silenced(fd: int) -> str:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_ASYNC)
    return _gone(fd)


def _gone(fd: int) -> str:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_ASYNC:
        raise Held("limited: it still sends its signal")
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    return "its signal was gone, and is back"


def _closed(fd: int) -> str:
    try:
        os.fstat(fd)
    except OSError:
        return "it is closed"
    raise Held("limited: it is still open")
