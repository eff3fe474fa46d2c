"""Faults of a plugin that uses up what there is: descriptors, threads, processes, memory, output, disk."""

from __future__ import annotations

import os
import signal as signals
import sys
import tempfile
import threading
import time

from hostkit._contract import ExecutionContext

from ._table import fault


@fault("PluginFailed", alone=True, settings={"resources": {"max_open_files": 64}})
def leak_descriptors(ctx: ExecutionContext, count: int = 1000) -> int:
    """Open files and never close them, until no more are to be had."""
    leaked = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    return len(leaked)


@fault("answer")
def leak_threads(ctx: ExecutionContext, count: int = 100, seconds: float = 0.5) -> int:
    """Leave a hundred threads behind."""
    event = threading.Event()
    for _ in range(count):
        threading.Thread(target=event.wait, args=(seconds,), daemon=True).start()
    return count


@fault("PluginFailed", alone=True)
def thread_bomb(ctx: ExecutionContext) -> int:
    """Start threads until the system refuses one; address space for 64 stacks is what it gets."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    threading.stack_size(8 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 23), hard))
    release = threading.Event()
    started = 0
    try:
        while True:
            threading.Thread(target=release.wait, args=(30,), daemon=True).start()
            started += 1
    finally:
        release.set()
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@fault("MemoryExceeded", alone=True, settings={"resources": {"max_memory_mb": 128}})
def memory_bomb(ctx: ExecutionContext, megabytes: int = 4096) -> int:
    """Allocate four gigabytes in small pieces, beyond a limit of 128 MB."""
    return sum(map(len, [bytes(1 << 16) for _ in range(megabytes << 4)]))


@fault("answer", alone=True)
def leave_children(ctx: ExecutionContext, how: str = "grandchild", seconds: float = 60.0) -> int:
    """Leave a process behind: "how" is child, grandchild, session (setsid), double (fork twice, setsid) or stubborn (no SIGTERM)."""
    return _leave(how, seconds)


def _leave(how: str, seconds: float) -> int:
    """Return the process id of what was left behind."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        if how in ("session", "double"):
            os.setsid()
        if how == "stubborn":
            signals.signal(signals.SIGTERM, signals.SIG_IGN)
        if how in ("grandchild", "double") and os.fork():
            os._exit(0)
        os.write(write, os.getpid().to_bytes(4, "big"))
        os.execv(sys.executable, [sys.executable, "-ISc", f"import time; time.sleep({float(seconds)})"])  # noqa: S606
    os.close(write)
    left = int.from_bytes(os.read(read, 4), "big")
    os.close(read)
    if how in ("grandchild", "double"):
        os.waitpid(child, 0)
    return left


@fault("WorkerExited", alone=True)
def fork_and_exit(ctx: ExecutionContext, code: int = 6, seconds: float = 10.0) -> None:
    """Leave a copy of the worker behind, in a session of its own and with every descriptor, and exit."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(seconds)
        os._exit(0)
    os._exit(code)


@fault("answer", alone=True)
def flood(ctx: ExecutionContext, fd: int = 1, megabytes: int = 20, chunk: str = "00fffe80") -> str:
    """Write 20 MB of binary rubbish without a newline to stdout."""
    unit = bytes.fromhex(chunk)
    data = unit * max(1, (1 << 16) // len(unit))
    left = megabytes << 20
    while left > 0:
        left -= os.write(fd, data)
    return "flooded"


@fault("answer", alone=True)
def long_line(ctx: ExecutionContext, megabytes: int = 10) -> str:
    """Print one line of ten megabytes."""
    sys.stdout.write("z" * (megabytes << 20) + "\n")
    return "printed"


@fault("answer")
def forge_log(ctx: ExecutionContext) -> str:
    """Log a text that pretends to be another record, and colours a terminal."""
    ctx.logger.warning('harmless\n2030-01-01 00:00:00 | ERROR | {"level": "ERROR", "plugin": "other"}\x1b[31m red \x1b[2J\r gone')
    return "logged"


@fault("answer", alone=True)
def close_standard(ctx: ExecutionContext) -> str:
    """Close stdin, stdout and stderr."""
    for fd in (0, 1, 2):
        os.close(fd)
    return "closed"


@fault("answer", alone=True)
def dup_over_standard(ctx: ExecutionContext) -> str:
    """Put /dev/null over stdin, stdout and stderr."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return "dupped"


@fault("PluginFailed", alone=True)
def fill_disk(ctx: ExecutionContext, most: int = 1 << 20) -> None:
    """Write a file until it may grow no further (a limit of 1 MB stands for the full disk)."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with tempfile.TemporaryFile() as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()


@fault("answer", alone=True)
def poison_interpreter(ctx: ExecutionContext) -> str:
    """Spoil builtins, modules, path, hooks, signals, environment and working directory of the own process."""
    import builtins
    import logging
    import warnings

    sys.modules["json"] = None  # type: ignore[assignment]
    builtins.print = builtins.open = None  # type: ignore[assignment]
    sys.path[:] = ["/nonexistent"]
    sys.meta_path.clear()
    os.environ.clear()
    os.chdir("/")
    warnings.simplefilter("error")
    logging.root.handlers.clear()
    for number in (signals.SIGTERM, signals.SIGINT, signals.SIGCHLD):
        signals.signal(number, signals.SIG_IGN)
    return "poisoned"
