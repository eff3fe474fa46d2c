"""Faults that end the worker: exits, fatal signals, kills."""

from __future__ import annotations

import os
import signal as signals
import sys
import threading
import time

from hostkit._contract import ExecutionContext

from ._table import fault


@fault("WorkerExited", alone=True)
def exit(ctx: ExecutionContext, code: int = 0) -> None:  # noqa: A001
    """Leave by os._exit, with status 0 unless told otherwise."""
    os._exit(code)


@fault("WorkerExited", alone=True)
def exit_in_thread(ctx: ExecutionContext, code: int = 3) -> None:
    """Leave by os._exit on another thread while the call runs."""
    threading.Thread(target=os._exit, args=(code,)).start()
    time.sleep(60)


@fault("WorkerExited", alone=True)
def library_gives_up(ctx: ExecutionContext) -> None:
    """Write last words to stderr and exit, as a C library does that got no memory."""
    os.write(2, b"OpenBLAS error: Memory allocation still failed after 10 retries, giving up.\n")
    os._exit(1)


@fault("WorkerCrashed", alone=True)
def segfault(ctx: ExecutionContext) -> None:
    """Read address 0: SIGSEGV."""
    import ctypes

    ctypes.string_at(0)


@fault("WorkerCrashed", alone=True)
def abort(ctx: ExecutionContext) -> None:
    """Call abort(): SIGABRT."""
    os.abort()


@fault("WorkerCrashed", alone=True)
def bus_error(ctx: ExecutionContext) -> None:
    """Read a mapped file behind its end: SIGBUS."""
    import ctypes
    import mmap
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        view = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        file.truncate(0)
        ctypes.string_at(ctypes.addressof(ctypes.c_char.from_buffer(view)), 1)


@fault("WorkerCrashed", "WorkerKilled", alone=True)
def signal(ctx: ExecutionContext, number: int = signals.SIGILL) -> None:
    """Send the worker a signal from within, SIGILL unless told otherwise."""
    os.kill(os.getpid(), number)
    time.sleep(60)


@fault("WorkerKilled", alone=True)
def killed(ctx: ExecutionContext) -> None:
    """Get a SIGKILL that nobody announced, as from the kernel or an operator."""
    os.kill(os.getpid(), signals.SIGKILL)
    time.sleep(60)


@fault("WorkerCrashed", "PluginFailed", alone=True)
def overflow_c_stack(ctx: ExecutionContext) -> None:
    """Overflow the C stack; interpreters from 3.12 on make a RecursionError of it."""
    sys.setrecursionlimit(10**9)

    def deeper(n: int) -> list[object]:
        return [*map(deeper, [n + 1])]

    deeper(0)


@fault("SandboxViolation", alone=True)
def forbidden_call(ctx: ExecutionContext) -> None:
    """Get a SIGSYS, as for a system call that a filter forbids."""
    os.kill(os.getpid(), signals.SIGSYS)
    time.sleep(60)
