"""Memory, queues and semaphores that processes share by name."""

from __future__ import annotations

import ctypes
import os
from multiprocessing import shared_memory

from ._calls import call, libc
from ._table import Target, act


@act()
def attach_segment(at: Target) -> str:
    """Read the shared memory of another process (System V)."""
    address = call("shmat", at["segment"], None, 0o10000)
    try:
        return f"read {ctypes.string_at(address, at['secret_size'])!r}"
    finally:
        call("shmdt", ctypes.c_void_p(address))


@act()
def send_to_queue(at: Target) -> str:
    """Send into the message queue of another process (System V)."""
    call("msgsnd", at["queue"], (ctypes.c_long * 2)(1, 0), 8, 0o4000)
    return "sent"


@act()
def set_semaphore(at: Target) -> str:
    """Set the semaphore of another process (System V)."""
    call("semctl", at["semaphore"], 0, 16, 7)
    return "set it"


@act()
def create_segment(at: Target) -> str:
    """Leave shared memory behind that outlives the worker (System V)."""
    libc.shmget.restype = ctypes.c_int
    found = libc.shmget(0, ctypes.c_size_t(4096), 0o1600)
    if found < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    libc.shmctl(found, 0, None)
    return "left it, and removed it"


@act()
def open_named_memory(at: Target) -> str:
    """Read the named memory of another process (POSIX)."""
    fd = os.open(f"/dev/shm{at['named_memory']}", os.O_RDONLY)
    try:
        return f"read {os.read(fd, 256)!r}"
    finally:
        os.close(fd)


@act()
def make_named_memory(at: Target) -> str:
    """Make named memory (multiprocessing.shared_memory)."""
    made = shared_memory.SharedMemory(create=True, size=64)
    made.close()
    made.unlink()
    return "made it"


@act()
def open_named_queue(at: Target) -> str:
    """Send into the named queue of another process (POSIX)."""
    fd = call("mq_open", at["named_queue"].encode(), os.O_WRONLY | os.O_NONBLOCK, 0, None)
    try:
        call("mq_timedsend", fd, b"escaped", 7, 0, None)
    finally:
        os.close(fd)
    return "sent"


@act()
def make_named_semaphore(at: Target) -> str:
    """Make a named semaphore (POSIX)."""
    name = f"/escaped-{os.getpid()}".encode()
    libc.sem_open.restype = ctypes.c_void_p
    found = libc.sem_open(name, os.O_CREAT | os.O_EXCL, 0o600, 1)
    if not found:
        raise OSError(ctypes.get_errno(), "sem_open")
    libc.sem_close(ctypes.c_void_p(found))
    libc.sem_unlink(name)
    return "made it"
