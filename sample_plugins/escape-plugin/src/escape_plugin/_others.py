"""Other processes' memory, descriptors and standing."""

from __future__ import annotations

import ctypes
import os
import resource

from ._calls import call
from ._table import Target, act

_TRACE_ATTACH, _TRACE_DETACH, _TRACE_SEIZE, _TRACE_INTERRUPT = 16, 17, 0x4206, 0x4207


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


@act(needs="CAP_SYS_PTRACE")
def trace_host(at: Target) -> str:
    """Trace the host, which is to read and change everything in it."""
    return _traced(at["host"])


@act(needs="CAP_SYS_PTRACE")
def trace_process(at: Target) -> str:
    """Trace another process of the same user."""
    call("ptrace", _TRACE_ATTACH, at["victim"], 0, 0)
    os.waitpid(at["victim"], 0x40000000)  # __WALL: it is no child
    call("ptrace", _TRACE_DETACH, at["victim"], 0, 0)
    return "traced it"


@act(alone=True)
def be_traced(at: Target) -> str:
    """Have one's parent trace oneself, so that nobody else can."""
    call("ptrace", 0, 0, 0, 0)  # which the host never takes up: it ends with this process
    return "asked for it"


@act(needs="CAP_SYS_PTRACE")
def copy_from_host(at: Target) -> str:
    """Read the host's memory (process_vm_readv)."""
    data = ctypes.create_string_buffer(at["secret_size"])
    mine = _Part(ctypes.addressof(data), at["secret_size"])
    theirs = _Part(at["secret_address"], at["secret_size"])
    call("process_vm_readv", at["host"], ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return f"read {data.raw!r}"


@act(needs="CAP_SYS_PTRACE")
def copy_to_host(at: Target) -> str:
    """Change the host's memory (process_vm_writev)."""
    data = ctypes.create_string_buffer(b"escaped")
    mine, theirs = _Part(ctypes.addressof(data), 7), _Part(at["memory_address"], 7)
    call("process_vm_writev", at["host"], ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return "changed it"


@act(needs="CAP_SYS_PTRACE")
def take_descriptor_of_host(at: Target) -> str:
    """Take a descriptor out of the host (pidfd_getfd)."""
    host = call("pidfd_open", at["host"], 0)
    try:
        fd = call("pidfd_getfd", host, at["open_secret"], 0)
    finally:
        os.close(host)
    try:
        return f"read {os.pread(fd, 256, 0)!r}"
    finally:
        os.close(fd)


@act(needs="CAP_SYS_PTRACE")
def compare_with_host(at: Target) -> str:
    """Find out which of the host's kernel objects one shares (kcmp)."""
    return f"compared: {call('kcmp', at['host'], os.getpid(), 1, 0, 0)}"


@act(needs="CAP_SYS_NICE")
def look_at_pages_of_host(at: Target) -> str:
    """Ask where the host's pages are (move_pages)."""
    pages = (ctypes.c_void_p * 1)(at["secret_address"])
    status = (ctypes.c_int * 1)()
    call("move_pages", at["host"], 1, pages, None, status, 0)
    return f"asked: {status[0]}"


@act(needs="CAP_SYS_RESOURCE")
def limit_host(at: Target) -> str:
    """Set a resource limit of the host."""
    resource.prlimit(at["host"], resource.RLIMIT_NOFILE, resource.prlimit(at["host"], resource.RLIMIT_NOFILE))
    return "set it, to what it was"


@act()
def pin_host(at: Target) -> str:
    """Say on which CPUs the host may run."""
    os.sched_setaffinity(at["host"], os.sched_getaffinity(at["host"]))
    return "said so, as it was"


@act()
def slow_host(at: Target) -> str:
    """Set the host's priority."""
    os.setpriority(os.PRIO_PROCESS, at["host"], os.getpriority(os.PRIO_PROCESS, at["host"]))
    return "set it, to what it was"


@act()
def slow_disk_of_host(at: Target) -> str:
    """Set the host's priority at the disk (ioprio_set)."""
    call("ioprio_set", 1, at["host"], (2 << 13) | 4)
    return "set it, to what is usual"


def _traced(pid: int) -> str:
    call("ptrace", _TRACE_SEIZE, pid, 0, 0)
    call("ptrace", _TRACE_INTERRUPT, pid, 0, 0)
    os.waitpid(pid, 0x40000000)
    call("ptrace", _TRACE_DETACH, pid, 0, 0)
    return "traced it"
