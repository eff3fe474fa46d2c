"""Signals to others: none to the host that would hurt it, real ones to a process that is there to be hurt."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

from ._calls import call
from ._table import Held, Target, act


@act()
def signal_host(at: Target) -> str:
    """Find the host ready to be signalled (signal 0)."""
    os.kill(at["host"], 0)
    return "it could have been killed"


@act()
def signal_everybody(at: Target) -> str:
    """Find everybody ready to be signalled (signal 0 to -1)."""
    os.kill(-1, 0)
    return "they could have been killed"


@act()
def kill_process(at: Target) -> str:
    """Kill another process of the same user."""
    os.kill(at["victim"], signal.SIGKILL)
    return "killed it"


@act()
def kill_group(at: Target) -> str:
    """Kill another process group."""
    os.killpg(at["victim"], signal.SIGKILL)
    return "killed it"


@act()
def kill_other_worker(at: Target) -> str:
    """Kill the worker of another plugin."""
    os.kill(at["other_worker"], signal.SIGKILL)
    return "killed it"


@act()
def signal_thread(at: Target) -> str:
    """Signal a thread of another process (tgkill)."""
    call("tgkill", at["victim"], at["victim"], int(signal.SIGUSR1))
    return "signalled it"


@act()
def signal_thread_of_any_process(at: Target) -> str:
    """Signal a thread by its number alone (tkill)."""
    call("tkill", at["victim"], int(signal.SIGUSR1))
    return "signalled it"


@act()
def signal_with_forged_sender(at: Target) -> str:
    """Signal another process in somebody else's name (rt_sigqueueinfo)."""
    info = (ctypes.c_int * 32)(int(signal.SIGUSR1), 0, -1)  # SI_QUEUE
    call("rt_sigqueueinfo", at["victim"], int(signal.SIGUSR1), info)
    return "signalled it"


@act()
def signal_by_descriptor(at: Target) -> str:
    """Signal another process by a descriptor of it (pidfd_send_signal)."""
    fd = call("pidfd_open", at["victim"], 0)
    try:
        call("pidfd_send_signal", fd, int(signal.SIGUSR1), None, 0)
    finally:
        os.close(fd)
    return "signalled it"


@act()
def signal_by_ownership(at: Target) -> str:
    """Have the kernel signal another process for what happens on an own socket (F_SETOWN)."""
    import fcntl
    import socket

    mine, other = socket.socketpair()
    with mine, other:
        fcntl.fcntl(mine, 10, int(signal.SIGUSR1))  # F_SETSIG
        fcntl.fcntl(mine, fcntl.F_SETOWN, at["victim"])
        fcntl.fcntl(mine, fcntl.F_SETFL, fcntl.fcntl(mine, fcntl.F_GETFL) | os.O_ASYNC)
        other.send(b"x")
    return "the kernel was asked to"


@act()
def signal_by_ownership_of_socket(at: Target) -> str:
    """Have the kernel signal another process for what happens on an own socket (FIOSETOWN)."""
    import fcntl
    import socket

    mine, other = socket.socketpair()
    with mine, other:
        fcntl.fcntl(mine, 10, int(signal.SIGUSR1))  # F_SETSIG
        fcntl.ioctl(mine, 0x8901, struct.pack("@i", at["victim"]))
        fcntl.ioctl(mine, 0x5452, struct.pack("@i", 1))  # FIOASYNC
        other.send(b"x")
    return "the kernel was asked to"


@act()
def signal_by_timer(at: Target) -> str:
    """Have a timer signal a thread of another process (SIGEV_THREAD_ID)."""
    event = (ctypes.c_int * 16)(0, 0, int(signal.SIGUSR1), 4, at["victim"])
    timer = ctypes.c_void_p()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.timer_create(1, event, ctypes.byref(timer)):
        code = ctypes.get_errno()
        if code == 22:  # the kernel takes only threads of this process
            raise Held("limited: EINVAL")
        raise OSError(code, os.strerror(code))
    libc.timer_delete(timer)
    return "the kernel took it"
