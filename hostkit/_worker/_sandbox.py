"""Confine a worker to what it was granted, before the first byte of the plugin.

    standard: no_new_privs and no capabilities → the lifeline's guard → Landlock (files) → seccomp (everything else)
    strict:   namespaces → a root of its own → as root: a throwaway user → no privileges → Landlock → seccomp

Everything asked for is there afterwards, or ``Unavailable`` is raised and the process is of no more use.
"""

from __future__ import annotations

import os
import sys

from . import _sandbox_landlock, _sandbox_seccomp
from ._sandbox_calls import Kernel, Unavailable
from ._sandbox_privileges import renounce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Unavailable", "confine"]


def confine(said: dict[str, Any], *, kernel: Kernel | None = None) -> None:
    """Give up all but what is ``said`` to be granted. The process must have one thread. Raises ``Unavailable``.

    At "strict" this returns in another process than it was called in.
    """
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        raise Unavailable("sandbox", f"there is one for 64-bit Linux only, and this is {sys.platform}")
    if said["network"] not in (True, False, "brokered"):
        raise Unavailable("network", f"there is no such grant as {said['network']!r}")
    if kernel is None:
        kernel = Kernel()
    landlock = _sandbox_landlock.version(kernel)
    if said["level"] == "strict":
        from ._sandbox_strict import move

        move(kernel, said)
    else:
        from ._sandbox_lifeline import guard

        renounce(kernel)
        guard(kernel, said["lifeline"])
    if said["network"] == "brokered":
        _leave_connections_to_host(kernel, said)
    _sandbox_landlock.confine(kernel, said, landlock=landlock)
    _sandbox_seccomp.confine(kernel, said, pid=os.getpid(), landlock=landlock)


def _leave_connections_to_host(kernel: Kernel, said: dict[str, Any]) -> None:
    from ._sandbox_broker import hand_to_host, know

    hand_to_host(kernel, said["broker"])
    know(said["names"])
