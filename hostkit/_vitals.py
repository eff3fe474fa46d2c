"""How the workers of a plugin are doing: memory, CPU seconds and age of each, and who waits for them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from ._proc import PROC, contents


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """One worker with all that it has started: ``memory`` in bytes as the kernel counts it for processes (RSS), ``cpu`` seconds so far,
    ``age`` in seconds. ``state`` is ``starting``, ``standby``, ``serving`` or ``leaving``."""

    pid: int
    state: str
    age: float
    memory: int
    cpu: float
    threads: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """A backend's: its ``workers``, the calls ``waiting`` for one of them, the CPU seconds of those that have ended, and why the plugin
    is no longer restarted, if it isn't."""

    workers: tuple[WorkerVitals, ...] = ()
    waiting: int = 0
    spent: float = 0.0
    failed: str = ""


NONE = Vitals()


def own() -> dict[str, float | int]:
    """Return this process's ``memory``, ``cpu`` seconds and ``threads``, its children left out."""
    return {"memory": resident([os.getpid()]), "cpu": time.process_time(), "threads": threading.active_count()}


def resident(pids: Iterable[int]) -> int:
    """Return the bytes of memory that these processes have in RAM; what they share is counted for each."""
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):  # it has ended
            total += int(contents(f"{PROC}/{pid}/statm").split()[1]) * _PAGE
    return total


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
