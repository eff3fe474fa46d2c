"""Hold the worker to its limits, by the kernel, before any byte of the plugin runs."""

from __future__ import annotations

import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

# Released when memory runs out, so that the error itself can still be written.
BALLAST = 1 << 20


def apply(limits: dict[str, Any]) -> bytearray:
    """Set every limit that is asked for and return the ballast. Raises ``OSError`` or ``ValueError``: then nothing runs."""
    _set(resource.RLIMIT_CORE, 0)  # a core file holds whatever secrets the plugin had in memory
    for what, value in of_process(limits).items():
        _set(what, value)
    if "cpu_cores" in limits:
        os.sched_setaffinity(0, cpus(os.getpid(), limits["cpu_cores"], os.sched_getaffinity(0)))
    return bytearray(BALLAST)


def of_process(limits: Mapping[str, Any]) -> dict[int, int]:
    """Return the kernel's limits that hold each process for good, by their numbers."""
    found = {}
    if "open_files" in limits:
        found[resource.RLIMIT_NOFILE] = int(limits["open_files"])
    if "memory_bytes" in limits:
        # Not RLIMIT_AS: it counts address space, of which numpy reserves five times what it uses.
        found[resource.RLIMIT_DATA] = int(limits["memory_bytes"])
    return found


def cpus(pid: int, count: int, allowed: Collection[int]) -> set[int]:
    """Return the CPUs for a worker: as many as it may use, other ones for another process id."""
    ordered = sorted(allowed)
    start = pid % len(ordered)
    return {(ordered + ordered)[start + index] for index in range(min(count, len(ordered)))}


def _set(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def allow_cpu(seconds: float | None, used: float = 0.0) -> None:
    """Move the CPU limit to ``seconds`` from now, or out of the way. The kernel counts whole seconds."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = resource.RLIM_INFINITY if seconds is None else int(used + seconds) + 1
    if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
        soft = hard
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
