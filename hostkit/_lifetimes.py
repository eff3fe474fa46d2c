"""What happens to hosts when nobody closes them: at exit, in a fork, and when they are forgotten.

``atexit`` runs the last registered handler first. This one is registered after multiprocess's own, which joins children without a
limit, so that by then there are none left.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol

import multiprocess.process
import multiprocess.util  # noqa: F401 - imported for its exit handler, which must be registered before ours

# Seconds that the interpreter's exit may be held up by all workers together.
_GRACE = 1.0


class Open(Protocol):
    """A host, as far as its lifetime goes."""

    def close(self, timeout: float | None = None) -> None:
        """End everything."""
        ...

    def forget(self) -> None:
        """Let go of everything in a fork, touching no worker."""
        ...


# Weak, so that being watched keeps no host alive.
_open: weakref.WeakSet[Open] = weakref.WeakSet()


def watch(host: Open) -> None:
    """End this host with the interpreter, and disarm it in a fork."""
    _open.add(host)


def unwatch(host: Open) -> None:
    """The host ends by itself."""
    _open.discard(host)


def _at_exit() -> None:
    for host in list(_open):
        host.close(_GRACE)


def _in_child() -> None:
    for host in list(_open):
        host.forget()
    # multiprocess would terminate the parent's daemon children when the fork exits.
    children = multiprocess.process._children
    for child in [child for child in children if getattr(child, "_start_method", "") == "hostkit"]:
        children.discard(child)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
