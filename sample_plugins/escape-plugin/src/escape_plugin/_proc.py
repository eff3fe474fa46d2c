"""What /proc tells of the host, and lets one do to it and to oneself."""

from __future__ import annotations

import ctypes
import mmap
import os

from ._table import Held, Target, act


@act()
def list_processes(at: Target) -> str:
    """See which processes run on the machine."""
    if str(at["host"]) not in os.listdir("/proc"):
        raise Held("hidden: the host is not in /proc")
    return "the host is in /proc"


@act()
def probe_host(at: Target) -> str:
    """Ask whether there is such a process as the host (getsid)."""
    return f"there is, in session {os.getsid(at['host'])}"


@act()
def list_connections(at: Target) -> str:
    """See which ports of the machine are used (/proc/self/net)."""
    with open("/proc/self/net/tcp", encoding="ascii") as file:
        if f":{at['tcp']:04X} " not in file.read():
            raise Held("hidden: the host's port is not there")
    return f"the host listens on {at['tcp']}"


@act()
def read_host_environment(at: Target) -> str:
    """Read the environment that the host was started with."""
    return _read(at, "environ")


@act()
def read_host_arguments(at: Target) -> str:
    """Read the host's command line."""
    return _read(at, "cmdline")


@act()
def read_host_maps(at: Target) -> str:
    """Read where the host has what in its memory."""
    return _read(at, "maps")


@act(needs="CAP_SYS_PTRACE")
def read_host_memory(at: Target) -> str:
    """Read the host's memory (/proc/PID/mem)."""
    with open(f"/proc/{at['host']}/mem", "rb", buffering=0) as memory:
        memory.seek(at["secret_address"])
        return f"read {memory.read(at['secret_size'])!r}"


@act(needs="CAP_SYS_PTRACE")
def write_host_memory(at: Target) -> str:
    """Change the host's memory (/proc/PID/mem)."""
    with open(f"/proc/{at['host']}/mem", "r+b", buffering=0) as memory:
        memory.seek(at["memory_address"])
        memory.write(b"escaped")
    return "changed it"


@act()
def list_host_descriptors(at: Target) -> str:
    """See what the host has open."""
    place = f"/proc/{at['host']}/fd"
    link = os.readlink(f"{place}/{at['open_secret']}")
    return f"{len(os.listdir(place))} descriptors, one of them {link}"


@act()
def open_host_descriptor(at: Target) -> str:
    """Open what the host has open (/proc/PID/fd)."""
    with open(f"/proc/{at['host']}/fd/{at['open_secret']}", "rb") as file:
        return f"read {file.read(256)!r}"


@act()
def read_through_host_root(at: Target) -> str:
    """Read a file by the host's own root directory (/proc/PID/root)."""
    with open(f"/proc/{at['host']}/root{at['readable']}", "rb") as file:
        return f"read {file.read(256)!r}"


@act()
def read_host_status(at: Target) -> str:
    """Read the host's user, state and use of memory."""
    return _read(at, "status")


@act()
def write_own_memory_past_its_protection(at: Target) -> str:
    """Write into own memory that is read-only (/proc/self/mem)."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held = ctypes.c_char.from_buffer(page)
    address = ctypes.addressof(held)
    libc = ctypes.CDLL(None)
    libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 1)
    try:
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(b"escaped")
        found = page[:7]
    finally:
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 3)
        del held
        page.close()
    if found != b"escaped":
        raise Held("limited: it was written and isn't there")
    return "wrote into it"


@act()
def lower_own_oom_score(at: Target) -> str:
    """Have the kernel kill others first when memory runs out (/proc/self/oom_score_adj)."""
    with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
        value = file.read()
        file.seek(0)
        file.write(value)
    return f"wrote {value!r}"


def _read(at: Target, name: str) -> str:
    with open(f"/proc/{at['host']}/{name}", "rb") as file:
        data = file.read()
    if not data:
        raise Held(f"hidden: {name} of the host is empty")
    return f"read {len(data)} bytes"
