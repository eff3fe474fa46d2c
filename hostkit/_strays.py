"""End what a worker left behind: processes that went into sessions of their own, where a signal to its group doesn't reach them.

A worker has a random mark in its environment, and what it starts inherits that. When it has ended, every process that still carries
the mark is killed. What took the mark off (a program started with an environment of its own making, or by a service that isn't the
worker's child) is not found, and neither is anything on systems without ``/proc``: cgroups and process namespaces hold what this
can't.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
from collections.abc import Collection, Iterator
from functools import partial

from ._deadline import Deadline
from ._proc import PROC, contents, killed, pids

VARIABLE = "HOSTKIT_WORKER"

# Seconds for all of it: a process may fork between the look and the kill, so it is looked again until nobody is found.
_PATIENCE = 1.0


def new_mark() -> str:
    """Return a mark for one worker. A host that runs in a worker itself hands on that worker's mark too."""
    return f"{os.environ.get(VARIABLE, '')}{secrets.token_hex(8)}."


def end_marked(marks: Collection[str]) -> None:
    """Kill every process that carries one of these marks, and wait until they are gone."""
    wanted = [mark.split(".")[-2].encode() + b"." for mark in marks]
    deadline = Deadline.after(_PATIENCE)
    if wanted and os.path.isdir("/proc/self"):
        while _kill_those_with(wanted, deadline) and not deadline.passed:
            continue


def end_marked_soon(mark: str) -> None:
    """``end_marked`` on another thread, which the interpreter's exit waits for."""
    try:
        threading.Thread(target=end_marked, args=([mark],), name="hostkit-strays").start()
    except RuntimeError:  # no thread to be had, or the interpreter is about to exit
        end_marked([mark])


def _kill_those_with(wanted: list[bytes], deadline: Deadline) -> bool:
    """Kill whoever carries a mark now and wait for the end of each; return whether there was anybody."""
    ending = list(_killed(wanted))
    try:
        for pidfd in ending:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll(deadline.remaining() * 1000)
    finally:
        for pidfd in ending:
            os.close(pidfd)
    return bool(ending)


def _killed(wanted: list[bytes]) -> Iterator[int]:
    """Kill whoever carries a mark; yield a descriptor of each."""
    for pid in pids():
        if _carries(pid, wanted):
            pidfd = killed(pid, still=partial(_carries, pid, wanted))
            if pidfd is not None:
                yield pidfd


def _carries(pid: int, wanted: list[bytes]) -> bool:
    try:
        carried = contents(f"{PROC}/{pid}/environ")
    except OSError:  # it has ended, or is somebody else's
        return False
    return any(mark in carried for mark in wanted)
