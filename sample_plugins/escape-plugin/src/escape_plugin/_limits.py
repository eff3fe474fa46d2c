"""The limits that hold the worker: lifting them, and running against them."""

from __future__ import annotations

import errno
import os
import resource
import threading

from ._table import Held, Target, act


@act(needs="CAP_SYS_RESOURCE")
def lift_file_limit(at: Target) -> str:
    """Lift the limit of open files."""
    return _lifted(resource.RLIMIT_NOFILE)


@act(needs="CAP_SYS_RESOURCE")
def lift_memory_limit(at: Target) -> str:
    """Lift the limit of memory."""
    return _lifted(resource.RLIMIT_DATA)


@act(needs="CAP_SYS_RESOURCE")
def lift_core_limit(at: Target) -> str:
    """Have a core file written, with all that is in memory."""
    return _lifted(resource.RLIMIT_CORE)


@act()
def lift_cpu_limit(at: Target) -> str:
    """Move the limit of CPU seconds out of the way."""
    before = resource.getrlimit(resource.RLIMIT_CPU)
    if before[0] == before[1]:
        resource.setrlimit(resource.RLIMIT_CPU, (1 << 30, before[1]))  # none was set: any will do
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (before[1], before[1]))
    resource.setrlimit(resource.RLIMIT_CPU, before)
    return "moved it, and back"


@act()
def use_all_cpus(at: Target) -> str:
    """Run on more CPUs than were allowed."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    found = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    if found == before:
        raise Held("limited: there are no more")
    return f"on {len(found)} in place of {len(before)}"


@act(needs="CAP_SYS_NICE")
def raise_priority(at: Target) -> str:
    """Run before others."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, before - 5)
    os.setpriority(os.PRIO_PROCESS, 0, before)
    return "raised it, and back"


@act(needs="CAP_SYS_NICE")
def run_in_real_time(at: Target) -> str:
    """Run before everybody, and never be interrupted."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    os.sched_setscheduler(0, before, os.sched_param(0))
    return "did, and back"


@act(alone=True)
def use_memory(at: Target) -> str:
    """Take twice the memory that was allowed."""
    taken = bytearray(2048 << 20)
    return f"took {len(taken) >> 20} MB"


@act()
def open_files(at: Target) -> str:
    """Open twice as many files as were allowed."""
    taken: list[int] = []
    try:
        while len(taken) < 512:
            taken.append(os.dup(0))
    except OSError as error:
        if error.errno != 24:
            raise
        raise Held("limited: EMFILE") from error
    finally:
        for fd in taken:
            os.close(fd)
    return f"opened {len(taken)}"


@act()
def thread_bomb(at: Target) -> str:
    """Start 1,000 threads that stay."""
    threads: list[threading.Thread] = []
    end = threading.Event()
    before = threading.stack_size(64 * 1024)
    try:
        for _ in range(1000):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError as error:
        raise Held("limited: can't start new thread") from error
    finally:
        end.set()
        for thread in threads:
            thread.join()
        threading.stack_size(before)
    return f"started {len(threads)}"


def _lifted(what: int) -> str:
    before = resource.getrlimit(what)
    if before[1] == resource.RLIM_INFINITY:
        raise Held("hidden: there is no limit")
    try:
        resource.setrlimit(what, (before[0], before[1] + 4096))
    except ValueError as error:  # what Python makes of EPERM
        raise PermissionError(errno.EPERM, str(error)) from error
    found = resource.getrlimit(what)
    resource.setrlimit(what, before)
    return f"from {before} to {found}"
