"""Faults of a plugin that doesn't come back: it waits, spins, stops, or holds the interpreter."""

from __future__ import annotations

import os
import re
import signal as signals
import socket
import threading
import time

from hostkit._contract import ExecutionContext

from ._table import fault

_SOON = {"heartbeat": {"interval": 0.2, "misses": 3}}
_SHORT_GRACE = {"cancel_grace": 0.2}


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def sleep(ctx: ExecutionContext, seconds: float = 60.0) -> str:
    """Sleep in small pieces, deaf to cancellation."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
    return "slept"


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def sleep_ignoring_sigterm(ctx: ExecutionContext, seconds: float = 60.0) -> str:
    """Ignore SIGTERM, and sleep."""
    signals.signal(signals.SIGTERM, signals.SIG_IGN)
    return sleep(ctx, seconds)


@fault("CallTimeout", timeout=0.5)
def wait_for_cancel(ctx: ExecutionContext, seconds: float = 10.0, then: str | int = "raise") -> str:
    """Go on until the call is cancelled, then give in: the worker stays."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not ctx.cancelled:
        time.sleep(0.005)
    if then == "raise":
        ctx.raise_if_cancelled()
    return "x" * (then if isinstance(then, int) else 1)


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def spin(ctx: ExecutionContext) -> None:
    """Loop for ever, in Python."""
    while True:
        pass


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def spin_catching(ctx: ExecutionContext) -> None:
    """Loop for ever and catch whatever is raised into the loop."""
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: S112
            continue


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def wait_on_socket(ctx: ExecutionContext) -> None:
    """Wait for bytes that never come."""
    mine, _theirs = socket.socketpair()
    mine.recv(1)


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def deadlock(ctx: ExecutionContext) -> None:
    """Take a lock twice."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@fault("CallTimeout", alone=True, timeout=0.5, settings=_SHORT_GRACE)
def join_itself(ctx: ExecutionContext) -> str:
    """Wait for a thread that waits for itself."""
    started = threading.Event()

    def wait() -> None:
        started.wait()
        while True:
            time.sleep(1)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    started.set()
    thread.join(60)
    return "joined"


@fault("WorkerHung", alone=True, settings=_SOON)
def stop(ctx: ExecutionContext) -> None:
    """Stop the whole process: SIGSTOP."""
    os.kill(os.getpid(), signals.SIGSTOP)
    time.sleep(60)


@fault("WorkerHung", alone=True, settings=_SOON)
def hold_the_gil(ctx: ExecutionContext, seconds: float = 60.0) -> None:
    """Sleep in C code without releasing the interpreter."""
    import ctypes

    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@fault("WorkerHung", alone=True, settings=_SOON)
def backtrack(ctx: ExecutionContext) -> object:
    """Match a pattern that backtracks for longer than the universe lasts."""
    return re.match(r"(a+)+$", "a" * 64 + "b")


@fault("WorkerHung", alone=True, settings=_SOON)
def big_power(ctx: ExecutionContext) -> int:
    """Compute 3**10**9, which is one operation of the interpreter."""
    exponent: int = 10**9
    power: int = 3**exponent
    return power & 1
