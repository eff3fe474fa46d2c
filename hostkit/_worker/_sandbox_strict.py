"""What "strict" does before a worker is confined as at "standard": it moves to where there is nothing else.

A worker of root goes on as a throwaway user, whom no file belongs to and no other process runs as.
"""

from __future__ import annotations

import os
import resource

from . import _sandbox_namespaces, _sandbox_root
from ._sandbox_calls import Unavailable
from ._sandbox_privileges import renounce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._sandbox_calls import Kernel

# What systemd leaves to nobody: between its dynamic users, the last of which is 65519, and what administrators hand out.
_FIRST_THROWAWAY, _THROWAWAYS = 61184, 4336
_PR_SET_DUMPABLE = 4


def move(kernel: Kernel, said: dict[str, Any]) -> None:
    """Go on in a process of its own namespaces, root directory and, as root, user."""
    uid = None if os.geteuid() else _FIRST_THROWAWAY + os.getpid() % _THROWAWAYS
    os.chdir("/")  # what a working directory lies on can't be unmounted, by nobody
    ready = _sandbox_namespaces.enter(kernel, lifeline=said["lifeline"], network=said["network"], uid=uid)
    owner = (os.geteuid(), os.getegid()) if uid is None else (uid, uid)
    _sandbox_root.change(kernel, said, uid=owner[0], gid=owner[1])
    renounce(kernel, uid=uid)
    _limit_threads(said["threads"], others=2 if uid is None else 1)
    if uid is not None:
        # Changing the user closed /proc/self to the worker itself.
        kernel.call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
        _check(said, uid)
    _sandbox_namespaces.wait_for_init(ready)


def _limit_threads(threads: int, *, others: int) -> None:
    """The kernel counts by user, so the ``others`` of the same one that wait around the worker count as well."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = threads + others if hard == resource.RLIM_INFINITY else min(threads + others, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    except (OSError, ValueError) as error:
        raise Unavailable("RLIMIT_NPROC", str(error)) from error


def _check(said: dict[str, Any], uid: int) -> None:
    needed = [(os.__file__, os.R_OK)]
    needed += [(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK) for path in said["roots"] if os.path.lexists(path)]
    needed += [(path, os.R_OK | os.W_OK) for path in said["write"]]
    for path, how in needed:
        if not os.access(path, how):
            does = "write" if how & os.W_OK else "read"
            raise Unavailable(
                "throwaway user", f"user {uid} can't {does} {path}: give everybody the permission, or don't run as root"
            )
